//! Requests to stop work before it is done. A request is handed down to where the time is spent: computations check
//! it between their parts, and waits end when it comes. Only a second signal ends the process itself.

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use shared::machine::shutdown::{self, Shutdown};
use tokio::sync::watch;

/// Exit code of a process that SIGINT ends: 128 and the signal's number.
const EXIT_INTERRUPTED: i32 = 130;
/// Pause between two questions of a wait to a flag that only answers when it is asked.
const ASKING_INTERVAL: Duration = Duration::from_millis(200);

/// Work ended early because a stop was requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped before the work was done")]
pub struct Stopped;

/// The writing end of a [`StopFlag`].
#[derive(Clone, Debug)]
pub struct StopSwitch {
    raised: watch::Sender<Option<Shutdown>>,
}

impl Default for StopSwitch {
    fn default() -> Self {
        Self { raised: watch::Sender::new(None) }
    }
}

impl StopSwitch {
    /// Requests the stop, and wakes every wait for it.
    pub fn raise(&self, signal: Shutdown) {
        self.raised.send_replace(Some(signal));
    }

    /// Returns a flag that this switch raises.
    pub fn flag(&self) -> StopFlag {
        StopFlag { source: Source::Switch(self.raised.subscribe()) }
    }
}

/// A request to stop early; once made, never withdrawn.
#[derive(Clone)]
pub struct StopFlag {
    source: Source,
}

#[derive(Clone)]
enum Source {
    Never,
    Switch(watch::Receiver<Option<Shutdown>>),
    Asking(Arc<dyn Fn() -> Option<Shutdown> + Send + Sync>),
    Either(Arc<[StopFlag; 2]>),
}

impl StopFlag {
    /// Returns a flag that nobody raises.
    pub fn never() -> Self {
        Self { source: Source::Never }
    }

    /// Returns a flag that calls `ask` at every check, for a condition that cannot raise a [`StopSwitch`]. A wait
    /// asks it from time to time.
    pub fn asking(ask: impl Fn() -> Option<Shutdown> + Send + Sync + 'static) -> Self {
        Self { source: Source::Asking(Arc::new(ask)) }
    }

    /// Returns a flag that the first SIGTERM or SIGINT of this process raises; a second one ends the process
    /// immediately. No signal is lost once this has returned.
    ///
    /// # Errors
    /// The system's, when signals cannot be listened for.
    pub fn listen() -> std::io::Result<Self> {
        let switch = StopSwitch::default();
        let flag = switch.flag();
        on_signal(move |signal| {
            switch.raise(signal);
            tracing::warn!("stopping; a second signal ends the process immediately");
        })?;
        Ok(flag)
    }

    /// Returns a flag that is raised once this one or `other` is.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        Self { source: Source::Either(Arc::new([self.clone(), other.clone()])) }
    }

    /// Returns the signal that requested the stop, if there was one.
    pub fn signal(&self) -> Option<Shutdown> {
        match &self.source {
            Source::Never => None,
            Source::Switch(raised) => *raised.borrow(),
            Source::Asking(ask) => ask(),
            Source::Either(flags) => flags.iter().find_map(Self::signal),
        }
    }

    /// Checks between two parts of a computation that no stop was requested.
    ///
    /// # Errors
    /// [`Stopped`] once one was.
    pub fn check(&self) -> Result<(), Stopped> {
        if self.signal().is_some() { Err(Stopped) } else { Ok(()) }
    }

    /// Completes when a stop is requested.
    pub fn raised(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            match &self.source {
                Source::Never => std::future::pending().await,
                Source::Switch(raised) => {
                    // A switch that is gone without a request can make none any more.
                    if raised.clone().wait_for(Option::is_some).await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
                Source::Asking(ask) => {
                    while ask().is_none() {
                        tokio::time::sleep(ASKING_INTERVAL).await;
                    }
                }
                Source::Either(flags) => {
                    let [one, other] = flags.as_ref();
                    tokio::select! {
                        () = one.raised() => {}
                        () = other.raised() => {}
                    }
                }
            }
        })
    }

    /// Blocks until `event` completes. Must not be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`Stopped`] if a stop is requested first.
    pub fn wait<T>(&self, event: impl Future<Output = T>) -> Result<T, Stopped> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime without input and output takes nothing from the system");
        runtime.block_on(async {
            tokio::select! {
                biased;
                outcome = pin!(event) => Ok(outcome),
                () = self.raised() => Err(Stopped),
            }
        })
    }
}

