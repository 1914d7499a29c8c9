//! The `dense` and `ann` back ends: encode queries into vectors and search the nearest rows, either
//! among all rows or along a graph. A batch is encoded and searched as a whole.

mod vectors;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tracing::error;

use super::{Backend, SearchFuture};
use crate::encode::{EncodeError, Encoder, Role};
use crate::metrics::Stage;
use crate::pool::Pool;
use crate::query::{Hit, QueryBatch, QueryOutcome, SearchFault};
use crate::ticket::Ticket;

use vectors::SearchSize;

pub use vectors::{Vectors, VectorsError};

/// An encoder of queries with the vectors of the passages.
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
    /// Held while a batch is encoded. Two batches that alternated in the model would both end late; in
    /// turn, one is searched while the other is encoded.
    turn: Mutex<()>,
}

impl DenseBackend {
    /// Creates a back end over `vectors`, which `encoder` made. `threads` threads search a batch.
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
    /// Returns the outcome of every query. A query without text has no hits, as in the other back ends.
    fn search(&self, batch: &QueryBatch, ticket: &Ticket) -> Vec<QueryOutcome> {
        let with_text: Vec<usize> =
            (0..batch.queries.len()).filter(|&n| !batch.queries[n].trim().is_empty()).collect();
        let mut outcomes: Vec<QueryOutcome> = vec![Ok(Vec::new()); batch.queries.len()];
        let lists = self.search_all(batch, &with_text, ticket);
        for (index, &query) in with_text.iter().enumerate() {
            outcomes[query] = match &lists {
                Ok(lists) => lists.get(index).cloned().ok_or(SearchFault::Internal),
                Err(fault) => Err(*fault),
            };
        }
        outcomes
    }

    /// Searches the queries of a batch at the indices `with_text`.
    fn search_all(
        &self,
        batch: &QueryBatch,
        with_text: &[usize],
        ticket: &Ticket,
    ) -> Result<Vec<Vec<Hit>>, SearchFault> {
        if with_text.is_empty() {
            return Ok(Vec::new());
        }
        let stop = || ticket.is_over();
        let texts: Vec<&str> =
            with_text.iter().map(|&query| batch.queries[query].as_str()).collect();
        let began = Instant::now();
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let queries = self.encoder.encode(&texts, Role::Query, &stop).map_err(|fault| {
            if matches!(fault, EncodeError::Stopped) {
                return SearchFault::DeadlineExceeded;
            }
            error!(%fault, "queries could not be encoded");
            SearchFault::Internal
        })?;
        drop(turn);
        ticket.stage(Stage::Encode, began);
        let size = SearchSize { top_k: batch.top_k, threads: self.threads };
        let lists = self.vectors.search(&queries, size, &stop);
        lists
            .map_err(|fault| {
                error!(%fault, "the vectors cannot be searched");
                SearchFault::Internal
            })?
            .ok_or(SearchFault::DeadlineExceeded)
    }
}
