//! The life of a server: listen, load the index, answer, drain. The port is open from the start,
//! so that probes get an answer while a large index is checked.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{info, warn};

use crate::config::{ConfigError, ServeConfig};
use crate::encode::EncodeError;
use crate::gpu::GpuError;
use crate::http::{self, BoundedListener};
use crate::index::IndexError;
use crate::loading;
use crate::state::{AppState, Phase};
use crate::vector::faiss_file::FaissError;

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
    /// The file of vectors could not be opened.
    #[error(transparent)]
    Faiss(#[from] FaissError),
    /// The file of vectors cannot be that of the passages and the encoder.
    #[error("{} has {what} {found}, expected {expected}", path.display())]
    OtherVectors {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// What the file has.
        found: String,
        /// What would fit.
        expected: String,
    },
    /// The encoder could not be opened.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The vectors could not be put on CUDA devices.
    #[error(transparent)]
    Gpu(#[from] GpuError),
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
    let state_of_load = Arc::clone(&state);
    let loaded = tokio::task::spawn_blocking(move || loading::open(&state_of_load)).await??;
    info!(
        backend = loaded.info.backend,
        passages = loaded.info.passage_count,
        index_digest = loaded.info.index_digest,
        "ready"
    );
    state.set_loaded(loaded);
    Ok(())
}
