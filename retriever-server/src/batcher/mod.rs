//! Joins the queries of concurrent requests into batches, for back ends that are faster with large ones.
//!
//! A batch begins immediately if none is running, so a lone request never waits. While one batch is
//! running, a second begins when enough queries are waiting, or when the first of them has waited long
//! enough: one can be encoded while the other is searched. Other queries wait until one of the two ends.
//!
//! Each query is answered exactly once, or its request is gone. Queries of requests that are gone are
//! dropped before their batch begins. A running batch continues as long as one of its queries is wanted,
//! and a back end that panics loses only the queries of that batch.

mod queue;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::error;

use crate::backend::{Backend, SearchFuture};
use crate::metrics::{Metrics, Stage};
use crate::query::{QueryBatch, QueryOutcome, SearchFault};
use crate::ticket::Ticket;
use queue::{Chunk, Queue, Step};

/// Limits of a batch, and of the queries that wait for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// The most queries in a batch.
    pub max_queries: usize,
    /// The most tokens in a batch, estimated from bytes. A longer query is a batch alone.
    pub max_tokens: usize,
    /// The longest time that queries wait for others while a batch is running.
    pub wait: Duration,
    /// The most queries that wait.
    pub capacity_queries: usize,
    /// The number of hits up to which a shorter list of the back end is the start of a longer one. Above
    /// it, only requests for equally many hits share a batch.
    pub steady_top_k: usize,
}

/// A back end that joins the queries of several requests into batches.
#[derive(Debug)]
pub struct Batcher {
    shared: Arc<Shared>,
}

struct Shared {
    backend: Box<dyn Backend>,
    limits: BatchLimits,
    metrics: Arc<Metrics>,
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
    /// Joins queries for `backend`. Its answer to a query must not depend on the rest of the batch.
    pub fn new(backend: Box<dyn Backend>, limits: BatchLimits, metrics: Arc<Metrics>) -> Self {
        let queue = Mutex::new(Queue::new(limits));
        Self { shared: Arc::new(Shared { backend, limits, metrics, queue }) }
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
                    Ok(Ok(answered)) => {
                        outcomes.extend(answered);
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

/// The number of queries of one request that are answered together, and the receiver of their outcomes.
type Pending = (usize, oneshot::Receiver<Vec<QueryOutcome>>);

impl Shared {
    /// Queues the queries of a request, in pieces that fit into a batch.
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
        self.metrics.set_waiting(queue.waiting_queries());
        pending
    }

    /// Begins every batch that can begin, and sets an alarm for the next one that may.
    fn advance(self: &Arc<Self>) {
        loop {
            let step = {
                let mut queue = self.lock();
                let step = queue.next(Instant::now());
                self.metrics.set_waiting(queue.waiting_queries());
                step
            };
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

    /// Searches a batch and sends every query its outcome.
    async fn run(self: Arc<Self>, chunks: Vec<Chunk>) {
        let queries: Arc<[String]> =
            chunks.iter().flat_map(|chunk| chunk.queries.iter().cloned()).collect();
        let top_k = chunks.iter().map(|chunk| chunk.top_k).max().expect("a batch has a chunk");
        let tickets = chunks.iter().map(|chunk| Arc::clone(&chunk.ticket)).collect();
        let ticket = Arc::new(Ticket::joint(tickets));
        self.metrics.batch_queries.observe(queries.len() as u64);
        for chunk in &chunks {
            chunk.ticket.stage(Stage::Wait, chunk.since.into_std());
        }
        let shared = Arc::clone(&self);
        let batch = QueryBatch { queries, top_k };
        let search = async move { shared.backend.search(batch, ticket).await };
        // A panic ends only this task.
        let outcomes = tokio::spawn(search).await.unwrap_or_else(|fault| {
            error!(%fault, "a batch was lost");
            Vec::new()
        });
        let mut outcomes = outcomes.into_iter();
        for chunk in chunks {
            let cut = |outcome: QueryOutcome| {
                outcome.map(|mut hits| {
                    hits.truncate(chunk.top_k);
                    hits
                })
            };
            // A back end that answers too few queries has failed the rest.
            let next = || outcomes.next().map_or(Err(SearchFault::Internal), cut);
            let answered = std::iter::repeat_with(next).take(chunk.queries.len()).collect();
            // The receiver is gone if the request is gone.
            let _ = chunk.reply.send(answered);
        }
        self.lock().ended();
        self.advance();
    }

    /// Locks the queue. Its changes cannot fail half-way, so a poisoned lock still guards a sound queue.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
