//! What can go wrong in a conversion. Texts name the place, what was expected and what was found.

use std::io;
use std::path::Path;
use std::path::PathBuf;

/// Why a conversion did not happen. The output folder is then as it was before.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The file system refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The input is not a GGUF file that this converter takes.
    #[error("{}: {source}", path.display())]
    Gguf {
        /// The input file.
        path: PathBuf,
        /// What is wrong in it.
        source: GgufError,
    },
    /// The output is there and is no model folder, so it is not replaced.
    #[error("{} exists and is not a model folder: move it away or name another output", .0.display())]
    OutputTaken(PathBuf),
    /// The weights file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Weights {
        /// The file that was being written.
        path: PathBuf,
        /// What the safetensors writer answered.
        source: safetensors::SafeTensorError,
    },
}

impl ConvertError {
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_path_buf(), source }
    }
}

/// What is wrong inside a GGUF file.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GgufError {
    /// The bytes do not have the form of a GGUF file: damaged, cut off, or another kind of file.
    #[error("at byte {offset}: expected {expected}, found {found}")]
    Form {
        /// Where in the file, in bytes from its start.
        offset: usize,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A metadata value is missing or not of the right kind.
    #[error("metadata {key}: expected {expected}, found {found}")]
    Metadata {
        /// The key.
        key: String,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A tensor is missing, unknown, of a wrong shape or of a type that cannot be read.
    #[error("tensor {name}: expected {expected}, found {found}")]
    Tensor {
        /// Name of the tensor in the file.
        name: String,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The tokenizer in the metadata does not hold together.
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
