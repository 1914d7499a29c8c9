//! The state that all requests share: configuration, admission, threads, the loaded index and counts.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use serde::Serialize;
use shared::contract::digest::Digest;
use tokio::sync::watch;
use tokio::time::timeout_at;
use tracing::warn;

use crate::admission::Admission;
use crate::batcher::BatchCounters;
use crate::config::{BackendKind, ServeConfig};
use crate::pipeline::Pipeline;
use crate::pool::Pool;
use crate::query::SearchFault;
use crate::rerank::Reranker;
use crate::turns::{TurnLimits, Turns};

/// The queries in flight for each thread of a lexical back end.
const QUERIES_PER_THREAD: usize = 16;

/// The phase of a server: starting, ready, draining; or starting, failed; or draining before it was ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The port is open, but the index is not. Requests wait.
    Starting,
    /// The index could not be opened, and the server is about to end.
    Failed,
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
    /// `None` if another service holds the passages.
    pub(crate) index: Option<IndexFacts>,
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
        let turns = Arc::new(Turns::new(turn_limits(&config)));
        Ok(Self {
            admission: Admission::new(load.max_requests, load.max_queued_queries, turns),
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

    /// Returns the phase in which no request is admitted any more, as an error.
    pub(crate) fn check_admits(&self) -> Result<(), Phase> {
        match *self.phase.borrow() {
            Phase::Starting | Phase::Ready => Ok(()),
            ending @ (Phase::Failed | Phase::Draining) => Err(ending),
        }
    }

    /// Returns the loaded parts once they are there, for a request that was admitted. Without them, returns the
    /// phase of the server, at the latest at `deadline`.
    pub(crate) async fn ready_by(&self, deadline: Instant) -> Result<&Loaded, Phase> {
        if *self.phase.borrow() == Phase::Starting {
            let mut phase = self.phase.subscribe();
            let ended = phase.wait_for(|phase| *phase != Phase::Starting);
            // Late or not, the parts are there or not.
            let _ = timeout_at(deadline.into(), ended).await;
        }
        // A server that drains answers what it has admitted.
        let phase = *self.phase.borrow();
        self.loaded.get().ok_or(phase)
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
            queries_cut: counters.queries_cut.load(Ordering::Relaxed),
            requests_limited: counters.requests_limited.load(Ordering::Relaxed),
            batches,
            mean_batch_queries: batched_queries as f64 / batches.max(1) as f64,
            requests_in_flight: self.admission.requests_in_flight(),
            queries_in_flight: self.admission.queries_in_flight(),
            queries_waiting: self.admission.turns().counts().1,
            queries_per_s: self.admission.turns().queries_per_s(),
        }
    }
}

/// Returns the limits of queries in flight: what keeps the back end busy, and little more, since queries that wait
/// for their turn are fair to other callers, and queries in flight are not.
fn turn_limits(config: &ServeConfig) -> TurnLimits {
    let components = config.backend.components();
    let is_lexical = components.iter().all(|kind| *kind == BackendKind::Bm25);
    let (max_in_flight, max_slice) = if is_lexical {
        (QUERIES_PER_THREAD * config.threads, QUERIES_PER_THREAD * config.threads / 2)
    } else {
        // One batch is encoded, one is searched, and one waits for them.
        (3 * config.batch.max_queries, config.batch.max_queries)
    };
    let max_in_flight = config.load.max_in_flight_queries.unwrap_or(max_in_flight);
    let max_slice = max_slice.min(max_in_flight.div_ceil(2));
    TurnLimits { max_in_flight, max_slice, max_wait: config.load.max_wait }
}

/// Counts since the start of the server.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    requests: AtomicU64,
    requests_refused: AtomicU64,
    queries: AtomicU64,
    queries_failed: AtomicU64,
    queries_cut: AtomicU64,
    requests_limited: AtomicU64,
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

    /// Counts the queries that are longer than the limit. The log has the first time.
    pub(crate) fn count_cut(&self, queries: &[String], max_query_bytes: usize) {
        let cut = queries.iter().filter(|query| query.len() > max_query_bytes).count();
        if cut > 0 && self.queries_cut.fetch_add(cut as u64, Ordering::Relaxed) == 0 {
            warn!(
                max_query_bytes,
                cut, "queries are cut to the longest length; /stats counts them from now on"
            );
        }
    }

    /// Counts a request for more passages than the limit. The log has the first one.
    pub(crate) fn count_limited(&self, max_top_k: usize) {
        if self.requests_limited.fetch_add(1, Ordering::Relaxed) == 0 {
            warn!(
                max_top_k,
                "a request wants more passages than the limit and gets as many as that; /stats \
                 counts such requests from now on"
            );
        }
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
    /// The number of queries that were cut to the longest length.
    queries_cut: u64,
    /// The number of requests for more passages than the limit.
    requests_limited: u64,
    /// The number of batches of back ends that answer several requests together.
    batches: u64,
    mean_batch_queries: f64,
    requests_in_flight: usize,
    /// The number of admitted queries, with those that wait for their turn.
    queries_in_flight: usize,
    queries_waiting: usize,
    /// The observed rate; `null` before there is one.
    queries_per_s: Option<f64>,
}
