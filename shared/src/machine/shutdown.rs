//! Signals that request the end of the process. The caller decides what to finish first.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

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
