//! The state that all requests share: configuration, admission, threads, the loaded index and counts.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use serde::Serialize;
use shared::contract::digest::Digest;
use shared::contract::splitmix;
use shared::machine::traces::Traces;
use tokio::sync::watch;
use tokio::time::timeout_at;
use tracing::{error, info, warn};
use utoipa::ToSchema;

use crate::access::Access;
use crate::admission::Admission;
use crate::config::{BackendKind, IndexCheck, ServeConfig};
use crate::index::later::{Checked, LaterChecks};
use crate::metrics::{Metrics, Moment};
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

/// The reason why no query is answered.
#[derive(Clone, Debug)]
pub(crate) enum NotServing {
    /// The server is in a phase in which it answers none.
    Phase(Phase),
    /// A file of the index differs from the manifest. The text names it.
    Damaged(Arc<str>),
}

/// The parts that exist once the index is loaded.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) pipeline: Pipeline,
    pub(crate) reranker: Option<Arc<Reranker>>,
    /// `None` if another service holds the passages and does not say which they are.
    pub(crate) index: Option<IndexFacts>,
    /// The digest of everything that answers depend on.
    pub(crate) identity: Digest,
    /// The digests that are still to be checked.
    checks: Mutex<Option<LaterChecks>>,
    check: OnceLock<IndexState>,
}

/// The outcome of comparing the index's files with their digests.
#[derive(Clone, Debug)]
enum IndexState {
    Whole,
    Unchecked,
    /// The text names the file that differs.
    Damaged(Arc<str>),
}

impl Loaded {
    pub(crate) fn new(
        pipeline: Pipeline,
        reranker: Option<Arc<Reranker>>,
        index: Option<IndexFacts>,
        identity: Digest,
    ) -> Self {
        let (checks, check) = (Mutex::default(), OnceLock::new());
        Self { pipeline, reranker, index, identity, checks, check }
    }

    /// Adds the checks that opening the index left over.
    pub(crate) fn with_checks(self, chosen: IndexCheck, checks: LaterChecks) -> Self {
        let known = match chosen {
            IndexCheck::Start => Some(IndexState::Whole),
            IndexCheck::Never => Some(IndexState::Unchecked),
            IndexCheck::Auto | IndexCheck::Background => {
                checks.is_empty().then_some(IndexState::Whole)
            }
        };
        let checks = Mutex::new(known.is_none().then_some(checks));
        Self { checks, check: known.map(OnceLock::from).unwrap_or_default(), ..self }
    }

    /// Returns the state of the index's files for `/stats`; `None` if there is no index.
    fn index_files(&self) -> Option<&'static str> {
        self.index.as_ref()?;
        Some(match self.check.get() {
            None => "checking",
            Some(IndexState::Whole) => "whole",
            Some(IndexState::Unchecked) => "unchecked",
            Some(IndexState::Damaged(_)) => "damaged",
        })
    }

    /// Returns the digest of the index.
    pub(crate) fn index_digest(&self) -> Option<Digest> {
        self.index.as_ref().map(|index| index.digest)
    }

    /// Returns the number of passages in the index.
    pub(crate) fn passage_count(&self) -> Option<u64> {
        self.index.as_ref().map(|index| index.passage_count)
    }
}

/// The facts about the index, for `/info` and the log: the loaded one, or the one that an engine was loaded from.
#[derive(Debug)]
pub(crate) struct IndexFacts {
    pub(crate) digest: Digest,
    pub(crate) passage_count: u64,
    /// The name of the analysis that the index was built with; `None` if an engine searches.
    pub(crate) analyzer: Option<String>,
}

/// The state that all requests share.
#[derive(Debug)]
pub(crate) struct AppState {
    pub(crate) config: ServeConfig,
    pub(crate) admission: Admission,
    pub(crate) pool: Arc<Pool>,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) traces: Traces,
    pub(crate) access: Access,
    pub(crate) request_ids: RequestIds,
    /// Held while the index is loaded again.
    pub(crate) reloading: tokio::sync::Mutex<()>,
    loaded: ArcSwapOption<Loaded>,
}

/// The source of the ids of requests: a random start and a count.
#[derive(Debug)]
pub(crate) struct RequestIds {
    start: u64,
    count: AtomicU64,
}

impl Default for RequestIds {
    fn default() -> Self {
        let start = RandomState::new().hash_one(std::process::id());
        Self { start, count: AtomicU64::new(0) }
    }
}

