//! Encoding of texts as vectors, by a model in a folder with an ONNX file, `tokenizer.json` and
//! `retriever.toml`. `cross_encoder` scores pairs of texts with the other kind of model.
//!
//! The path of a text: prefix and tokens (`tokens`) → batches of similar length (`batches`) → the
//! model (`session`) → one vector (`pooling`), scaled to length 1.
//!
//! ONNX Runtime is loaded when the first encoder is opened. Several threads must not run a session at
//! the same time, so each session has a lock, which is held for one batch at a time (`sessions`).
//! Concurrent calls take turns, and memory does not grow with their number.

pub mod settings;
mod tokens;
mod batches;
mod pooling;
mod library;
mod session;
mod sessions;
mod split;
mod opening;
pub mod cross_encoder;

use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::device::{Device, Provider};
use batches::{Batch, RunLimits, plan};
use opening::{ModelSpec, OpenModel};
use pooling::normalize;
use session::{Reading, TokenRows};
use sessions::Sessions;
use settings::EncoderSettings;
use tokens::Tokens;

pub use session::Goal;
pub use split::Products;
pub use tokens::Pair;

/// The number of texts whose tokens are in memory at a time.
const WINDOW_TEXTS: usize = 2048;

/// A model could not be opened, or a text could not be encoded.
#[derive(Debug, Error)]
pub enum EncodeError {
    /// There is no settings file.
    #[error(
        "{} is missing: write one with `preset = \"e5\"`, \"bge\", \"contriever\", \"minilm\" \
         or \"gte\"", path.display()
    )]
    NoSettings {
        /// The expected path.
        path: PathBuf,
    },
    /// The settings file is invalid.
    #[error("{}: {}", path.display(), faults.join("; "))]
    Settings {
        /// The file.
        path: PathBuf,
        /// The faults, each with key, value and the accepted values.
        faults: Vec<String>,
    },
    /// A file of the model is missing.
    #[error("{} is missing, expected {expected}", path.display())]
    NoFile {
        /// The expected path.
        path: PathBuf,
        /// The kind of file, with an article.
        expected: &'static str,
    },
    /// ONNX Runtime is in none of the searched places.
    #[error(
        "ONNX Runtime is missing: found no libonnxruntime.so in {}; fetch it with `scripts/setup \
         --only onnxruntime`, or name it by RETRIEVER_ONNXRUNTIME or ORT_DYLIB_PATH",
        searched.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    NoLibrary {
        /// The files and folders that were searched.
        searched: Vec<PathBuf>,
    },
    /// ONNX Runtime cannot be loaded.
    #[error("cannot load ONNX Runtime from {}: {reason}", path.display())]
    Library {
        /// The library.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// Another ONNX Runtime is already loaded.
    #[error(
        "cannot load ONNX Runtime from {}: this process has loaded {}", path.display(),
        loaded.display()
    )]
    OtherLibrary {
        /// The requested library.
        path: PathBuf,
        /// The loaded library.
        loaded: PathBuf,
    },
    /// The tokenizer cannot be read.
    #[error("{} is not a tokenizer: {reason}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// The model cannot be used.
    #[error("cannot use {} on {provider}: {reason}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// The provider that should run it.
        provider: Provider,
        /// The cause.
        reason: String,
    },
    /// A text cannot be tokenized.
    #[error("cannot tokenize a text: {0}")]
    Tokenize(String),
    /// The model failed on a batch.
    #[error("the model failed: {0}")]
    Run(String),
    /// A vector or a score is not finite.
    #[error("the model returned {value} for text {text}, expected finite numbers")]
    NotFinite {
        /// The position of the text in the call.
        text: usize,
        /// An infinity or NaN.
        value: f32,
    },
    /// The caller requested a stop.
    #[error("stopped before all texts were encoded")]
    Stopped,
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
}

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
    provider: Provider,
    dimension: usize,
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
    /// Opens the model in `folder` and runs it once with the most tokens it will ever get. This
    /// refuses a model that accepts fewer. With [`Device::Auto`], the model runs on the CPU if the GPU
    /// cannot be used; a log line reports the choice and the reason.
    pub fn open(folder: &Path, options: &EncoderOptions) -> Result<Self, EncodeError> {
        let settings = EncoderSettings::load(folder)?;
        let tokens = Tokens::open(&settings.tokenizer)?;
        let spec = ModelSpec {
            label: "encoder",
            path: &settings.model,
            reading: Reading::Vectors(settings.pooling),
            max_tokens: settings.max_query_tokens.max(settings.max_passage_tokens),
            padding: tokens.padding(),
        };
        let OpenModel { sessions, provider, dimension } = opening::open(&spec, options)?;
        Ok(Self { settings, tokens, sessions, provider, dimension })
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
        let (prefix, max_tokens) = match role {
            Role::Query => (&self.settings.query_prefix, self.settings.max_query_tokens),
            Role::Passage => (&self.settings.passage_prefix, self.settings.max_passage_tokens),
        };
        let mut vectors = vec![0.0; texts.len() * self.dimension];
        let windows = texts.chunks(WINDOW_TEXTS);
        let slots = vectors.chunks_mut(WINDOW_TEXTS * self.dimension);
        for (number, (window, slots)) in windows.zip(slots).enumerate() {
            if stop() {
                return Err(EncodeError::Stopped);
            }
            let ids = self.tokens.encode(prefix, window, max_tokens)?;
            self.encode_window(&ids, slots, stop).map_err(|error| match error {
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
        slots: &mut [f32],
        stop: &dyn Fn() -> bool,
    ) -> Result<(), EncodeError> {
        let lengths: Vec<usize> = ids.iter().map(Vec::len).collect();
        let limits = RunLimits::new(self.provider, self.sessions.count(), &lengths);
        let batches = plan(&lengths, limits);
        for batches in batches.chunks(self.sessions.runs_at_a_time()) {
            if stop() {
                return Err(EncodeError::Stopped);
            }
            let padding = self.tokens.padding();
            let runs: Vec<TokenRows> =
                batches.iter().map(|batch| rows_of(batch, ids, padding)).collect();
            let encoded = self.sessions.run(&runs).map_err(EncodeError::Run)?.concat();
            let texts = batches.iter().flat_map(|batch| &batch.texts);
            for (&text, vector) in texts.zip(encoded.chunks_exact(self.dimension)) {
                if let Some(&value) = vector.iter().find(|value| !value.is_finite()) {
                    return Err(EncodeError::NotFinite { text, value });
                }
                let slot = &mut slots[text * self.dimension..][..self.dimension];
                slot.copy_from_slice(vector);
                if self.settings.normalize {
                    normalize(slot);
                }
            }
        }
        Ok(())
    }
}

/// Pads the texts of a batch to rows of equal length.
fn rows_of(batch: &Batch, ids: &[Vec<u32>], padding: i64) -> TokenRows {
    let mut filled = vec![padding; batch.texts.len() * batch.row_tokens];
    let mut lengths = Vec::with_capacity(batch.texts.len());
    for (row, &text) in filled.chunks_exact_mut(batch.row_tokens).zip(&batch.texts) {
        for (slot, &id) in row.iter_mut().zip(&ids[text]) {
            *slot = i64::from(id);
        }
        lengths.push(ids[text].len());
    }
    TokenRows { ids: filled, lengths, row_tokens: batch.row_tokens, types: None }
}
