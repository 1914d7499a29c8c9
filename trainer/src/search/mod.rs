//! Searches of running episodes: hands queries over and collects passages as they come.
//!
//! Owns the bridge between the scheduler, which is one synchronous thread, and whatever answers
//! the queries. It knows nothing of episodes: a ticket names a query.

pub mod http;
pub mod random;

use std::time::Duration;

pub use shared::client::Passage;

/// One query of one episode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchRequest {
    /// Names the query in its outcome; unique among the pending ones.
    pub ticket: u64,
    /// As the model wrote it, white space around it removed; may be empty.
    pub query: String,
    /// Limit of passages.
    pub top_k: usize,
}

/// What became of one query.
#[derive(Clone, Debug)]
pub struct SearchOutcome {
    /// That of its request.
    pub ticket: u64,
    /// Passages, best first (an empty list is a success), or why the search failed for good.
    pub result: Result<Vec<Passage>, String>,
}

/// Why searches cannot go on at all.
#[derive(Debug, thiserror::Error)]
#[error("searches cannot go on: {0}")]
pub struct SearcherError(pub String);

/// Answers queries, many at a time and in any order.
pub trait Searcher {
    /// Takes queries that became ready at the same moment; returns at once.
    fn submit(&mut self, requests: Vec<SearchRequest>) -> Result<(), SearcherError>;
    /// Outcomes that have come since the last call; returns at once.
    fn poll(&mut self) -> Result<Vec<SearchOutcome>, SearcherError>;
    /// Waits until there is at least one outcome; `None` if `limit` passes first. Called only while
    /// queries are pending, each of which must come back in bounded time, as a failed search if
    /// need be.
    fn wait(&mut self, limit: Duration) -> Result<Option<Vec<SearchOutcome>>, SearcherError>;
    /// Forgets every pending query: none of their outcomes is returned later on.
    fn cancel(&mut self);
}
