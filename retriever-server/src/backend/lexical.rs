//! The `bm25` back end: a lexical index that the threads of the pool search.

use std::sync::Arc;

use tracing::error;

use super::{Backend, PassageFuture, ReadRows, SearchFuture};
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

    /// Ranks the rows of each query on the threads of the pool, and turns them into its result there.
    async fn map<T: Send + 'static>(
        &self,
        batch: QueryBatch,
        ticket: Arc<Ticket>,
        then: impl Fn(QueryOutcome) -> Result<T, SearchFault> + Send + Sync + 'static,
    ) -> Vec<Result<T, SearchFault>> {
        let reader = Arc::clone(&self.reader);
        let QueryBatch { queries, top_k } = batch;
        let count = queries.len();
        let search = move |index: usize| then(rank(&reader, &queries[index], top_k, &ticket));
        let results = self.pool.map(count, search).await.into_iter();
        results.map(|result| result.unwrap_or(Err(SearchFault::Internal))).collect()
    }
}

impl Backend for LexicalBackend {
    fn search(&self, batch: QueryBatch, ticket: Arc<Ticket>) -> SearchFuture<'_> {
        Box::pin(self.map(batch, ticket, |outcome| outcome))
    }

    fn search_and_read(
        &self,
        batch: &QueryBatch,
        ticket: &Arc<Ticket>,
        read: ReadRows,
    ) -> Option<PassageFuture<'_>> {
        let answers =
            self.map(batch.clone(), Arc::clone(ticket), move |outcome| outcome.and_then(&read));
        Some(Box::pin(answers))
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
