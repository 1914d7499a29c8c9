//! Texts to vectors, by a model in a folder: an ONNX file, `tokenizer.json`, and `retriever.toml`
//! beside them. `cross_encoder` scores pairs of texts by a model of the other kind.
//!
//! The way of a text: prefix and tokens (`tokens`) → batches of about one length (`batches`) → the
//! model (`session`) → one vector (`pooling`), brought to length 1.
//!
//! ONNX Runtime is loaded when the first encoder is opened. Its sessions are not safe to run from
//! several threads, so that each stands behind a lock which is held for one batch at a time
//! (`sessions`): calls on several threads take turns, and memory does not grow with their number.

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
use opening::{Opened, Wanted};
use pooling::normalize;
use session::{Reading, Rows};
use sessions::Sessions;
use settings::Settings;
use tokens::Tokens;

pub use session::Goal;
pub use split::Products;
pub use tokens::Pair;

/// Texts whose tokens are in memory at a time.
const WINDOW_TEXTS: usize = 2048;

/// A model could not be opened, or a text not encoded.
#[derive(Debug, Error)]
pub enum EncodeError {
    /// There is no settings file.
    #[error(
        "{} is not there: write one with `preset = \"e5\"`, \"bge\", \"contriever\", \"minilm\" \
         or \"gte\"", path.display()
    )]
    NoSettings {
        /// Where it should be.
        path: PathBuf,
    },
    /// The settings file is wrong.
    #[error("{}: {}", path.display(), faults.join("; "))]
    Settings {
        /// The file.
        path: PathBuf,
        /// What is wrong, each with key, value and what is accepted.
        faults: Vec<String>,
    },
    /// A file of the model is missing.
    #[error("{} is not there, expected {what}", path.display())]
    NoFile {
        /// Where it should be.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
    },
    /// ONNX Runtime is not where it is looked for.
    #[error(
        "ONNX Runtime is missing: found no libonnxruntime.so in {}; fetch it with `scripts/setup \
         --only onnxruntime`, or name it by RETRIEVER_ONNXRUNTIME or ORT_DYLIB_PATH",
        looked.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    NoLibrary {
        /// Files and folders.
        looked: Vec<PathBuf>,
    },
    /// ONNX Runtime cannot be loaded.
    #[error("cannot load ONNX Runtime from {}: {reason}", path.display())]
    Library {
        /// The library.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Another ONNX Runtime is loaded.
    #[error(
        "cannot load ONNX Runtime from {}: this process has loaded {}", path.display(),
        loaded.display()
    )]
    OtherLibrary {
        /// The library.
        path: PathBuf,
        /// The one that is loaded.
        loaded: PathBuf,
    },
    /// The tokenizer cannot be read.
    #[error("{} is not a tokenizer: {reason}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The model cannot be used.
    #[error("cannot use {} on {provider}: {reason}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// Where it was to run.
        provider: Provider,
        /// Why not.
        reason: String,
    },
    /// A text cannot be cut into tokens.
    #[error("cannot tokenize a text: {0}")]
    Tokenize(String),
    /// The model failed on a batch.
    #[error("the model failed: {0}")]
    Run(String),
    /// A vector is no use.
    #[error("the model gave a vector with {value} for text {text}")]
    NotFinite {
        /// Position of the text in the call.
        text: usize,
        /// An infinity or no number.
        value: f32,
    },
    /// The caller wished to stop.
    #[error("stopped before all texts were encoded")]
    Stopped,
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
}

/// What a text is: models are trained to tell the two apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Asks.
    Query,
    /// Answers.
    Passage,
}

/// How a model is run.
#[derive(Clone, Debug, Default)]
pub struct EncoderOptions {
    /// Where.
    pub device: Device,
    /// Threads that compute on the CPU; none stands for one a core.
    pub threads: Option<NonZeroUsize>,
    /// What it is to be good at.
    pub goal: Goal,
    /// What multiplies with its weights on the CPU.
    pub products: Products,
    /// ONNX Runtime's library, or the folder in which it is; none for where it is looked for.
    pub library: Option<PathBuf>,
}

