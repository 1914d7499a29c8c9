//! Searches of running episodes: submits queries and collects passages as they arrive.
//!
//! Owns the bridge between the scheduler, a synchronous thread, and a source of passages. It does not
//! know episodes: a ticket identifies a query.

pub mod http;
pub mod random;
pub mod record;

use std::time::Duration;

use crate::stop::StopFlag;
use record::RecordCounters;
pub use shared::contract::client::Passage;

/// One query of one episode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchRequest {
    /// Identifies the query in its outcome; unique among the pending queries.
    pub ticket: u64,
    /// The query as the model wrote it, trimmed; may be empty.
    pub query: String,
    /// Most passages to return.
    pub top_k: usize,
}

/// The outcome of one query.
#[derive(Clone, Debug)]
pub struct SearchOutcome {
    /// The ticket of the request.
    pub ticket: u64,
    /// The passages, best first, or the reason of a final failure. An empty list is a success.
    pub result: Result<Vec<Passage>, String>,
}

/// An error after which a searcher cannot answer any query.
#[derive(Debug, thiserror::Error)]
#[error("searching is not possible: {0}")]
pub struct SearcherError(pub String);

/// A source of passages that answers many queries concurrently, in any order.
pub trait Searcher {
    /// Accepts queries that became ready at the same time. Does not wait.
    fn submit(&mut self, requests: Vec<SearchRequest>) -> Result<(), SearcherError>;
    /// Returns the outcomes since the last call. Does not wait.
    fn poll(&mut self) -> Result<Vec<SearchOutcome>, SearcherError>;
    /// Waits until there is at least one outcome; returns `None` if `limit` passes or `stop` is raised first. Called
    /// only while queries are pending. Every query must come back in bounded time, if need be as a failure.
    fn wait(
        &mut self,
        limit: Duration,
        stop: &StopFlag,
    ) -> Result<Option<Vec<SearchOutcome>>, SearcherError>;
    /// Cancels every pending query: none of their outcomes is returned later.
    fn cancel(&mut self);
    /// Returns the counts of a record of searches since the last call.
    fn take_counters(&mut self) -> RecordCounters {
        RecordCounters::default()
    }
}
