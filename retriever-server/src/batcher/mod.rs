//! Joins the queries of concurrent requests into batches for a back end that gains by large ones.
//!
//! A batch begins at once if none is running, so that a lone request never waits. While one is
//! running, a second begins when enough queries wait or the first of them has waited long enough:
//! one can be encoded while the other is searched. All else waits until one of the two ends.
//!
//! Each query is answered exactly once, or its request is gone. What nobody wants any more is
//! dropped before it begins; a running batch goes on as long as one of its queries is wanted, and
//! a back end that panics costs the queries of its own batch.

mod queue;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::error;

use crate::backend::{Backend, SearchFuture};
use crate::query::{QueryBatch, QueryOutcome, SearchFault};
use crate::ticket::Ticket;
use queue::{Chunk, Queue, Step};

/// What a batch may hold, and how long queries wait for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most queries of a batch.
    pub max_queries: usize,
    /// Most tokens of a batch, as estimated from bytes; a longer query goes alone.
    pub max_tokens: usize,
    /// Longest time that queries wait beside a running batch for others to join them.
    pub wait: Duration,
    /// Most queries that wait.
    pub capacity_queries: usize,
    /// Number of hits up to which a shorter list of the back end is the start of a longer one; above
    /// it, only requests that want equally many share a batch.
    pub steady_top_k: usize,
}

/// Counts since the start.
#[derive(Debug, Default)]
pub struct BatchCounters {
    batches: AtomicU64,
    queries: AtomicU64,
}

impl BatchCounters {
    /// Batches that have begun, and the queries in them.
    pub fn read(&self) -> (u64, u64) {
        (self.batches.load(Ordering::Relaxed), self.queries.load(Ordering::Relaxed))
    }

    fn count(&self, queries: usize) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.queries.fetch_add(queries as u64, Ordering::Relaxed);
    }
}

/// A back end whose batches are made of several requests.
#[derive(Debug)]
pub struct Batcher {
    shared: Arc<Shared>,
}

struct Shared {
    backend: Box<dyn Backend>,
    limits: BatchLimits,
    counters: Arc<BatchCounters>,
    queue: Mutex<Queue>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Shared")
            .field("backend", &self.backend)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Batcher {
    /// Asks `backend`, whose answer to a query must not depend on what else is in its batch.
    pub fn new(
        backend: Box<dyn Backend>,
        limits: BatchLimits,
        counters: Arc<BatchCounters>,
    ) -> Self {
        let queue = Mutex::new(Queue::new(limits));
        Self { shared: Arc::new(Shared { backend, limits, counters, queue }) }
    }
}

impl Backend for Batcher {
    fn search(&self, batch: QueryBatch, ticket: Arc<Ticket>) -> SearchFuture<'_> {
        Box::pin(async move {
            let deadline = Instant::from_std(ticket.deadline());
            let pending = self.shared.enqueue(&batch, &ticket);
            self.shared.advance();
            let mut outcomes = Vec::with_capacity(batch.queries.len());
            for (count, reply) in pending {
                let fault = match timeout_at(deadline, reply).await {
                    Ok(Ok(found)) => {
                        outcomes.extend(found);
                        continue;
                    }
                    Ok(Err(_)) => SearchFault::Internal,
                    Err(_) => SearchFault::DeadlineExceeded,
                };
                outcomes.extend((0..count).map(|_| Err(fault)));
            }
            outcomes
        })
    }
}

/// Queries of one request that are answered together, and where the answers come from.
type Pending = (usize, oneshot::Receiver<Vec<QueryOutcome>>);

impl Shared {
    /// Puts the queries of a request in line, in pieces that fit into a batch.
    fn enqueue(&self, batch: &QueryBatch, ticket: &Arc<Ticket>) -> Vec<Pending> {
        let now = Instant::now();
        let mut pending = Vec::new();
        let mut queue = self.lock();
        for (queries, tokens) in queue::pieces(&batch.queries, &self.limits) {
            let (reply, answer) = oneshot::channel();
            pending.push((queries.len(), answer));
            let ticket = Arc::clone(ticket);
            let chunk = Chunk { queries, tokens, top_k: batch.top_k, ticket, since: now, reply };
            if !queue.push(chunk) {
                error!(capacity_queries = self.limits.capacity_queries, "query queue is full");
            }
        }
        pending
    }

    /// Begins every batch that can begin, and wakes itself up for the next that could.
    fn advance(self: &Arc<Self>) {
        loop {
            let step = self.lock().next(Instant::now());
            match step {
                Step::Begin(chunks) => {
                    tokio::spawn(Arc::clone(self).run(chunks));
                }
                Step::WakeAt(time) => {
                    let shared = Arc::clone(self);
                    tokio::spawn(async move {
                        sleep_until(time).await;
                        shared.lock().woken();
                        shared.advance();
                    });
                }
                Step::Nothing => return,
            }
        }
    }

    /// Searches a batch and hands every query its outcome.
    async fn run(self: Arc<Self>, chunks: Vec<Chunk>) {
        let queries: Arc<[String]> =
            chunks.iter().flat_map(|chunk| chunk.queries.iter().cloned()).collect();
        let top_k = chunks.iter().map(|chunk| chunk.top_k).max().unwrap_or(1);
        let tickets = chunks.iter().map(|chunk| Arc::clone(&chunk.ticket)).collect();
        let ticket = Arc::new(Ticket::joint(tickets));
        self.counters.count(queries.len());
        let shared = Arc::clone(&self);
        let batch = QueryBatch { queries, top_k };
        let search = async move { shared.backend.search(batch, ticket).await };
        // In a task of its own, which alone a panic ends.
        let found = tokio::spawn(search).await.unwrap_or_else(|fault| {
            error!(%fault, "a batch was lost");
            Vec::new()
        });
        let mut found = found.into_iter();
        for chunk in chunks {
            let cut = |outcome: QueryOutcome| {
                outcome.map(|mut hits| {
                    hits.truncate(chunk.top_k);
                    hits
                })
            };
            // A back end that answers too few queries has failed the rest.
            let next = || found.next().map_or(Err(SearchFault::Internal), cut);
            let outcomes = std::iter::repeat_with(next).take(chunk.queries.len()).collect();
            // The receiver is gone when the request is.
            let _ = chunk.reply.send(outcomes);
        }
        self.lock().ended();
        self.advance();
    }

    /// Changes of the queue cannot fail half-way, so that a poisoned lock still guards a sound one.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
