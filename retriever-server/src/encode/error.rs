//! The errors of opening a model and of encoding texts.

use std::path::PathBuf;

use thiserror::Error;

use crate::device::Provider;

/// A model could not be opened, or a text could not be encoded.
#[derive(Debug, Error)]
pub enum EncodeError {
    /// There is no settings file.
    #[error(
        "{} is missing: write one with `preset = \"e5\"`, \"bge\", \"contriever\", \"minilm\" \
         or \"gte\"; a folder of sentence-transformers, with modules.json, needs none", path.display()
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
    /// The weights of a step after the model cannot be used.
    #[error("{}: {reason}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// A step after the model takes vectors of another dimension than it gets.
    #[error("{step} takes vectors of {expected} numbers, but gets {found} from {}", path.display())]
    Dimension {
        /// The step.
        step: String,
        /// The ONNX file.
        path: PathBuf,
        /// The dimension that it gets.
        found: usize,
        /// The dimension that it takes.
        expected: usize,
    },
    /// A stated length is over that of the model's graph.
    #[error(
        "{key} = {tokens}: expected at most {limit}, the fixed number of tokens of {}",
        path.display()
    )]
    FixedLength {
        /// The key that states the length.
        key: &'static str,
        /// The stated length.
        tokens: usize,
        /// The length of the graph.
        limit: usize,
        /// The ONNX file.
        path: PathBuf,
    },
    /// A prefix leaves no room for texts.
    #[error(
        "the prefix {prefix:?} has {tokens} tokens, expected fewer than {limit}, the limit of a {role}"
    )]
    LongPrefix {
        /// The prefix.
        prefix: String,
        /// Its number of tokens.
        tokens: usize,
        /// The most tokens of a text.
        limit: usize,
        /// The role of the text.
        role: &'static str,
    },
    /// The model pools by itself, with the tokens of the prefix.
    #[error(
        "cannot leave the prefix out of the vectors of {}: its output is already pooled, expected one \
         with a vector per token", path.display()
    )]
    PooledPrefix {
        /// The ONNX file.
        path: PathBuf,
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
