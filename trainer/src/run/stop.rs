//! The user's or the supervisor's wish that training ends early.
//!
//! The first SIGINT or SIGTERM is remembered until the step in progress is done and saved; a second
//! one ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use shared::shutdown::{self, Shutdown};

const NONE: u8 = 0;
const TERMINATE: u8 = 1;
const INTERRUPT: u8 = 2;
/// Exit code after a second signal: 128 and the number of SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

/// Whether the process has been asked to stop.
#[derive(Clone, Debug)]
pub(super) struct StopFlag(Arc<AtomicU8>);

impl StopFlag {
    /// Starts to listen for signals, on a thread of its own.
    pub(super) fn listen() -> std::io::Result<Self> {
        let flag = Arc::new(AtomicU8::new(NONE));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let seen = Arc::clone(&flag);
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                let Ok(first) = shutdown::listen() else { return };
                let code = match first.await {
                    Shutdown::Terminate => TERMINATE,
                    Shutdown::Interrupt => INTERRUPT,
                };
                seen.store(code, Ordering::Relaxed);
                tracing::warn!("stopping after this step; a second signal ends at once");
                let Ok(second) = shutdown::listen() else { return };
                second.await;
                end_process();
            });
        })?;
        Ok(Self(flag))
    }

    /// What asked the process to stop, if anything did.
    pub(super) fn wish(&self) -> Option<Shutdown> {
        match self.0.load(Ordering::Relaxed) {
            TERMINATE => Some(Shutdown::Terminate),
            INTERRUPT => Some(Shutdown::Interrupt),
            _ => None,
        }
    }
}

#[expect(clippy::exit, reason = "asked twice, the process must not wait for a step to end")]
fn end_process() {
    std::process::exit(EXIT_INTERRUPTED);
}
