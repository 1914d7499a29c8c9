//! Errors of a conversion. The texts name the location, the expected and the found content.

use std::io;
use std::path::Path;
use std::path::PathBuf;

/// An error that ends a conversion. The output folder then stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// An operation on a file failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The operation, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The input is not a GGUF file that this converter accepts.
    #[error("{}: {source}", path.display())]
    Gguf {
        /// The input file.
        path: PathBuf,
        /// The error in the file.
        source: GgufError,
    },
    /// The output exists and is not a conversion, which alone is replaced.
    #[error(
        "{} exists and holds other files than a conversion made there, so it is not replaced: move it away or choose \
         another output",
        .0.display()
    )]
    OutputTaken(PathBuf),
    /// The weights file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Weights {
        /// The weights file.
        path: PathBuf,
        /// The error of the safetensors writer.
        source: safetensors::SafeTensorError,
    },
}

impl ConvertError {
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_path_buf(), source }
    }
}

/// An error in the content of a GGUF file.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GgufError {
    /// The bytes do not have the form of a GGUF file: it is damaged, truncated, or another kind of file.
    #[error("at byte {offset}: expected {expected}, found {found}")]
    Form {
        /// The offset of the error, in bytes from the start of the file.
        offset: usize,
        /// The expected content.
        expected: String,
        /// The actual content.
        found: String,
    },
    /// A metadata value is missing or of the wrong kind.
    #[error("metadata {key}: expected {expected}, found {found}")]
    Metadata {
        /// The key.
        key: String,
        /// The expected value.
        expected: String,
        /// The actual value.
        found: String,
    },
    /// A tensor is missing, unknown, of a wrong shape or of a type that cannot be read.
    #[error("tensor {name}: expected {expected}, found {found}")]
    Tensor {
        /// The tensor's name in the file.
        name: String,
        /// The expected property.
        expected: String,
        /// The actual property.
        found: String,
    },
    /// The tokenizer in the metadata is inconsistent.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
}

impl GgufError {
    pub(super) fn form(
        offset: usize,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Form { offset, expected: expected.into(), found: found.into() }
    }

    pub(super) fn metadata(
        key: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Metadata { key: key.into(), expected: expected.into(), found: found.into() }
    }

    pub(super) fn tensor(
        name: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Tensor { name: name.into(), expected: expected.into(), found: found.into() }
    }
}
