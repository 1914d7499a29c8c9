//! Back ends, which turn a batch of queries into ranked rows, or, where another service holds them, into ranked
//! passages. They know nothing of requests or of dialects.
//!
//! In reading order: lexical search ([`lexical`]), search over vectors ([`dense`]), two back ends as one
//! ([`hybrid`]) with the fusion of their lists ([`fuse`]), search of the web ([`web`]), and engines of other machines
//! ([`engine`]).

pub mod lexical;
pub mod dense;
pub mod fuse;
pub mod hybrid;
pub mod web;
pub mod engine;

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use crate::query::{Hit, QueryAnswer, QueryBatch, QueryOutcome};
use crate::ticket::Ticket;

/// The outcomes of a batch as a future, so that a back end that asks another service needs no thread.
pub type SearchFuture<'a> = Pin<Box<dyn Future<Output = Vec<QueryOutcome>> + Send + 'a>>;

/// The passages of a batch as a future.
pub type PassageFuture<'a> = Pin<Box<dyn Future<Output = Vec<QueryAnswer>> + Send + 'a>>;

/// A function from the rows of a query to their passages, which it may read from the disk.
pub type ReadRows = Box<dyn Fn(Vec<Hit>) -> QueryAnswer + Send + Sync>;

/// A ranking of the passages of an index of ours.
pub trait Backend: Debug + Send + Sync {
    /// Answers every query of the batch, in order. Work stops early when the ticket is over.
    fn search(&self, batch: QueryBatch, ticket: Arc<Ticket>) -> SearchFuture<'_>;

    /// Answers like `search`, with passages instead of rows: the thread that has searched for a query reads them at once,
    /// which saves the way to another thread and back. `None` if the back end does not search on such threads.
    fn search_and_read(
        &self,
        _batch: &QueryBatch,
        _ticket: &Arc<Ticket>,
        _read: ReadRows,
    ) -> Option<PassageFuture<'_>> {
        None
    }
}

/// A ranking of passages that another service holds.
pub trait PassageSource: Debug + Send + Sync {
    /// Returns at most `top_k` passages for every query of the batch, in order. Each has an id of its own, and a
    /// query that failed has a fault, never an empty list. Work stops early when the ticket is over.
    fn search(&self, batch: QueryBatch, ticket: Arc<Ticket>) -> PassageFuture<'_>;
}
