//! The errors of a server's start and run.

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use tokio::task::JoinError;

use crate::config::ConfigError;
use crate::encode::EncodeError;
use crate::gpu::GpuError;
use crate::index::IndexError;
use crate::vector::faiss_file::FaissError;

/// The server could not start or go on.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The index is of another corpus than the one that is named, as was seen while loading.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The index could not be built or opened.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The file of vectors could not be opened.
    #[error(transparent)]
    Faiss(#[from] FaissError),
    /// The file of vectors cannot be that of the passages and the encoder.
    #[error("{} has {what} {found}, expected {expected}", path.display())]
    OtherVectors {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// What the file has.
        found: String,
        /// What would fit.
        expected: String,
    },
    /// The encoder could not be opened.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The vectors could not be put on CUDA devices.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// The threads could not be started.
    #[error("cannot start threads: {0}")]
    Threads(io::Error),
    /// The listener failed.
    #[error("cannot accept connections: {0}")]
    Listener(io::Error),
    /// A task of the server panicked.
    #[error("a task of the server failed: {0}")]
    Task(#[from] JoinError),
}
