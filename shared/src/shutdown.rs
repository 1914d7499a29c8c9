//! The wish of the outside world that the process ends. What to finish first is the caller's
//! matter.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Which signal came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// SIGTERM: a supervisor stops the service.
    Terminate,
    /// SIGINT: somebody pressed Ctrl-C.
    Interrupt,
}

/// Starts to listen at once and returns a future that ends with the first SIGTERM or SIGINT.
///
/// Must be called inside a tokio runtime. A signal that comes between this call and the first
/// poll of the future is not lost.
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
