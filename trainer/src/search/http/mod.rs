//! Searches over HTTP, in the background.
//!
//! One runtime thread carries all requests, so that the scheduler's thread never waits for the
//! network unless it asks to. Every batch is one request of its own: a slow one does not hold up
//! the next.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use shared::client::{ClientConfig, RetrieveClient};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{SearchOutcome, SearchRequest, Searcher, SearcherError};

/// Outcomes that wait to be collected; senders wait when there are more.
const OUTCOME_QUEUE_CAPACITY: usize = 1024;

/// Sends queries to a retriever.
#[derive(Debug)]
pub struct HttpSearcher {
    client: RetrieveClient,
    /// `None` only while it is being dropped.
    runtime: Option<Runtime>,
    in_flight: Arc<Semaphore>,
    /// One task a batch, so as many at most as episodes are searching.
    tasks: JoinSet<()>,
    sender: mpsc::Sender<SearchOutcome>,
    outcomes: mpsc::Receiver<SearchOutcome>,
}

impl HttpSearcher {
    /// Starts the runtime thread; does not connect yet. At most `max_in_flight` requests are under
    /// way at one time.
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
        Ok(Self { client, runtime, in_flight, tasks, sender, outcomes })
    }
}

impl Searcher for HttpSearcher {
    fn submit(&mut self, requests: Vec<SearchRequest>) -> Result<(), SearcherError> {
        // A request carries one top-k for all of its queries.
        for batch in requests.chunk_by(|one, next| one.top_k == next.top_k) {
            let task = send_batch(
                self.client.clone(),
                Arc::clone(&self.in_flight),
                batch.to_vec(),
                self.sender.clone(),
            );
            let Some(runtime) = &self.runtime else {
                return Err(SearcherError("the search thread has ended".into()));
            };
            self.tasks.spawn_on(task, runtime.handle());
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

    fn wait(&mut self, limit: Duration) -> Result<Option<Vec<SearchOutcome>>, SearcherError> {
        let ended = || SearcherError("the search thread has ended".into());
        let runtime = self.runtime.as_ref().ok_or_else(ended)?;
        let outcomes = &mut self.outcomes;
        // A timer needs its runtime from the start.
        let first = runtime.block_on(async { timeout(limit, outcomes.recv()).await });
        let Ok(first) = first else { return Ok(None) };
        let mut collected = vec![first.ok_or_else(ended)?];
        collected.extend(self.poll()?);
        Ok(Some(collected))
    }

    fn cancel(&mut self) {
        self.tasks.abort_all();
        // What a task sends before it notices goes to the old channel, and so to nobody.
        let (sender, outcomes) = mpsc::channel(OUTCOME_QUEUE_CAPACITY);
        self.sender = sender;
        self.outcomes = outcomes;
    }
}

impl Drop for HttpSearcher {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Requests that nobody waits for any more are abandoned rather than waited for.
            runtime.shutdown_background();
        }
    }
}

async fn send_batch(
    client: RetrieveClient,
    in_flight: Arc<Semaphore>,
    batch: Vec<SearchRequest>,
    sender: mpsc::Sender<SearchOutcome>,
) {
    let top_k = batch.first().map_or(0, |request| request.top_k);
    let queries: Vec<String> = batch.iter().map(|request| request.query.clone()).collect();
    let results = {
        // The semaphore is never closed; if it were, the batch would go out all the same.
        let _permit = in_flight.acquire().await;
        client.retrieve(&queries, top_k).await
    };
    for (request, result) in batch.into_iter().zip(results) {
        let result = result.map_err(|error| error.to_string());
        // The receiver is gone after a cancellation, and nobody wants the rest.
        if sender.send(SearchOutcome { ticket: request.ticket, result }).await.is_err() {
            return;
        }
    }
}
