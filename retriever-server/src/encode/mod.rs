//! Encoding of texts as vectors, by a model in a folder with an ONNX file, `tokenizer.json` and either the
//! files of sentence-transformers or `retriever.toml`. `cross_encoder` scores pairs of texts with the other
//! kind of model.
//!
//! The path of a text: prefix and tokens (`tokens`) → batches of similar length (`batches`) → the
//! model (`session` with `inputs` and `outputs`) → one vector (`pooling`) → the steps of the folder
//! (`modules`), shortened and scaled to length 1.
//!
//! A vector depends on its text alone, up to the rounding of sums. Graphs for which that is not so get one
//! text at a time (`graph`, `batches`).
//!
//! ONNX Runtime is loaded when the first encoder is opened. Several threads must not run a session at
//! the same time, so each session has a lock, which is held for one batch at a time (`sessions`).
//! Concurrent calls take turns, and memory does not grow with their number.

mod error;
pub mod settings;
pub mod calls;
mod tokens;
mod batches;
mod pooling;
mod modules;
mod finishing;
mod library;
mod message;
mod graph;
mod inputs;
mod outputs;
mod session;
mod sessions;
mod split;
mod opening;
pub mod cross_encoder;

use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use tracing::warn;

use crate::device::{Device, Provider};
use batches::{Batch, GraphLimits, RunLimits, plan};
use modules::Module;
use opening::{ModelSpec, OpenModel};
use outputs::{OutputKind, Reading};
use pooling::normalize;
use session::TokenRows;
use sessions::Sessions;
use settings::{EncoderSettings, Padding, Positions, TokenLimit};
use tokens::Tokens;

pub use error::EncodeError;
pub use session::Goal;
pub use split::Products;
pub use tokens::Pair;

/// The number of texts whose tokens are in memory at a time.
const WINDOW_TEXTS: usize = 2048;

/// The role of a text. Models are trained to encode the two roles differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A question or another text to search for.
    Query,
    /// A text of the corpus.
    Passage,
}

/// The options for running a model.
#[derive(Clone, Debug, Default)]
pub struct EncoderOptions {
    /// The device that runs it.
    pub device: Device,
    /// The number of threads that compute on the CPU; `None` for one per core.
    pub threads: Option<NonZeroUsize>,
    /// The goal to optimise for.
    pub goal: Goal,
    /// The method of multiplying with its weights on the CPU.
    pub products: Products,
    /// The library of ONNX Runtime, or its folder; `None` to search the usual places.
    pub library: Option<PathBuf>,
}

/// An open model that encodes texts.
pub struct Encoder {
    settings: EncoderSettings,
    tokens: Tokens,
    sessions: Sessions,
    limits: GraphLimits,
    provider: Provider,
    /// The steps after pooling that the graph does not compute.
    modules: Vec<Module>,
    query: Texts,
    passage: Texts,
    pads_left: bool,
    /// The number of components that the model returns.
    pooled: usize,
    dimension: usize,
}

/// The rules for the texts of a role.
#[derive(Debug)]
struct Texts {
    prefix: String,
    max_tokens: usize,
    /// The number of tokens at the start of each text that pooling leaves out.
    skipped: usize,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Encoder")
            .field("settings", &self.settings)
            .field("provider", &self.provider)
            .field("dimension", &self.dimension)
            .finish_non_exhaustive()
    }
}