impl fmt::Debug for StopFlag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("StopFlag").finish_non_exhaustive()
    }
}

/// A section of work that a stop can prevent but not interrupt: it ends before the first part is committed, or after
/// the last.
#[derive(Debug)]
pub struct Uninterruptible {
    stop: StopFlag,
}

impl Uninterruptible {
    /// Begins a section that `stop` can still prevent.
    pub fn new(stop: &StopFlag) -> Self {
        Self { stop: stop.clone() }
    }

    /// Returns the flag that the next part has to check.
    pub fn stop(&self) -> &StopFlag {
        &self.stop
    }

    /// Commits a part: from here on the section runs to its end.
    pub fn commit(&mut self) {
        self.stop = StopFlag::never();
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const LIMIT: Duration = Duration::from_mins(1);

    /// An event that comes only if the stop does not.
    async fn too_late() {
        tokio::time::sleep(LIMIT).await;
    }

    #[test]
    fn a_check_answers_what_was_requested() {
        assert_eq!(StopFlag::never().signal(), None);
        assert_eq!(StopFlag::never().check(), Ok(()));
        let flag = StopFlag::asking(|| Some(Shutdown::Interrupt));
        assert_eq!(flag.clone().signal(), Some(Shutdown::Interrupt));
        assert_eq!(flag.check(), Err(Stopped));
        let switch = StopSwitch::default();
        let flag = switch.flag();
        assert_eq!(flag.check(), Ok(()));
        switch.raise(Shutdown::Terminate);
        assert_eq!(flag.signal(), Some(Shutdown::Terminate));
        assert_eq!(switch.flag().check(), Err(Stopped), "a later flag is raised as well");
    }

    #[test]
    fn a_wait_ends_with_its_event_or_with_the_stop() {
        assert_eq!(StopFlag::never().wait(async { 7 }), Ok(7));
        let switch = StopSwitch::default();
        let flag = switch.flag();
        std::thread::scope(|threads| {
            threads.spawn(|| switch.raise(Shutdown::Terminate));
            assert_eq!(flag.wait(too_late()), Err(Stopped));
        });
        assert_eq!(flag.wait(async { 7 }), Ok(7), "an event that has come counts");
        // Not at its first answer.
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let flag = StopFlag::asking(move || {
            (counted.fetch_add(1, Ordering::Relaxed) > 0).then_some(Shutdown::Terminate)
        });
        assert_eq!(flag.wait(too_late()), Err(Stopped));
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn either_of_two_flags_is_enough() {
        let (one, other) = (StopSwitch::default(), StopSwitch::default());
        let flag = one.flag().or(&other.flag());
        assert_eq!(flag.check(), Ok(()));
        other.raise(Shutdown::Interrupt);
        assert_eq!(flag.signal(), Some(Shutdown::Interrupt));
        assert_eq!(flag.wait(too_late()), Err(Stopped));
    }

    #[test]
    fn a_section_is_prevented_or_runs_to_its_end() {
        let switch = StopSwitch::default();
        let mut section = Uninterruptible::new(&switch.flag());
        assert_eq!(section.stop().check(), Ok(()));
        switch.raise(Shutdown::Terminate);
        assert_eq!(section.stop().check(), Err(Stopped));
        section.commit();
        assert_eq!(section.stop().check(), Ok(()));
    }

    /// This process survives the signal, which also shows that it is listened for.
    #[test]
    fn a_signal_raises_the_flag() {
        let flag = StopFlag::listen().unwrap();
        assert_eq!(flag.signal(), None);
        let pid = std::process::id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert_eq!(flag.wait(too_late()), Err(Stopped), "the signal was not seen");
        assert_eq!(flag.signal(), Some(Shutdown::Terminate));
    }
}
