//! Back ends, which turn a batch of queries into ranked rows. They know nothing of requests, of
//! dialects or of the text of passages.
//!
//! In reading order: lexical search ([`lexical`]), search over vectors ([`dense`]), and two back ends
//! as one ([`hybrid`]) with the fusion of their lists ([`fuse`]).

pub mod lexical;
pub mod dense;
pub mod fuse;
pub mod hybrid;

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use crate::query::{QueryBatch, QueryOutcome};
use crate::ticket::Ticket;

/// The outcomes of a batch as a future, so that a back end that asks another service needs no thread.
pub type SearchFuture<'a> = Pin<Box<dyn Future<Output = Vec<QueryOutcome>> + Send + 'a>>;

/// A ranking of passages.
pub trait Backend: Debug + Send + Sync {
    /// Answers every query of the batch, in order. Work stops early when the ticket is over.
    fn search(&self, batch: QueryBatch, ticket: Arc<Ticket>) -> SearchFuture<'_>;
}
