//! The `dense` and `ann` back ends: queries become vectors, and the nearest rows are searched for:
//! all rows one by one, or along a graph. A batch is encoded and searched as one.

mod vectors;

use std::sync::{Arc, Mutex, PoisonError};

use tracing::error;

use super::{Backend, SearchFuture};
use crate::encode::{EncodeError, Encoder, Role};
use crate::pool::Pool;
use crate::query::{Hit, QueryBatch, QueryOutcome, SearchFault};
use crate::ticket::Ticket;

pub use vectors::Vectors;

/// An encoder over the vectors of an index.
#[derive(Debug)]
pub struct DenseBackend {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Shared {
    encoder: Arc<Encoder>,
    vectors: Vectors,
    threads: usize,
    /// Held while a batch is encoded: two that took turns in the model would both end late, while
    /// like this one is searched as the other is encoded.
    turn: Mutex<()>,
}

impl DenseBackend {
    /// Answers from `vectors`, which `encoder` made; a batch is searched by `threads` threads.
    pub fn new(encoder: Arc<Encoder>, vectors: Vectors, pool: Arc<Pool>, threads: usize) -> Self {
        Self { shared: Arc::new(Shared { encoder, vectors, threads, turn: Mutex::new(()) }), pool }
    }
}

impl Backend for DenseBackend {
    fn search(&self, batch: QueryBatch, ticket: Arc<Ticket>) -> SearchFuture<'_> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let count = batch.queries.len();
            let answers = self.pool.run(move || shared.search(&batch, &ticket)).await;
            answers.unwrap_or_else(|_| vec![Err(SearchFault::Internal); count])
        })
    }
}

impl Shared {
    /// The outcome of every query; a query without any text finds nothing, as in the other back
    /// ends.
    fn search(&self, batch: &QueryBatch, ticket: &Ticket) -> Vec<QueryOutcome> {
        let asked: Vec<usize> =
            (0..batch.queries.len()).filter(|&n| !batch.queries[n].trim().is_empty()).collect();
        let mut outcomes: Vec<QueryOutcome> = vec![Ok(Vec::new()); batch.queries.len()];
        let found = self.search_all(batch, &asked, ticket);
        for (place, &query) in asked.iter().enumerate() {
            outcomes[query] = match &found {
                Ok(lists) => lists.get(place).cloned().ok_or(SearchFault::Internal),
                Err(fault) => Err(*fault),
            };
        }
        outcomes
    }

    fn search_all(
        &self,
        batch: &QueryBatch,
        asked: &[usize],
        ticket: &Ticket,
    ) -> Result<Vec<Vec<Hit>>, SearchFault> {
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let stop = || ticket.is_over();
        let texts: Vec<&str> = asked.iter().map(|&query| batch.queries[query].as_str()).collect();
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let queries = self.encoder.encode(&texts, Role::Query, &stop).map_err(|fault| {
            if matches!(fault, EncodeError::Stopped) {
                return SearchFault::DeadlineExceeded;
            }
            error!(%fault, "queries could not be encoded");
            SearchFault::Internal
        })?;
        drop(turn);
        let found = self.vectors.search(&queries, batch.top_k, self.threads, &stop);
        found
            .map_err(|fault| {
                error!(%fault, "the vectors cannot be searched");
                SearchFault::Internal
            })?
            .ok_or(SearchFault::DeadlineExceeded)
    }
}
