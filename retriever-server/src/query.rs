//! Batches of queries, their hits, answers and faults. They are plain values, which every room from
//! the kernels to the HTTP interface may use.

use std::sync::Arc;

use shared::contract::passage::Passage;
use thiserror::Error;

/// Queries that request the same number of passages. A batch may have one query or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryBatch {
    /// The texts, which may be anything, also empty.
    pub queries: Arc<[String]>,
    /// The number of passages requested per query, at least 1.
    pub top_k: usize,
}

/// Returns the part of a query that is searched for: if it is longer than `max_bytes`, that much after its leading
/// white space, up to the end of a character, and at least one character.
pub fn cut(query: &str, max_bytes: usize) -> &str {
    if query.len() <= max_bytes {
        return query;
    }
    let query = query.trim_start();
    let first = query.chars().next().map_or(0, char::len_utf8);
    &query[..query.floor_char_boundary(max_bytes).max(first)]
}

/// A row of the corpus with its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// The row of the passage.
    pub row: u32,
    /// A finite score on the back end's own scale; higher is better.
    pub score: f32,
}

/// The reason why one query has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SearchFault {
    /// The deadline passed.
    #[error("deadline exceeded")]
    DeadlineExceeded,
    /// A service behind this server failed or was too busy; the log has the cause.
    #[error("a service behind this server failed")]
    Upstream,
    /// A service behind this server refused the query, as its key or its budget does not allow more; the log has
    /// the cause.
    #[error("a service behind this server refused the query")]
    Refused,
    /// The server failed; the log has the cause.
    #[error("internal fault")]
    Internal,
}

impl SearchFault {
    /// Returns `true` if the same query may succeed later.
    pub fn is_retryable(self) -> bool {
        match self {
            Self::DeadlineExceeded | Self::Upstream | Self::Internal => true,
            Self::Refused => false,
        }
    }
}

/// The hits of one query, best first, or the reason why there are none.
pub type QueryOutcome = Result<Vec<Hit>, SearchFault>;

/// A passage with its score.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The stored passage.
    pub passage: Passage,
    /// The score of the back end, or of the re-ranker if there is one.
    pub score: f32,
}

/// The passages of one query, best first, or the reason why there are none.
pub type QueryAnswer = Result<Vec<Answer>, SearchFault>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_cut_after_a_character() {
        for (query, max_bytes, expected) in [
            ("river", 5, "river"),
            ("river", 3, "riv"),
            ("r\u{e9}servoir", 2, "r"),
            ("\u{1f30a}\u{1f30a}", 7, "\u{1f30a}"),
            ("\u{1f30a}", 1, "\u{1f30a}"),
            ("", 1, ""),
            (" r", 2, " r"),
            (" \n river", 4, "rive"),
            ("   ", 2, ""),
        ] {
            assert_eq!(cut(query, max_bytes), expected, "{query} {max_bytes}");
        }
    }
}
