//! The wish that work ends before it is done. It is handed down to where the time is spent, which
//! looks at it every second or so; nothing here ends any work but a second signal.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use shared::shutdown::{self, Shutdown};

const NONE: u8 = 0;
const TERMINATE: u8 = 1;
const INTERRUPT: u8 = 2;
/// Exit code of a process that SIGINT ends: 128 and the signal's number.
const EXIT_INTERRUPTED: i32 = 130;

/// Work was ended because somebody wished so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped before the work was done")]
pub struct Stopped;

/// Whether somebody wishes that the work ends. Once it is wished, it stays so.
#[derive(Clone)]
pub struct StopFlag {
    wish: Arc<dyn Fn() -> Option<Shutdown> + Send + Sync>,
}

impl StopFlag {
    /// A flag that asks `wish` whenever it is looked at.
    pub fn asking(wish: impl Fn() -> Option<Shutdown> + Send + Sync + 'static) -> Self {
        Self { wish: Arc::new(wish) }
    }

    /// Nobody ever wishes it.
    pub fn never() -> Self {
        Self::asking(|| None)
    }

    /// The first SIGTERM or SIGINT of this process wishes it; a second one ends the process at
    /// once. No signal is lost once this has returned.
    ///
    /// # Errors
    /// The system's, when signals cannot be listened for.
    pub fn listen() -> std::io::Result<Self> {
        let seen = Arc::new(AtomicU8::new(NONE));
        let written = Arc::clone(&seen);
        on_signal(move |signal| {
            let code = match signal {
                Shutdown::Terminate => TERMINATE,
                Shutdown::Interrupt => INTERRUPT,
            };
            written.store(code, Ordering::Relaxed);
            tracing::warn!("stopping; a second signal ends at once");
        })?;
        Ok(Self::asking(move || match seen.load(Ordering::Relaxed) {
            TERMINATE => Some(Shutdown::Terminate),
            INTERRUPT => Some(Shutdown::Interrupt),
            _ => None,
        }))
    }

    /// What wishes that the work ends, if anything does.
    pub fn wish(&self) -> Option<Shutdown> {
        (self.wish)()
    }

    /// Goes on only while nothing wishes that the work ends.
    ///
    /// # Errors
    /// [`Stopped`] once something does.
    pub fn check(&self) -> Result<(), Stopped> {
        if self.wish().is_some() { Err(Stopped) } else { Ok(()) }
    }
}

impl fmt::Debug for StopFlag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("StopFlag").finish_non_exhaustive()
    }
}

/// Ends the process at the first SIGTERM or SIGINT, with 0 after SIGTERM. Without it a process that
/// is the first of its container would not hear them.
///
/// # Errors
/// The system's, when signals cannot be listened for.
pub fn end_at_signal() -> std::io::Result<()> {
    on_signal(|signal| {
        end_process(match signal {
            Shutdown::Terminate => 0,
            Shutdown::Interrupt => EXIT_INTERRUPTED,
        });
    })
}

/// Calls `act` at the first signal and ends the process at the second, on a thread of its own.
fn on_signal(act: impl FnOnce(Shutdown) + Send + 'static) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let first = {
        let _context = runtime.enter();
        shutdown::listen()?
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            act(first.await);
            let Ok(second) = shutdown::listen() else { return };
            second.await;
            end_process(EXIT_INTERRUPTED);
        });
    })?;
    Ok(())
}

#[expect(clippy::exit, reason = "asked for the end at once, nothing must be waited for")]
fn end_process(code: i32) {
    std::process::exit(code);
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_flag_tells_what_it_is_asked() {
        assert_eq!(StopFlag::never().wish(), None);
        assert_eq!(StopFlag::never().check(), Ok(()));
        let flag = StopFlag::asking(|| Some(Shutdown::Interrupt));
        assert_eq!(flag.clone().wish(), Some(Shutdown::Interrupt));
        assert_eq!(flag.check(), Err(Stopped));
    }

    /// This process survives the signal, which also shows that it is listened for.
    #[test]
    fn a_signal_raises_the_flag() {
        let flag = StopFlag::listen().unwrap();
        assert_eq!(flag.wish(), None);
        let pid = std::process::id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let begun = Instant::now();
        while flag.wish().is_none() {
            assert!(begun.elapsed() < Duration::from_mins(1), "the signal was not seen");
            std::thread::yield_now();
        }
        assert_eq!(flag.wish(), Some(Shutdown::Terminate));
    }
}