impl RequestIds {
    /// Returns a new id of 16 hexadecimal digits.
    pub(crate) fn next(&self) -> String {
        let mut state = self.start.wrapping_add(self.count.fetch_add(1, Ordering::Relaxed));
        format!("{:016x}", splitmix::next(&mut state))
    }
}

/// The loaded parts, which a request holds until its response. The last holder of parts that were replaced leaves them to
/// a thread of their own: unmapping a large index takes long.
#[derive(Debug)]
pub(crate) struct Lease(Option<Arc<Loaded>>);

impl Deref for Lease {
    type Target = Loaded;

    fn deref(&self) -> &Loaded {
        self.0.as_ref().expect("only the drop takes the parts")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(loaded) = self.0.take().and_then(Arc::into_inner) {
            // Without a thread, the parts are dropped here.
            let _ = thread::Builder::new().name("unload".to_owned()).spawn(move || drop(loaded));
        }
    }
}

impl AppState {
    pub(crate) fn new(config: ServeConfig, access: Access, traces: Traces) -> io::Result<Self> {
        let load = config.load;
        // Every job belongs to an admitted query, or to a request whose body is parsed or written.
        let capacity_jobs = load.max_queued_queries + load.max_requests;
        let turns = Arc::new(Turns::new(turn_limits(&config)));
        Ok(Self {
            admission: Admission::new(load.max_requests, load.max_queued_queries, turns)
                .with_memory(load.max_bodies_bytes.max(config.request.max_body_bytes)),
            pool: Arc::new(Pool::start(config.threads, capacity_jobs)?),
            phase: watch::Sender::new(Phase::Starting),
            metrics: Arc::default(),
            traces,
            access,
            request_ids: RequestIds::default(),
            reloading: tokio::sync::Mutex::default(),
            loaded: ArcSwapOption::empty(),
            config,
        })
    }

    /// Makes the server ready, unless it is draining already. Called once.
    pub(crate) fn set_loaded(&self, loaded: Loaded) {
        self.replace(loaded);
        self.phase.send_if_modified(|phase| {
            let starting = *phase == Phase::Starting;
            if starting {
                *phase = Phase::Ready;
            }
            starting
        });
    }

    /// Puts other parts in place of the loaded ones. Requests in flight keep those that they hold.
    pub(crate) fn replace(&self, loaded: Loaded) {
        let loaded = Arc::new(loaded);
        let checks = loaded.checks.lock().unwrap_or_else(PoisonError::into_inner).take();
        let weak = Arc::downgrade(&loaded);
        drop(Lease(self.loaded.swap(Some(loaded))));
        if let Some(checks) = checks {
            let check = move || check_index(checks, &weak);
            if let Err(error) = thread::Builder::new().name("check".to_owned()).spawn(check) {
                warn!(%error, "the files of the index are not compared with their digests");
            }
        }
    }

    /// Returns the loaded parts, or the reason why no query is answered.
    pub(crate) fn ready(&self) -> Result<Lease, NotServing> {
        let phase = *self.phase.borrow();
        match phase {
            Phase::Ready => self.whole(phase),
            _ => Err(NotServing::Phase(phase)),
        }
    }

    /// Returns the loaded parts unless they are damaged, or the reason.
    fn whole(&self, phase: Phase) -> Result<Lease, NotServing> {
        let lease = self.lease().ok_or(NotServing::Phase(phase))?;
        match lease.check.get() {
            Some(IndexState::Damaged(fault)) => Err(NotServing::Damaged(Arc::clone(fault))),
            _ => Ok(lease),
        }
    }

    /// Returns the digest of the index of a server that is ready, damaged or not, or the phase.
    pub(crate) fn index_digest(&self) -> Result<Option<Digest>, Phase> {
        let phase = *self.phase.borrow();
        match (phase, self.lease()) {
            (Phase::Ready, Some(lease)) => Ok(lease.index_digest()),
            _ => Err(phase),
        }
    }

    fn lease(&self) -> Option<Lease> {
        self.loaded.load_full().map(|loaded| Lease(Some(loaded)))
    }

    /// Returns the phase in which no request is admitted any more, as an error.
    pub(crate) fn check_admits(&self) -> Result<(), Phase> {
        match *self.phase.borrow() {
            Phase::Starting | Phase::Ready => Ok(()),
            ending @ (Phase::Failed | Phase::Draining) => Err(ending),
        }
    }

