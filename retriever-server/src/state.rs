//! The state that all requests share: configuration, admission, threads, the loaded index and counts.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use serde::Serialize;
use shared::contract::digest::Digest;
use tokio::sync::watch;

use crate::admission::Admission;
use crate::batcher::BatchCounters;
use crate::config::ServeConfig;
use crate::pipeline::Pipeline;
use crate::pool::Pool;
use crate::query::SearchFault;
use crate::rerank::Reranker;

/// The phase of a server: starting, ready, draining; or draining before it was ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The port is open, but the index is not.
    Starting,
    /// Queries are answered.
    Ready,
    /// Admitted work is being finished, and new work is refused.
    Draining,
}

/// The parts that exist once the index is loaded.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) pipeline: Pipeline,
    pub(crate) reranker: Option<Arc<Reranker>>,
    pub(crate) index: IndexFacts,
}

/// The facts about the loaded index, for `/info` and the log.
#[derive(Debug)]
pub(crate) struct IndexFacts {
    pub(crate) digest: Digest,
    pub(crate) passage_count: u64,
    /// The name of the analysis that the index was built with.
    pub(crate) analyzer: String,
}

/// The state that all requests share.
#[derive(Debug)]
pub(crate) struct AppState {
    pub(crate) config: ServeConfig,
    pub(crate) admission: Admission,
    pub(crate) pool: Arc<Pool>,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) counters: Counters,
    pub(crate) batches: Arc<BatchCounters>,
    loaded: OnceLock<Loaded>,
    started: Instant,
}

impl AppState {
    pub(crate) fn new(config: ServeConfig) -> io::Result<Self> {
        let load = config.load;
        // Every job belongs to an admitted query, or to a request whose body is parsed or written.
        let capacity_jobs = load.max_queued_queries + load.max_requests;
        Ok(Self {
            admission: Admission::new(load.max_requests, load.max_queued_queries),
            pool: Arc::new(Pool::start(config.threads, capacity_jobs)?),
            phase: watch::Sender::new(Phase::Starting),
            counters: Counters::default(),
            batches: Arc::default(),
            loaded: OnceLock::new(),
            started: Instant::now(),
            config,
        })
    }

    /// Makes the server ready, unless it is draining already. Called once.
    pub(crate) fn set_loaded(&self, loaded: Loaded) {
        assert!(self.loaded.set(loaded).is_ok(), "the index is loaded once");
        self.phase.send_if_modified(|phase| {
            let starting = *phase == Phase::Starting;
            if starting {
                *phase = Phase::Ready;
            }
            starting
        });
    }

    /// Returns the loaded parts, or the phase in which no query is answered.
    pub(crate) fn ready(&self) -> Result<&Loaded, Phase> {
        let phase = *self.phase.borrow();
        match (phase, self.loaded.get()) {
            (Phase::Ready, Some(loaded)) => Ok(loaded),
            _ => Err(phase),
        }
    }

    pub(crate) fn statistics(&self) -> Statistics {
        let counters = &self.counters;
        let (batches, batched_queries) = self.batches.read();
        Statistics {
            uptime_s: self.started.elapsed().as_secs(),
            requests: counters.requests.load(Ordering::Relaxed),
            requests_refused: counters.requests_refused.load(Ordering::Relaxed),
            queries: counters.queries.load(Ordering::Relaxed),
            queries_failed: counters.queries_failed.load(Ordering::Relaxed),
            batches,
            mean_batch_queries: batched_queries as f64 / batches.max(1) as f64,
            requests_in_flight: self.admission.requests_in_flight(),
            queries_in_flight: self.admission.queries_in_flight(),
        }
    }
}

/// Counts since the start of the server.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    requests: AtomicU64,
    requests_refused: AtomicU64,
    queries: AtomicU64,
    queries_failed: AtomicU64,
}

impl Counters {
    pub(crate) fn count_request<T, E>(&self, outcome: &Result<T, E>) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.requests_refused.fetch_add(u64::from(outcome.is_err()), Ordering::Relaxed);
    }

    pub(crate) fn count_queries<T>(&self, answers: &[Result<T, SearchFault>]) {
        let failed = answers.iter().filter(|answer| answer.is_err()).count();
        self.queries.fetch_add(answers.len() as u64, Ordering::Relaxed);
        self.queries_failed.fetch_add(failed as u64, Ordering::Relaxed);
    }
}

/// The body of `GET /stats`.
#[derive(Debug, Serialize)]
pub(crate) struct Statistics {
    uptime_s: u64,
    requests: u64,
    requests_refused: u64,
    queries: u64,
    queries_failed: u64,
    /// The number of batches of back ends that answer several requests together.
    batches: u64,
    mean_batch_queries: f64,
    requests_in_flight: usize,
    queries_in_flight: usize,
}
