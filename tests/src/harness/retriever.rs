//! A retriever in this process, on its own thread and runtime. Any test, blocking or not, can start it, kill
//! it and start it again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;

use retriever_server::config::ServeConfig;
use retriever_server::{Drained, Listeners, Phase, ServeError, Server};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use crate::harness::http::PATIENCE;

/// The end of a server; `None` if it was killed.
type Ending = Option<Result<Drained, ServeError>>;

/// A running retriever, which is killed when this value is dropped.
#[derive(Debug)]
pub(crate) struct RetrieverHandle {
    addr: SocketAddr,
    operators: SocketAddr,
    phase: watch::Receiver<Phase>,
    drain: Option<oneshot::Sender<()>>,
    kill: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Ending>>,
}

impl RetrieverHandle {
    /// Starts a retriever with default settings on a free port and waits until it is ready.
    pub(crate) fn start(index: &Path) -> Self {
        Self::start_with(index, 0, &[])
    }

    /// Starts a retriever on a port (0 for a free one) with environment variables, and waits until it is
    /// ready.
    pub(crate) fn start_with(index: &Path, port: u16, variables: &[(&str, &str)]) -> Self {
        match Self::try_start(index, port, variables) {
            Ok(handle) => handle,
            Err(error) => panic!("the retriever did not start: {error}"),
        }
    }

    /// Starts a retriever as [`Self::start_with`] does; the start may fail.
    pub(crate) fn try_start(
        index: &Path,
        port: u16,
        variables: &[(&str, &str)],
    ) -> Result<Self, ServeError> {
        let is_ready = |phase: Phase| matches!(phase, Phase::Ready | Phase::Draining);
        Self::start_until(is_ready, index, port, variables)
    }

    /// Starts a retriever on a free port and does not wait for it.
    pub(crate) fn begin(index: &Path, variables: &[(&str, &str)]) -> Self {
        match Self::start_until(|_| true, index, 0, variables) {
            Ok(handle) => handle,
            Err(error) => panic!("the retriever did not listen: {error}"),
        }
    }

    /// Starts a retriever and waits for a phase.
    fn start_until(
        is_reached: fn(Phase) -> bool,
        index: &Path,
        port: u16,
        variables: &[(&str, &str)],
    ) -> Result<Self, ServeError> {
        let mut source: BTreeMap<String, String> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        source.insert("RETRIEVER_INDEX".to_owned(), index.to_str().unwrap().to_owned());
        source.entry("RETRIEVER_THREADS".to_owned()).or_insert_with(|| "2".to_owned());
        let config = ServeConfig::resolve(&source).unwrap();
        let (drain, drained) = oneshot::channel();
        let (kill, killed) = oneshot::channel();
        let (started, start) = mpsc::sync_channel(1);
        let start_of = Start { config, port, is_reached, started };
        let thread = std::thread::spawn(move || serve(start_of, drained, killed));
        match start.recv_timeout(PATIENCE).unwrap() {
            Some((addr, operators, phase)) => {
                let (drain, kill, thread) = (Some(drain), Some(kill), Some(thread));
                Ok(Self { addr, operators, phase, drain, kill, thread })
            }
            None => match thread.join().unwrap() {
                Some(Err(error)) => Err(error),
                other => panic!("the retriever ended before it was ready: {other:?}"),
            },
        }
    }

    /// Returns the base URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Returns the base URL of the admin endpoints.
    pub(crate) fn operators_url(&self) -> String {
        format!("http://{}", self.operators)
    }

    pub(crate) fn operators_addr(&self) -> SocketAddr {
        self.operators
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Kills the retriever: connections break and no request is finished, as after the death of a process.
    /// The port is free when this returns.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    /// Starts the shutdown that SIGTERM starts, without waiting for its end.
    pub(crate) fn begin_drain(&mut self) {
        let _ = self.drain.take().unwrap().send(());
    }

    /// Waits until the retriever refuses new work.
    pub(crate) async fn draining(&mut self) {
        self.phase.wait_for(|phase| *phase == Phase::Draining).await.unwrap();
    }

    /// Waits for the end after [`Self::begin_drain`].
    pub(crate) fn finish(self) -> Drained {
        self.ending().unwrap()
    }

    /// Waits for the end.
    pub(crate) fn ending(mut self) -> Result<Drained, ServeError> {
        let ending = self.thread.take().unwrap().join().unwrap();
        ending.expect("killed")
    }

    /// Shuts down as after SIGTERM and waits for the end.
    pub(crate) fn drain(mut self) -> Drained {
        self.begin_drain();
        self.finish()
    }

    fn end(&mut self) {
        drop(self.kill.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for RetrieverHandle {
    fn drop(&mut self) {
        self.end();
    }
}

/// The receiver of the addresses, of clients and operators, and the phases of a server that has started; `None` if it
/// ended before.
type Started = mpsc::SyncSender<Option<(SocketAddr, SocketAddr, watch::Receiver<Phase>)>>;

/// The start of a server.
struct Start {
    config: ServeConfig,
    port: u16,
    /// Returns `true` for the phases in which it has started.
    is_reached: fn(Phase) -> bool,
    started: Started,
}

/// Runs the server on this thread. All tasks are in a runtime of this thread: every socket is closed when
/// this returns.
fn serve(start: Start, drained: oneshot::Receiver<()>, killed: oneshot::Receiver<()>) -> Ending {
    let Start { config, port, is_reached, started } = start;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ending = runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let operators = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (addr, admin_addr) = (listener.local_addr().unwrap(), operators.local_addr().unwrap());
        let listeners = Listeners { clients: listener, operators: Some(operators) };
        let server = Server::new(config).unwrap();
        let mut phase = server.phase();
        let announce = async {
            if phase.wait_for(|phase| is_reached(*phase)).await.is_ok() {
                let _ = started.send(Some((addr, admin_addr, phase.clone())));
            }
            std::future::pending::<()>().await;
        };
        let asked = async {
            // The handle drops its end only to kill the server, which the other branch handles.
            if drained.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            ending = server.run(listeners, asked) => Some(ending),
            () = announce => None,
            _ = killed => None,
        }
    });
    // Nobody reads this if the start was announced before.
    let _ = started.send(None);
    ending
}