impl Encoder {
    /// Opens the model in `folder` and runs it once. If the number of its positions is unknown, it runs
    /// with the most tokens it will ever get, which refuses a model that accepts fewer. With
    /// [`Device::Auto`], the model runs on the CPU if the GPU cannot be used; a log line reports the
    /// choice and the reason.
    pub fn open(folder: &Path, options: &EncoderOptions) -> Result<Self, EncodeError> {
        let settings = EncoderSettings::load(folder)?;
        for note in &settings.notes {
            warn!(model = %folder.display(), "{note}");
        }
        let tokens = Tokens::open(&settings.tokenizer)?;
        let (pooling, output) = (settings.pooling.clone(), settings.output.clone());
        let spec = ModelSpec {
            label: "encoder",
            path: &settings.model,
            reading: &Reading::Vectors { pooling, output },
            first_tokens: first_tokens(
                &[settings.max_query_tokens, settings.max_passage_tokens],
                settings.positions.is_some(),
            ),
            first_position: settings.positions.map_or(0, Positions::first),
            padding: tokens.padding(),
        };
        let OpenModel { sessions, provider, dimension: pooled, limits } =
            opening::open(&spec, options)?;
        let is_finished = sessions.shape().output == OutputKind::Finished;
        let (modules, full) = finishing::steps(&settings, pooled, is_finished)?;
        let dimension = finishing::kept(&settings, full);
        let max =
            |key, limit| finishing::fixed_length(key, limit, limits.row_tokens, &settings.model);
        let max_tokens = [
            max("max_query_tokens", settings.max_query_tokens)?,
            max("max_passage_tokens", settings.max_passage_tokens)?,
        ];
        let texts = |role: &'static str, prefix: &str, max_tokens| {
            let tokens = if prefix.is_empty() { 0 } else { tokens.prefix_tokens(prefix)? };
            if tokens >= max_tokens {
                let (prefix, limit) = (prefix.to_owned(), max_tokens);
                return Err(EncodeError::LongPrefix { prefix, tokens, limit, role });
            }
            let skipped = if settings.leaves_out_prompt { tokens } else { 0 };
            if skipped > 0 && is_finished {
                return Err(EncodeError::PooledPrefix { path: settings.model.clone() });
            }
            Ok(Texts { prefix: prefix.to_owned(), max_tokens, skipped })
        };
        let query = texts("query", &settings.query_prefix, max_tokens[0])?;
        let passage = texts("passage", &settings.passage_prefix, max_tokens[1])?;
        // The side matters only to a graph that pools by itself. Positions start at a text's first token
        // only if the padding is behind it.
        let pads_left = match settings.pads_left {
            Padding::Stated(pads_left) => pads_left,
            Padding::OfTokenizer(pads_left) => {
                is_finished && pads_left.unwrap_or(tokens.pads_left())
            }
        };
        Ok(Self {
            settings,
            tokens,
            sessions,
            limits,
            provider,
            modules,
            query,
            passage,
            pads_left,
            pooled,
            dimension,
        })
    }

    /// Returns the number of components of a vector.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Returns the provider that runs the model.
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// Returns the settings of the model's folder.
    pub fn settings(&self) -> &EncoderSettings {
        &self.settings
    }

    /// Returns the vectors of `texts` one after the other, in the order of the texts. `stop` is called
    /// before every few batches and cancels the call when it returns `true`.
    pub fn encode(
        &self,
        texts: &[&str],
        role: Role,
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<f32>, EncodeError> {
        let rules = match role {
            Role::Query => &self.query,
            Role::Passage => &self.passage,
        };
        let mut vectors = vec![0.0; texts.len() * self.dimension];
        let windows = texts.chunks(WINDOW_TEXTS);
        let slots = vectors.chunks_mut(WINDOW_TEXTS * self.dimension);
        for (number, (window, slots)) in windows.zip(slots).enumerate() {
            if stop() {
                return Err(EncodeError::Stopped);
            }
            let ids = self.tokens.encode(&rules.prefix, window, rules.max_tokens)?;
            self.encode_window(&ids, rules.skipped, slots, stop).map_err(|error| match error {
                EncodeError::NotFinite { text, value } => {
                    EncodeError::NotFinite { text: number * WINDOW_TEXTS + text, value }
                }
                other => other,
            })?;
        }
        Ok(vectors)
    }

    /// Writes the vectors of texts with these token ids into `slots`, in order.
    fn encode_window(
        &self,
        ids: &[Vec<u32>],
        skipped: usize,
        slots: &mut [f32],
        stop: &dyn Fn() -> bool,
    ) -> Result<(), EncodeError> {
        let lengths: Vec<usize> = ids.iter().map(Vec::len).collect();
        let limits = RunLimits::new(self.provider, self.sessions.count(), &lengths, self.limits);
        let batches = plan(&lengths, limits);
        for batches in batches.chunks(self.sessions.runs_at_a_time()) {
            if stop() {
                return Err(EncodeError::Stopped);
            }
            let padding = self.tokens.padding();
            let rows = |batch| TokenRows {
                pads_left: self.pads_left,
                skipped,
                ..rows_of(batch, ids, padding, self.pads_left)
            };
            let runs: Vec<TokenRows> = batches.iter().map(rows).collect();
            let encoded = self.sessions.run(&runs).map_err(EncodeError::Run)?.concat();
            let texts = batches.iter().flat_map(|batch| &batch.texts);
            for (&text, vector) in texts.zip(encoded.chunks_exact(self.pooled)) {
                let mut vector = vector.to_vec();
                for module in &self.modules {
                    module.apply(&mut vector);
                }
                vector.truncate(self.dimension);
                if let Some(&value) = vector.iter().find(|value| !value.is_finite()) {
                    return Err(EncodeError::NotFinite { text, value });
                }
                let slot = &mut slots[text * self.dimension..][..self.dimension];
                slot.copy_from_slice(&vector);
                if self.settings.normalize {
                    normalize(slot);
                }
            }
        }
        Ok(())
    }
}

/// Pads the texts of a batch to rows of equal length.
fn rows_of(batch: &Batch, ids: &[Vec<u32>], padding: i64, pads_left: bool) -> TokenRows {
    let mut filled = vec![padding; batch.texts.len() * batch.row_tokens];
    let mut lengths = Vec::with_capacity(batch.texts.len());
    for (row, &text) in filled.chunks_exact_mut(batch.row_tokens).zip(&batch.texts) {
        let start = if pads_left { row.len() - ids[text].len() } else { 0 };
        for (slot, &id) in row[start..].iter_mut().zip(&ids[text]) {
            *slot = i64::from(id);
        }
        lengths.push(ids[text].len());
    }
    TokenRows { ids: filled, lengths, row_tokens: batch.row_tokens, ..TokenRows::default() }
}

/// The number of tokens of the first run of a model with known positions.
const FIRST_TOKENS: usize = 512;

/// Returns the number of tokens of the first run. A length that nothing vouches for is tried in full,
/// unless it is no one's wish.
fn first_tokens(limits: &[TokenLimit], knows_positions: bool) -> usize {
    let first = |limit: &TokenLimit| {
        let is_tried = limit.is_stated && !knows_positions;
        if is_tried { limit.tokens } else { limit.tokens.min(FIRST_TOKENS) }
    };
    limits.iter().map(first).max().unwrap_or(FIRST_TOKENS)
}

#[cfg(test)]
mod tests;
