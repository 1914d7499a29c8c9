//! Queries and what becomes of them: a batch, its hits, its answers, its faults. Values without
//! behaviour, which every room between the HTTP interface and the kernels may name.

use std::sync::Arc;

use shared::passage::Passage;
use thiserror::Error;

/// Queries that want the same number of passages. One query is a batch of one; none is a batch
/// too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryBatch {
    /// Any text, the empty one included.
    pub queries: Arc<[String]>,
    /// Passages wanted per query, at least 1.
    pub top_k: usize,
}

/// A row of the corpus with its score, higher is better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Row of the passage.
    pub row: u32,
    /// Finite score on the back end's own scale.
    pub score: f32,
}

/// Why one query has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SearchFault {
    /// Its time ran out.
    #[error("deadline exceeded")]
    DeadlineExceeded,
    /// It is longer than the server takes.
    #[error("query too long")]
    QueryTooLong,
    /// The server is at fault; the log says how.
    #[error("internal fault")]
    Internal,
}

impl SearchFault {
    /// Whether the same query may succeed later.
    pub fn is_retryable(self) -> bool {
        match self {
            Self::DeadlineExceeded | Self::Internal => true,
            Self::QueryTooLong => false,
        }
    }
}

/// Hits of one query, best first, or why there are none.
pub type QueryOutcome = Result<Vec<Hit>, SearchFault>;

/// A passage with its score.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The passage as it is stored.
    pub passage: Passage,
    /// The back end's score, or the re-ranker's where there is one.
    pub score: f32,
}

/// Passages of one query, best first, or why there are none.
pub type QueryAnswer = Result<Vec<Answer>, SearchFault>;
