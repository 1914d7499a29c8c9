//! Accepts connections up to a limit, over TLS if the server has a certificate, and serves each until it is idle for too long, breaks or is asked to
//! close. Beyond the limit, clients wait in the queue of the operating system until a connection closes.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::Service;
use tracing::{debug, error};

use super::stream::{Patience, PatientStream, PhaseCell};
use crate::access::Identity;
use crate::config::LoadLimits;
use crate::turns::Caller;

/// The most bytes of a head, and of the buffer that a connection reads into.
const MAX_BUFFER_BYTES: usize = 64 * 1024;
/// The pause after a connection could not be accepted, for instance because there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until `shutdown` ends, then closes each as soon as it is idle. Returns when all are
/// closed.
pub(super) async fn serve(
    listener: TcpListener,
    limits: LoadLimits,
    routes: Router,
    identity: Option<Arc<Identity>>,
    shutdown: impl Future<Output = ()>,
) {
    // It is dropped when no connection is accepted any more, and ends what has not begun to ask.
    let (open, _) = watch::channel(());
    let permits = Arc::new(Semaphore::new(limits.max_connections));
    let graceful = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit.expect("the semaphore is never closed"), accept(&listener).await)
        };
        let (permit, (stream, peer)) = tokio::select! {
            next = next => next,
            () = &mut shutdown => break,
        };
        // Small responses must not wait for more bytes to send. If this fails, they only come late.
        let _ = stream.set_nodelay(true);
        let caller = Caller::of(peer.ip());
        let (routes, watcher) = (routes.clone(), graceful.watcher());
        let handshake = identity.as_ref().map(|identity| Handshake {
            config: identity.config(),
            limit: limits.header_timeout,
            closed: open.subscribe(),
        });
        tokio::spawn(async move {
            match handshake {
                None => serve_one(stream, caller, limits, routes, watcher).await,
                Some(handshake) => {
                    if let Some(stream) = handshake.accept(stream).await {
                        serve_one(stream, caller, limits, routes, watcher).await;
                    }
                }
            }
            drop(permit);
        });
    }
    drop((listener, open));
    graceful.shutdown().await;
}

/// The beginning of a connection over TLS.
struct Handshake {
    config: Arc<ServerConfig>,
    limit: Duration,
    closed: watch::Receiver<()>,
}

impl Handshake {
    /// Returns the connection, unless the client breaks it, takes too long or comes too late.
    async fn accept(mut self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let accepting = timeout(self.limit, TlsAcceptor::from(self.config).accept(stream));
        let accepted = tokio::select! {
            accepted = accepting => accepted,
            _ = self.closed.changed() => return None,
        };
        match accepted {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(fault)) => debug!(%fault, "a connection did not become one of TLS"),
            Err(_) => debug!("a connection took too long to become one of TLS"),
        }
        None
    }
}

/// Accepts the next connection. A connection that breaks before it is accepted is none.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        let fault = match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(fault) => fault,
        };
        let is_the_clients = matches!(
            fault.kind(),
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
        );
        if !is_the_clients {
            error!(%fault, "no connection can be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

/// Serves one connection to its end. The requests of `caller` share the capacity with those of others.
pub(super) async fn serve_one<S>(
    stream: S,
    caller: Caller,
    limits: LoadLimits,
    routes: Router,
    watcher: Watcher,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let patience = Patience {
        head: limits.header_timeout,
        idle: limits.idle_timeout,
        send: limits.body_timeout,
    };
    let phase = Arc::<PhaseCell>::default();
    let stream = PatientStream::new(stream, patience, Arc::clone(&phase));
    let answer = move |mut request: Request<Incoming>| {
        phase.begin();
        request.extensions_mut().insert(caller);
        let answer = routes.clone().call(request);
        let phase = Arc::clone(&phase);
        async move {
            let answer = answer.await;
            phase.end();
            answer
        }
    };
    let connection = http1::Builder::new()
        // The stream has the limit, which hyper would apply to the pause between requests too.
        .header_read_timeout(None)
        .max_buf_size(MAX_BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    if let Err(fault) = watcher.watch(connection).await {
        debug!(%fault, "a connection broke");
    }
}
