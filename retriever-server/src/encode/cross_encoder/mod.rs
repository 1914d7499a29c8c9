//! Scoring of pairs of a query and a passage, by a cross-encoder in a folder with an ONNX file with the
//! output `logits`, `tokenizer.json` and, for settings other than the defaults, `reranker.toml`.
//!
//! Both texts go through the model as one row, so every pair needs its own computation. Callers share
//! the sessions like those of an encoder.

mod settings;

use std::fmt;
use std::path::Path;

use super::batches::{Batch, GraphLimits, RunLimits, plan};
use super::opening::{self, ModelSpec, OpenModel};
use super::outputs::Reading;
use super::session::TokenRows;
use super::sessions::Sessions;
use super::settings::Positions;
use super::tokens::{Pair, PairTokens, Tokens};
use super::{EncodeError, EncoderOptions, finishing, first_tokens};
use crate::device::Provider;

pub use settings::{CrossEncoderSettings, SETTINGS_FILE, ScoreScale};

/// The number of pairs that are sorted by length and batched together on a CPU. Windows are scored in
/// order; only within a window do longer pairs come first.
const WINDOW_PAIRS_CPU: usize = 32;
/// The same for a GPU, which computes more pairs concurrently.
const WINDOW_PAIRS_CUDA: usize = 256;

/// An open model that scores pairs.
pub struct CrossEncoder {
    settings: CrossEncoderSettings,
    tokens: Tokens,
    sessions: Sessions,
    limits: GraphLimits,
    provider: Provider,
    max_tokens: usize,
}

impl fmt::Debug for CrossEncoder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CrossEncoder")
            .field("settings", &self.settings)
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}

impl CrossEncoder {
    /// Opens the model in `folder` like [`crate::encode::Encoder::open`].
    pub fn open(folder: &Path, options: &EncoderOptions) -> Result<Self, EncodeError> {
        let settings = CrossEncoderSettings::load(folder)?;
        let tokens = Tokens::open(&settings.tokenizer)?;
        let spec = ModelSpec {
            label: "re-ranker",
            path: &settings.model,
            reading: &Reading::Scores,
            first_tokens: first_tokens(&[settings.max_tokens], settings.positions.is_some()),
            first_position: settings.positions.map_or(0, Positions::first),
            padding: tokens.padding(),
        };
        let OpenModel { sessions, provider, limits, .. } = opening::open(&spec, options)?;
        let max_tokens = finishing::fixed_length(
            "max_tokens",
            settings.max_tokens,
            limits.row_tokens,
            &settings.model,
        )?;
        Ok(Self { settings, tokens, sessions, limits, provider, max_tokens })
    }

    /// Returns the provider that runs the model.
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// Returns the score of each pair; higher is better. `stop` is called before every few batches. Once
    /// it returns `true`, the rest of the pairs get `None`. Pairs are scored roughly in order.
    pub fn score(
        &self,
        pairs: &[Pair<'_>],
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Option<f32>>, EncodeError> {
        let window_pairs = match self.provider {
            Provider::Cpu => WINDOW_PAIRS_CPU,
            Provider::Cuda(_) => WINDOW_PAIRS_CUDA,
        };
        let mut scores = vec![None; pairs.len()];
        let windows = pairs.chunks(window_pairs);
        for (number, (window, slots)) in windows.zip(scores.chunks_mut(window_pairs)).enumerate() {
            let done = self.score_window(window, slots, stop).map_err(|error| match error {
                EncodeError::NotFinite { text, value } => {
                    EncodeError::NotFinite { text: number * window_pairs + text, value }
                }
                other => other,
            })?;
            if !done {
                break;
            }
        }
        Ok(scores)
    }

    /// Scores a window. Returns `false` if it was stopped.
    fn score_window(
        &self,
        pairs: &[Pair<'_>],
        scores: &mut [Option<f32>],
        stop: &dyn Fn() -> bool,
    ) -> Result<bool, EncodeError> {
        if stop() {
            return Ok(false);
        }
        let rows = pairs
            .iter()
            .map(|pair| {
                let query = [&self.settings.query_prefix, pair.query].concat();
                let pair = Pair { query: &query, passage: pair.passage };
                self.tokens.encode_pair(pair, self.max_tokens)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let lengths: Vec<usize> = rows.iter().map(|row| row.ids.len()).collect();
        let limits = RunLimits::new(self.provider, self.sessions.count(), &lengths, self.limits);
        let batches = plan(&lengths, limits);
        // A time budget may end soon, so each session gets at most one run between two calls of `stop`.
        for batches in batches.chunks(self.sessions.count()) {
            if stop() {
                return Ok(false);
            }
            let padding = self.tokens.padding();
            let runs: Vec<TokenRows> =
                batches.iter().map(|batch| rows_of(batch, &rows, padding)).collect();
            let logits = self.sessions.run(&runs).map_err(EncodeError::Run)?.concat();
            let texts = batches.iter().flat_map(|batch| &batch.texts);
            for (&text, &value) in texts.zip(&logits) {
                if !value.is_finite() {
                    return Err(EncodeError::NotFinite { text, value });
                }
                scores[text] = Some(self.settings.scale.score(value));
            }
        }
        Ok(true)
    }
}

/// Pads the pairs of a batch to rows of equal length.
fn rows_of(batch: &Batch, pairs: &[PairTokens], padding: i64) -> TokenRows {
    let numbers = batch.texts.len() * batch.row_tokens;
    let (mut ids, mut types) = (vec![padding; numbers], vec![0i64; numbers]);
    let mut lengths = Vec::with_capacity(batch.texts.len());
    let rows = ids.chunks_exact_mut(batch.row_tokens).zip(types.chunks_exact_mut(batch.row_tokens));
    for ((ids, types), &text) in rows.zip(&batch.texts) {
        let pair = &pairs[text];
        for (slot, &id) in ids.iter_mut().zip(&pair.ids) {
            *slot = i64::from(id);
        }
        for (slot, &kind) in types.iter_mut().zip(&pair.types) {
            *slot = i64::from(kind);
        }
        lengths.push(pair.ids.len());
    }
    TokenRows {
        ids,
        lengths,
        row_tokens: batch.row_tokens,
        types: Some(types),
        ..TokenRows::default()
    }
}
