//! The errors of the start and the run of a server.

use std::io;
use std::path::PathBuf;

use shared::machine::traces::TracesError;
use thiserror::Error;
use tokio::task::JoinError;

use crate::access::AccessError;
use crate::backend::dense::VectorsError;
use crate::config::ConfigError;
use crate::encode::EncodeError;
use crate::engine::EngineError;
use crate::index::IndexError;
use crate::vector::faiss_file::FaissError;

/// The error of a server that could not start or had to stop.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The index was built from another corpus than the named one, which showed while loading.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The index could not be built or opened.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The file of vectors could not be opened.
    #[error(transparent)]
    Faiss(#[from] FaissError),
    /// The file of vectors does not belong to the passages and the encoder.
    #[error("{} has {property} {value}, expected {expected}", path.display())]
    OtherVectors {
        /// The file.
        path: PathBuf,
        /// The property that differs.
        property: &'static str,
        /// Its value in the file.
        value: String,
        /// The value that would fit.
        expected: String,
    },
    /// The encoder could not be opened.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The vectors could not be loaded to CUDA devices.
    #[error(transparent)]
    Vectors(#[from] VectorsError),
    /// The client of a service behind this server could not be set up.
    #[error("cannot set up requests to a service: {0}")]
    Upstream(String),
    /// The engine of another machine cannot be searched.
    #[error(transparent)]
    Engine(Box<EngineError>),
    /// A part is missing that a start would build, and this is only a check.
    #[error("{0} are not built yet")]
    Unbuilt(String),
    /// A file of keys or a certificate could not be read.
    #[error(transparent)]
    Access(Box<AccessError>),
    /// Traces cannot be exported.
    #[error(transparent)]
    Traces(#[from] TracesError),
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

impl From<EngineError> for ServeError {
    fn from(error: EngineError) -> Self {
        Self::Engine(Box::new(error))
    }
}

impl From<AccessError> for ServeError {
    fn from(error: AccessError) -> Self {
        Self::Access(Box::new(error))
    }
}
