//! The reasons why an engine cannot be asked, or does not answer. None of them contains a secret.

use std::time::Duration;

use thiserror::Error;

/// A request to an engine failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EngineError {
    /// There is no usable answer now; the same request may succeed later.
    #[error("{engine} at {url} does not answer: {reason}")]
    Unavailable {
        /// The name of the engine.
        engine: &'static str,
        /// Its address.
        url: String,
        /// The fault of the connection, or the status with the start of its text.
        reason: String,
        /// The pause that the engine requests before the next request.
        pause: Option<Duration>,
    },
    /// The request is larger than the engine accepts; a smaller one may succeed.
    #[error("{engine} at {url} takes no request as large as this one: {reason}")]
    TooLarge {
        /// The name of the engine.
        engine: &'static str,
        /// Its address.
        url: String,
        /// The status with the start of its text.
        reason: String,
    },
    /// The engine refuses the request, and would refuse it again.
    #[error("{engine} at {url} refuses: {reason}")]
    Refused {
        /// The name of the engine.
        engine: &'static str,
        /// Its address.
        url: String,
        /// The status with the start of its text.
        reason: String,
    },
    /// The answer is not what the protocol documents.
    #[error("the answer of {engine} at {url} is not understood: {reason}")]
    Malformed {
        /// The name of the engine.
        engine: &'static str,
        /// Its address.
        url: String,
        /// The difference.
        reason: String,
    },
    /// Some records of a request were not stored.
    #[error("{engine} stored {stored} of {sent} passages; the passage {id:?} failed: {reason}")]
    Partial {
        /// The name of the engine.
        engine: &'static str,
        /// The number of records that were stored.
        stored: usize,
        /// The number of records in the request.
        sent: usize,
        /// The identifier of the first passage that failed.
        id: String,
        /// Its reason.
        reason: String,
        /// `true` if all failed records may be stored by a later request.
        retryable: bool,
    },
    /// There is no such collection.
    #[error(
        "{engine} at {url} has no collection {collection:?}: load it with `retriever-server index \
         --to {engine}`, or set RETRIEVER_ENGINE_COLLECTION to another one"
    )]
    Missing {
        /// The name of the collection.
        collection: String,
        /// The address of the engine.
        url: String,
        /// The name of the engine.
        engine: &'static str,
    },
    /// The load of the collection did not end.
    #[error(
        "the collection {collection:?} is not loaded completely: run `retriever-server index --to \
         {engine}` again, which resumes"
    )]
    Incomplete {
        /// The name of the collection.
        collection: String,
        /// The name of the engine.
        engine: &'static str,
    },
    /// The vectors of the collection are those of another encoder.
    #[error(
        "the collection {collection:?} has {found}, but queries become vectors of {expected}: set \
         RETRIEVER_MODEL to the encoder that loaded it, or load another collection"
    )]
    OtherVectors {
        /// The name of the collection.
        collection: String,
        /// The vectors in the collection.
        found: String,
        /// The vectors of queries.
        expected: String,
    },
    /// A record or a setting that the engine cannot take.
    #[error("{0}")]
    Unfit(String),
}

impl EngineError {
    /// Returns `true` if the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::Partial { retryable, .. } => *retryable,
            Self::TooLarge { .. }
            | Self::Refused { .. }
            | Self::Malformed { .. }
            | Self::Missing { .. }
            | Self::Incomplete { .. }
            | Self::OtherVectors { .. }
            | Self::Unfit(_) => false,
        }
    }

    /// Returns the pause that the engine requests.
    pub fn pause(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { pause, .. } => *pause,
            _ => None,
        }
    }
}
