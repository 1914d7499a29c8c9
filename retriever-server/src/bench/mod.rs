//! Drives a running server over HTTP and measures what its clients would see. It speaks the wire
//! format of Search-R1, so that it measures other servers of that format too. It retries nothing:
//! a failure is counted by its kind, never as a fast answer.
//!
//! `asking` sends one request and judges the answer, [`load`] decides when which request is sent,
//! [`summary`] makes figures of what came back.

pub mod asking;
pub mod load;
pub mod summary;

use thiserror::Error;

/// Why a measurement could not be made.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The client could not be set up.
    #[error("cannot set up the client: {0}")]
    Client(String),
    /// Not one request was answered.
    #[error("no request to {url} was answered: {failures}")]
    NoAnswer {
        /// Where the requests went.
        url: String,
        /// How often which failure.
        failures: String,
    },
    /// The threads could not be started.
    #[error("cannot start threads: {0}")]
    Threads(#[from] std::io::Error),
}
