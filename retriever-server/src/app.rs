//! The life of a server: listen, load the index, answer, drain. The port is open from the start: probes are
//! answered while a large index is checked, and requests wait.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use shared::machine::traces::Traces;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{info, warn};

use crate::access::Access;
use crate::config::ServeConfig;
use crate::http::{self, Door};
use crate::loading::{self, ServeError};
use crate::reload::{self, ReloadError, Reloaded};
use crate::state::{AppState, IndexFacts, Phase};

/// The least time that connections have to send their last response, even if draining took the whole
/// grace period.
const MIN_CLOSING_TIME: Duration = Duration::from_secs(1);

/// The time between two looks at the files of keys and certificates.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(2);

/// The ending of a server.
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
    /// Creates a server and starts its search threads.
    pub fn new(config: ServeConfig) -> Result<Self, ServeError> {
        let access = Access::load(&config.service.files)?;
        let traces = match &config.service.traces {
            Some(traces) => Traces::start(env!("CARGO_PKG_NAME"), traces)?,
            None => Traces::off(),
        };
        let state = AppState::new(config, access, traces).map_err(ServeError::Threads)?;
        Ok(Self { state: Arc::new(state) })
    }

    /// Returns the handle that loads the index again while the server runs.
    pub fn reloader(&self) -> Reloader {
        Reloader { state: Arc::clone(&self.state) }
    }

    /// Returns the phase of the server and its later changes.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.state.phase.subscribe()
    }

    /// Serves until `shutdown` ends, then finishes admitted work within the grace period.
    pub async fn run(
        self,
        listeners: impl Into<Listeners>,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<Drained, ServeError> {
        let (state, listeners) = (self.state, listeners.into());
        let _followed = AbortOnDrop(tokio::spawn(follow_files(Arc::clone(&state))));
        // Operators see the end of the server too: their door closes with the clients'.
        let (close, _) = watch::channel(());
        let serve = |listener, door| {
            let mut closed = close.subscribe();
            http::serve(listener, door, Arc::clone(&state), async move {
                // A dropped sender means that `run` was cancelled; close then too.
                let _ = closed.changed().await;
            })
        };
        let clients = serve(listeners.clients, Door::Clients);
        let operators = listeners.operators.map(|listener| serve(listener, Door::Operators));
        let serving = async move {
            match operators {
                Some(operators) => tokio::try_join!(clients, operators).map(|_| ()),
                None => clients.await,
            }
        };
        let mut serving = AbortOnDrop(tokio::spawn(serving));
        tokio::pin!(shutdown);
        let loading = load(Arc::clone(&state));
        let failed = async {
            match loading.await {
                Ok(()) => std::future::pending().await,
                Err(error) => error,
            }
        };
        tokio::select! {
            () = &mut shutdown => {}
            error = failed => {
                fail(&state, close, &mut serving.0).await;
                return Err(error);
            }
            served = &mut serving.0 => served?.map_err(ServeError::Listener)?,
        }
        let drained = drain(&state, close, &mut serving.0).await;
        let traces = state.traces.clone();
        // A collector that is gone delays the end by some seconds at most.
        let _ = tokio::task::spawn_blocking(move || traces.end()).await;
        Ok(drained)
    }
}

/// The sockets of a server.
#[derive(Debug)]
pub struct Listeners {
    /// The socket of clients.
    pub clients: TcpListener,
    /// The socket of operators, if they have their own.
    pub operators: Option<TcpListener>,
}

impl From<TcpListener> for Listeners {
    fn from(clients: TcpListener) -> Self {
        Self { clients, operators: None }
    }
}

/// A handle that loads the index of a running server again.
#[derive(Clone, Debug)]
pub struct Reloader {
    state: Arc<AppState>,
}

impl Reloader {
    /// Reads keys and certificate again, opens the index, and puts it in place of the one in use.
    ///
    /// # Errors
    /// A file that cannot be used: everything stays as it was. Or a server that is starting or ending.
    pub async fn reload(&self) -> Result<Reloaded, ReloadError> {
        reload::reload(Arc::clone(&self.state)).await
    }
}

/// Reads keys and certificates again whenever their files change.
async fn follow_files(state: Arc<AppState>) -> io::Result<()> {
    if !state.access.has_files() {
        return Ok(());
    }
    let mut ticks = tokio::time::interval(FOLLOW_INTERVAL);
    loop {
        ticks.tick().await;
        let state = Arc::clone(&state);
        tokio::task::spawn_blocking(move || state.access.follow()).await?;
    }
}

/// A task that is aborted when its owner is dropped, so that a dropped server stops listening.
struct AbortOnDrop(JoinHandle<io::Result<()>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Refuses new work, waits for admitted work, then closes connections.
async fn drain(
    state: &AppState,
    close: watch::Sender<()>,
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

/// Answers the requests that wait for a start that failed, then closes connections.
async fn fail(
    state: &AppState,
    close: watch::Sender<()>,
    serving: &mut JoinHandle<io::Result<()>>,
) {
    state.phase.send_replace(Phase::Failed);
    let _ = timeout(MIN_CLOSING_TIME, state.admission.drained()).await;
    let _ = close.send(());
    let _ = timeout(MIN_CLOSING_TIME, serving).await;
}

/// Opens the index on a blocking thread and makes the server ready.
async fn load(state: Arc<AppState>) -> Result<(), ServeError> {
    let state_of_load = Arc::clone(&state);
    let loaded = tokio::task::spawn_blocking(move || loading::open(&state_of_load)).await??;
    let backend = state.config.backend.kind.name();
    if let Some(IndexFacts { passage_count, digest, .. }) = &loaded.index {
        info!(backend, passages = passage_count, index_digest = %digest, "ready");
    } else {
        info!(backend, "ready");
    }
    state.set_loaded(loaded);
    Ok(())
}
