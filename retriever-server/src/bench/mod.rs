//! Measurement of a running server over HTTP, as its clients see it. The requests have the wire format
//! of Search-R1, so other servers with that format can be measured too. Nothing is retried: a failure
//! is counted by its kind and never as a fast answer.
//!
//! [`load`] schedules requests, [`asking`] sends one and judges its answer, and [`summary`] computes the
//! figures.

pub mod load;
pub mod asking;
pub mod summary;

use thiserror::Error;

/// A measurement failed.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The client could not be set up.
    #[error("cannot set up the client: {0}")]
    Client(String),
    /// No request was answered.
    #[error("no request to {url} was answered: {failures}")]
    NoAnswer {
        /// The address of the requests.
        url: String,
        /// The failures with their counts.
        failures: String,
    },
    /// The threads could not be started.
    #[error("cannot start threads: {0}")]
    Threads(#[from] std::io::Error),
}
