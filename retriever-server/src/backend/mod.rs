//! What answers queries: a back end turns a batch into ranked rows. It knows nothing of requests,
//! dialects or passages' text.

pub mod dense;
pub mod fuse;
pub mod hybrid;
pub mod lexical;

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use crate::query::{QueryBatch, QueryOutcome};
use crate::ticket::Ticket;

/// The outcomes of a batch, to be awaited: back ends that ask other services need not hold a
/// thread.
pub type SearchFuture<'a> = Pin<Box<dyn Future<Output = Vec<QueryOutcome>> + Send + 'a>>;

/// Something that ranks passages.
pub trait Backend: Debug + Send + Sync {
    /// Answers every query of the batch, in order. Work stops early once the ticket is over.
    fn search(&self, batch: QueryBatch, ticket: Arc<Ticket>) -> SearchFuture<'_>;
}