    /// Returns the loaded parts once they are there, for a request that was admitted. Without them, returns the
    /// reason, at the latest at `deadline`.
    pub(crate) async fn ready_by(&self, deadline: Instant) -> Result<Lease, NotServing> {
        if *self.phase.borrow() == Phase::Starting {
            let mut phase = self.phase.subscribe();
            let ended = phase.wait_for(|phase| *phase != Phase::Starting);
            // Late or not, the parts are there or not.
            let _ = timeout_at(deadline.into(), ended).await;
        }
        // A server that drains answers what it has admitted.
        let phase = *self.phase.borrow();
        self.whole(phase)
    }

    /// Returns the numbers of this moment.
    pub(crate) fn moment(&self) -> Moment {
        let loaded = self.lease();
        let index = loaded.as_ref().and_then(|loaded| loaded.index.as_ref());
        Moment {
            requests_in_flight: self.admission.requests_in_flight(),
            queries_in_flight: self.admission.queries_in_flight(),
            jobs_waiting: self.pool.waiting(),
            is_ready: self.ready().is_ok(),
            backend: self.config.backend.kind.name(),
            index: index.map(|index| (index.digest.to_string(), index.passage_count)),
        }
    }

    pub(crate) fn statistics(&self) -> Statistics {
        let metrics = &self.metrics;
        let (batches, batched_queries) = metrics.batch_queries.read();
        Statistics {
            uptime_s: metrics.uptime().as_secs(),
            requests: metrics.request_count(),
            requests_refused: metrics.requests_refused.get(),
            queries: metrics.queries.get(),
            queries_failed: metrics.queries_failed.get(),
            queries_cut: metrics.queries_cut.get(),
            requests_limited: metrics.requests_limited.get(),
            batches,
            mean_batch_queries: batched_queries as f64 / batches.max(1) as f64,
            requests_in_flight: self.admission.requests_in_flight(),
            queries_in_flight: self.admission.queries_in_flight(),
            queries_waiting: self.admission.turns().counts().1,
            queries_per_s: self.admission.turns().queries_per_s(),
            index_files: self.lease().and_then(|loaded| loaded.index_files()),
        }
    }

    pub(crate) fn count_queries<T>(&self, answers: &[Result<T, SearchFault>]) {
        let failed = answers.iter().filter(|answer| answer.is_err()).count();
        self.metrics.queries.inc_by(answers.len() as u64);
        self.metrics.queries_failed.inc_by(failed as u64);
    }

    /// Counts the queries that are longer than the limit. The log has the first time.
    pub(crate) fn count_cut(&self, queries: &[String]) {
        let max_query_bytes = self.config.request.max_query_bytes;
        let cut = queries.iter().filter(|query| query.len() > max_query_bytes).count();
        if cut > 0 && self.metrics.queries_cut.inc_by(cut as u64) == 0 {
            warn!(
                max_query_bytes,
                cut, "queries are cut to the longest length; /stats counts them from now on"
            );
        }
    }

    /// Counts a request for more passages than the limit. The log has the first one.
    pub(crate) fn count_limited(&self) {
        if self.metrics.requests_limited.inc() == 0 {
            warn!(
                max_top_k = self.config.request.max_top_k,
                "a request wants more passages than the limit and gets as many as that; /stats \
                 counts such requests from now on"
            );
        }
    }
}

/// Compares the files of an index in use with their digests. One that differs takes the index out of service.
fn check_index(checks: LaterChecks, loaded: &Weak<Loaded>) {
    let began = Instant::now();
    let checked = checks.run(|| loaded.strong_count() > 0);
    let state = match &checked {
        Checked::Abandoned => return,
        Checked::Whole { bytes } => {
            info!(bytes, duration = ?began.elapsed(), "every file of the index has its digest");
            IndexState::Whole
        }
        Checked::Damaged(fault) => {
            error!(%fault, "the index is out of service: build or copy it again, then reload it");
            IndexState::Damaged(fault.as_str().into())
        }
    };
    if let Some(loaded) = loaded.upgrade().map(|loaded| Lease(Some(loaded))) {
        // Nobody else sets it.
        let _ = loaded.check.set(state);
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

/// The body of `GET /stats`.
#[derive(Debug, Serialize, ToSchema)]
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
    /// `checking` while the files are compared with their digests, then `whole` or `damaged`; `unchecked` if that is
    /// switched off; `null` without an index.
    index_files: Option<&'static str>,
}