/// A model that is ready to encode.
pub struct Encoder {
    settings: Settings,
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
    /// Opens the model in `folder` and runs it once, with as many tokens as it will ever get: a
    /// model that takes fewer is refused here. With [`Device::Auto`], a GPU that cannot be used
    /// leaves the model on the CPU; a log line says which of them it is, and why.
    pub fn open(folder: &Path, options: &EncoderOptions) -> Result<Self, EncodeError> {
        let settings = Settings::load(folder)?;
        let tokens = Tokens::open(&settings.tokenizer)?;
        let wanted = Wanted {
            what: "encoder",
            path: &settings.model,
            reading: Reading::Vectors(settings.pooling),
            max_tokens: settings.max_query_tokens.max(settings.max_passage_tokens),
            padding: tokens.padding(),
        };
        let Opened { sessions, provider, dimension } = opening::open(&wanted, options)?;
        Ok(Self { settings, tokens, sessions, provider, dimension })
    }

    /// Numbers in a vector.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Where the model runs.
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// How texts become vectors.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The vectors of `texts`, one after the other in their order. `stop` is asked before every
    /// few batches.
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
        let places = vectors.chunks_mut(WINDOW_TEXTS * self.dimension);
        for (number, (window, place)) in windows.zip(places).enumerate() {
            if stop() {
                return Err(EncodeError::Stopped);
            }
            let ids = self.tokens.encode(prefix, window, max_tokens)?;
            self.encode_window(&ids, place, stop).map_err(|error| match error {
                EncodeError::NotFinite { text, value } => {
                    EncodeError::NotFinite { text: number * WINDOW_TEXTS + text, value }
                }
                other => other,
            })?;
        }
        Ok(vectors)
    }

    fn encode_window(
        &self,
        ids: &[Vec<u32>],
        place: &mut [f32],
        stop: &dyn Fn() -> bool,
    ) -> Result<(), EncodeError> {
        let lengths: Vec<usize> = ids.iter().map(Vec::len).collect();
        let limits = RunLimits::of(self.provider, self.sessions.count(), &lengths);
        let batches = plan(&lengths, limits);
        for batches in batches.chunks(self.sessions.runs_at_a_time()) {
            if stop() {
                return Err(EncodeError::Stopped);
            }
            let padding = self.tokens.padding();
            let runs: Vec<Rows> =
                batches.iter().map(|batch| rows_of(batch, ids, padding)).collect();
            let encoded = self.sessions.run(&runs).map_err(EncodeError::Run)?.concat();
            let texts = batches.iter().flat_map(|batch| &batch.texts);
            for (&text, vector) in texts.zip(encoded.chunks_exact(self.dimension)) {
                if let Some(&value) = vector.iter().find(|value| !value.is_finite()) {
                    return Err(EncodeError::NotFinite { text, value });
                }
                let place = &mut place[text * self.dimension..][..self.dimension];
                place.copy_from_slice(vector);
                if self.settings.normalize {
                    normalize(place);
                }
            }
        }
        Ok(())
    }
}

/// The texts of a batch as rows of one length.
fn rows_of(batch: &Batch, ids: &[Vec<u32>], padding: i64) -> Rows {
    let mut filled = vec![padding; batch.texts.len() * batch.row_tokens];
    let mut lengths = Vec::with_capacity(batch.texts.len());
    for (row, &text) in filled.chunks_exact_mut(batch.row_tokens).zip(&batch.texts) {
        for (place, &id) in row.iter_mut().zip(&ids[text]) {
            *place = i64::from(id);
        }
        lengths.push(ids[text].len());
    }
    Rows { ids: filled, lengths, row_tokens: batch.row_tokens, types: None }
}
