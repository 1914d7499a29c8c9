//! What answers queries: a back end turns a batch into ranked rows. It knows nothing of requests,
//! dialects or passages' text.

pub mod dense;
pub mod fuse;
pub mod hybrid;
pub mod lexical;

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use thiserror::Error;

use crate::query::QueryBatch;
use crate::ticket::Ticket;

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

/// The outcomes of a batch, to be awaited: back ends that ask other services need not hold a
/// thread.
pub type SearchFuture<'a> = Pin<Box<dyn Future<Output = Vec<QueryOutcome>> + Send + 'a>>;

/// Something that ranks passages.
pub trait Backend: Debug + Send + Sync {
    /// Answers every query of the batch, in order. Work stops early once the ticket is over.
    fn search(&self, batch: QueryBatch, ticket: Arc<Ticket>) -> SearchFuture<'_>;
}
