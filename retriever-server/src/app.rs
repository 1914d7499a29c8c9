//! The life of a server: listen, load the index, answer, drain. The port is open from the start,
//! so that probes get an answer while a large index is checked.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use shared::wire::{ServerInfo, ServerLimits};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{info, warn};

use crate::backend::Backend;
use crate::backend::lexical::LexicalBackend;
use crate::config::{BackendKind, ConfigError, ServeConfig, disk};
use crate::http::{self, BoundedListener};
use crate::index::build::{self, BuildRequest};
use crate::index::manifest::Manifest;
use crate::index::{self, IndexError};
use crate::pipeline::Pipeline;
use crate::state::{AppState, Loaded, Phase};

/// Connections get at least this long to send their last response, even if draining took all of
/// the grace period.
const MIN_CLOSING_TIME: Duration = Duration::from_secs(1);

/// The server could not start or go on.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The index is of another corpus than the one that is named, as was seen while loading.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The index could not be built or opened.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The threads could not be started.
    #[error("cannot start threads: {0}")]
    Threads(io::Error),
    /// The listener failed.
    #[error("cannot accept connections: {0}")]
    Listener(io::Error),
    /// A task of the server panicked.
    #[error("a task of the server failed: {0}")]
    Task(#[from] JoinError),
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// All admitted work was finished.
    Complete,
    /// The grace period ended first.
    OutOfTime,
}

/// A server that does not listen yet.
#[derive(Debug)]
pub struct Server {
    state: Arc<AppState>,
}

impl Server {
    /// Starts the threads that search.
    pub fn new(config: ServeConfig) -> Result<Self, ServeError> {
        let state = AppState::new(config).map_err(ServeError::Threads)?;
        Ok(Self { state: Arc::new(state) })
    }

    /// Where the server is in its life, now and from now on.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.state.phase.subscribe()
    }

    /// Serves until `shutdown` ends, then finishes admitted work within the grace period.
    pub async fn run(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<Drained, ServeError> {
        let state = self.state;
        let (close, closed) = oneshot::channel::<()>();
        let listener = BoundedListener::new(listener, state.config.load.max_connections);
        let serving = axum::serve(listener, http::router(Arc::clone(&state)))
            .with_graceful_shutdown(async move {
                // A dropped sender means that `run` was given up: close as well.
                let _ = closed.await;
            });
        let mut serving = AbortOnDrop(tokio::spawn(async move { serving.await }));
        tokio::pin!(shutdown);
        let loading = load(Arc::clone(&state));
        let ended = async {
            loading.await?;
            std::future::pending::<Result<(), ServeError>>().await
        };
        tokio::select! {
            () = &mut shutdown => {}
            failed = ended => failed?,
            served = &mut serving.0 => served?.map_err(ServeError::Listener)?,
        }
        Ok(drain(&state, close, &mut serving.0).await)
    }
}

/// A server that is dropped must not go on listening.
struct AbortOnDrop(JoinHandle<io::Result<()>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Refuses new work, waits for the old, then closes connections.
async fn drain(
    state: &AppState,
    close: oneshot::Sender<()>,
    serving: &mut JoinHandle<io::Result<()>>,
) -> Drained {
    let deadline = Instant::now() + state.config.load.grace_period;
    state.phase.send_replace(Phase::Draining);
    info!(requests_in_flight = state.admission.requests_in_flight(), "draining");
    let finished = timeout_at(deadline, state.admission.drained()).await.is_ok();
    let _ = close.send(());
    let rest = deadline.saturating_duration_since(Instant::now()).max(MIN_CLOSING_TIME);
    let closed = timeout(rest, serving).await.is_ok();
    if finished && closed {
        info!("drained");
        Drained::Complete
    } else {
        warn!("the grace period ended before all work was finished");
        Drained::OutOfTime
    }
}

/// Opens the index, off the async threads, and makes the server ready.
async fn load(state: Arc<AppState>) -> Result<(), ServeError> {
    let loading = Arc::clone(&state);
    let loaded = tokio::task::spawn_blocking(move || open(&loading)).await??;
    info!(
        backend = loaded.info.backend,
        passages = loaded.info.passage_count,
        index_digest = loaded.info.index_digest,
        "ready"
    );
    state.set_loaded(loaded);
    Ok(())
}

fn open(state: &AppState) -> Result<Loaded, ServeError> {
    let config = &state.config;
    if !config.corpus.is_empty() {
        build_or_compare(config)?;
    }
    let BackendKind::Bm25 = config.backend;
    let open = index::open(&config.index, config.bm25, config.verification)?;
    let backend: Box<dyn Backend> =
        Box::new(LexicalBackend::new(open.lexical, Arc::clone(&state.pool)));
    let max_query_bytes = config.request.max_query_bytes;
    let pool = Arc::clone(&state.pool);
    Ok(Loaded {
        pipeline: Pipeline::new(backend, open.passages, pool, max_query_bytes),
        info: describe(config, &open.manifest),
    })
}

/// Indexes the corpus if there is no index, and compares it with an index that is there.
fn build_or_compare(config: &ServeConfig) -> Result<(), ServeError> {
    match Manifest::load(&config.index) {
        Ok(manifest) => compare(config, &manifest),
        Err(IndexError::Missing(_)) => Ok(build_index(config)?),
        Err(error) => Err(error.into()),
    }
}

fn compare(config: &ServeConfig, manifest: &Manifest) -> Result<(), ServeError> {
    let unread = disk::compare(&config.corpus, &config.index, manifest, config.verification)
        .map_err(|fault| ConfigError { faults: vec![fault] })?;
    for (path, error) in unread {
        info!(path = %path.display(), %error, "the index is served without this corpus file");
    }
    Ok(())
}

fn build_index(config: &ServeConfig) -> Result<(), IndexError> {
    info!(index = %config.index.display(), "there is no index, building it");
    let request = BuildRequest {
        corpus: config.corpus.clone(),
        index: config.index.clone(),
        force: false,
        threads: config.threads,
    };
    build::build(&request, &mut |_| {}).map(|_| ())
}

fn describe(config: &ServeConfig, manifest: &Manifest) -> ServerInfo {
    let request = config.request;
    ServerInfo {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        backend: config.backend.name().to_owned(),
        index_digest: manifest.digest.to_string(),
        passage_count: manifest.passage_count,
        analyzer: manifest.analyzer.clone(),
        k1: config.bm25.k1(),
        b: config.bm25.b(),
        limits: ServerLimits {
            default_top_k: request.default_top_k,
            max_top_k: request.max_top_k,
            max_batch_queries: request.max_batch_queries,
            max_query_bytes: request.max_query_bytes,
            max_body_bytes: request.max_body_bytes,
            max_queued_queries: config.load.max_queued_queries,
            deadline_ms: request.deadline.as_millis() as u64,
        },
    }
}
