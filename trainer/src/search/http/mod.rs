//! Searches over HTTP, in the background.
//!
//! One runtime thread handles all requests. The scheduler's thread waits for the network only in
//! [`Searcher::wait`]. Every batch is a separate request: a slow one does not delay the next.

mod context;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use shared::contract::client::{ClientConfig, MixedServers, RetrieveClient, Serving};
use shared::machine::traces::{Role, Traces};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::warn;

use super::{SearchOutcome, SearchRequest, Searcher, SearcherError};
use crate::stop::StopFlag;

pub use context::trace_headers;

/// Most outcomes that wait to be collected; a sender waits while the queue is full.
const OUTCOME_QUEUE_CAPACITY: usize = 1024;

/// Sends queries to a retriever.
#[derive(Debug)]
pub struct HttpSearcher {
    client: RetrieveClient,
    traces: Traces,
    /// The runtime; `None` only during the drop.
    runtime: Option<Runtime>,
    in_flight: Arc<Semaphore>,
    /// One task per batch: at most as many as there are searching episodes.
    tasks: JoinSet<()>,
    sender: mpsc::Sender<SearchOutcome>,
    outcomes: mpsc::Receiver<SearchOutcome>,
}

impl HttpSearcher {
    /// Starts the runtime thread without connecting. At most `max_in_flight` requests run concurrently.
    ///
    /// # Errors
    /// An invalid configuration of the client, or a thread that cannot be started.
    pub fn new(config: ClientConfig, max_in_flight: usize) -> Result<Self, SearcherError> {
        let client =
            RetrieveClient::new(config).map_err(|error| SearcherError(error.to_string()))?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("search")
            .enable_all()
            .build()
            .map_err(|error| SearcherError(format!("cannot start a thread: {error}")))?;
        let (sender, outcomes) = mpsc::channel(OUTCOME_QUEUE_CAPACITY);
        let in_flight = Arc::new(Semaphore::new(max_in_flight));
        let (runtime, tasks) = (Some(runtime), JoinSet::new());
        let traces = Traces::off();
        Ok(Self { client, traces, runtime, in_flight, tasks, sender, outcomes })
    }

    /// Sends a trace of each batch of searches to a collector. The configuration of the client must add
    /// [`trace_headers`] to its requests, so that the retriever continues the trace.
    #[must_use]
    pub fn with_traces(mut self, traces: Traces) -> Self {
        self.traces = traces;
        self
    }

    /// Compares what the retrievers serve, if there are several. One that does not answer now is only reported: it is
    /// compared before its first query.
    ///
    /// # Errors
    /// Two retrievers that differ.
    pub fn compare_retrievers(&self) -> Result<(), MixedServers> {
        for reason in self.runtime().block_on(self.client.compare_servers())? {
            warn!(reason, "a retriever does not answer yet");
        }
        Ok(())
    }

    /// Asks the retrievers what they serve, until one answers or `limit` has passed. Returns `None` for a retriever that
    /// does not say so, as those of other programs.
    ///
    /// # Errors
    /// The reason of the last failure.
    pub fn serving(&self, limit: Duration) -> Result<Option<Serving>, String> {
        self.runtime().block_on(self.client.serving(limit))
    }

    /// Accepts no answer of a retriever with another identity from now on.
    pub fn pin_identity(&self, identity: &str) {
        self.client.pin_identity(identity);
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("only the drop takes the runtime")
    }
}

impl Searcher for HttpSearcher {
    fn submit(&mut self, requests: Vec<SearchRequest>) -> Result<(), SearcherError> {
        // A request carries one top-k for all of its queries.
        for batch in requests.chunk_by(|request, next| request.top_k == next.top_k) {
            let task = send_batch(
                (self.client.clone(), self.traces.clone()),
                Arc::clone(&self.in_flight),
                batch.to_vec(),
                self.sender.clone(),
            );
            let handle = self.runtime().handle().clone();
            self.tasks.spawn_on(task, &handle);
        }
        Ok(())
    }

    fn poll(&mut self) -> Result<Vec<SearchOutcome>, SearcherError> {
        while self.tasks.try_join_next().is_some() {}
        let mut collected = Vec::new();
        while let Ok(outcome) = self.outcomes.try_recv() {
            collected.push(outcome);
        }
        Ok(collected)
    }

    fn wait(
        &mut self,
        limit: Duration,
        stop: &StopFlag,
    ) -> Result<Option<Vec<SearchOutcome>>, SearcherError> {
        let handle = self.runtime().handle().clone();
        let outcomes = &mut self.outcomes;
        // A timer must be created inside its runtime.
        let received = handle.block_on(async {
            tokio::select! {
                biased;
                received = timeout(limit, outcomes.recv()) => received.ok(),
                () = stop.raised() => None,
            }
        });
        let Some(received) = received else { return Ok(None) };
        let mut collected = vec![received.expect("this searcher holds a sender itself")];
        collected.extend(self.poll()?);
        Ok(Some(collected))
    }

    fn cancel(&mut self) {
        self.tasks.abort_all();
        // A task may still send before it is aborted. It sends to the old channel, which nobody reads.
        let (sender, outcomes) = mpsc::channel(OUTCOME_QUEUE_CAPACITY);
        self.sender = sender;
        self.outcomes = outcomes;
    }
}

impl Drop for HttpSearcher {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Pending requests are abandoned: nobody needs their outcomes.
            runtime.shutdown_background();
        }
        self.traces.end();
    }
}

/// Sends a batch, which is not empty, and passes its outcomes on.
async fn send_batch(
    (client, traces): (RetrieveClient, Traces),
    in_flight: Arc<Semaphore>,
    batch: Vec<SearchRequest>,
    sender: mpsc::Sender<SearchOutcome>,
) {
    let top_k = batch[0].top_k;
    let queries: Vec<String> = batch.iter().map(|request| request.query.clone()).collect();
    let results = {
        let _permit = in_flight.acquire().await.expect("nothing closes this semaphore");
        let span = traces.root("search", Role::Client);
        span.set("queries", queries.len() as i64);
        span.set("top_k", top_k as i64);
        let results = context::within(span.clone(), client.retrieve(&queries, top_k)).await;
        if let Some(error) = results.iter().find_map(|result| result.as_ref().err()) {
            span.fail(error.to_string());
        }
        results
    };
    for (request, result) in batch.into_iter().zip(results) {
        let result = result.map_err(|error| error.to_string());
        // The receiver is gone after a cancellation: nobody needs the other outcomes.
        if sender.send(SearchOutcome { ticket: request.ticket, result }).await.is_err() {
            return;
        }
    }
}
