//! Signals that request the end of the process, or that it reads its files again. The caller decides what to do first.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signal that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// SIGTERM: a supervisor stops the service.
    Terminate,
    /// SIGINT: the user pressed Ctrl-C.
    Interrupt,
}

/// Starts to listen immediately and returns a future that resolves at the first SIGTERM or SIGINT.
///
/// Must be called inside a tokio runtime. A signal between this call and the future's first poll is not lost.
pub fn listen() -> io::Result<impl Future<Output = Shutdown> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => Shutdown::Terminate,
            _ = interrupt.recv() => Shutdown::Interrupt,
        }
    })
}

/// The signals SIGHUP, which ask a service to read its files again.
#[derive(Debug)]
pub struct Hangups(Signal);

impl Hangups {
    /// Waits for the next signal. Those that arrive while nobody waits are one. Returns `false` if there is never another.
    pub async fn next(&mut self) -> bool {
        self.0.recv().await.is_some()
    }
}

/// Starts to listen for SIGHUP, which from now on does not end the process. Must be called inside a tokio runtime.
pub fn hangups() -> io::Result<Hangups> {
    signal(SignalKind::hangup()).map(Hangups)
}
