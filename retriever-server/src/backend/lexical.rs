//! The `bm25` back end: a lexical index that the threads of the pool search.

use std::sync::Arc;

use tracing::error;

use super::{Backend, SearchFuture};
use crate::lexical::reader::{LexicalReader, RankError};
use crate::pool::Pool;
use crate::query::{Hit, QueryBatch, QueryOutcome, SearchFault};
use crate::ticket::Ticket;

/// A lexical index with the threads that search it.
#[derive(Debug)]
pub struct LexicalBackend {
    reader: Arc<LexicalReader>,
    pool: Arc<Pool>,
}

impl LexicalBackend {
    /// Creates a back end that searches `reader` on the threads of `pool`.
    pub fn new(reader: Arc<LexicalReader>, pool: Arc<Pool>) -> Self {
        Self { reader, pool }
    }
}

impl Backend for LexicalBackend {
    fn search(&self, batch: QueryBatch, ticket: Arc<Ticket>) -> SearchFuture<'_> {
        let reader = Arc::clone(&self.reader);
        Box::pin(async move {
            let QueryBatch { queries, top_k } = batch;
            let count = queries.len();
            let answers =
                self.pool.map(count, move |index| rank(&reader, &queries[index], top_k, &ticket));
            let outcomes = answers.await.into_iter();
            outcomes.map(|answer| answer.unwrap_or(Err(SearchFault::Internal))).collect()
        })
    }
}

fn rank(reader: &LexicalReader, query: &str, top_k: usize, ticket: &Ticket) -> QueryOutcome {
    if ticket.is_over() {
        return Err(SearchFault::DeadlineExceeded);
    }
    match reader.rank(query, top_k, &|| ticket.is_over()) {
        Ok(rows) => Ok(rows
            .into_iter()
            .map(|scored| Hit { row: scored.row, score: scored.score })
            .collect()),
        Err(RankError::Stopped) => Err(SearchFault::DeadlineExceeded),
        Err(RankError::Index(fault)) => {
            error!(%fault, "a query failed");
            Err(SearchFault::Internal)
        }
    }
}
