//! The calls of ONNX Runtime that are running. The library frees its state when the process exits, and a call that
//! still runs then logs errors or crashes. So the program waits for the running calls first, and no later one begins.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The calls of the process.
static CALLS: Calls = Calls::new();

/// A call that is running until this value is dropped.
#[derive(Debug)]
pub(super) struct Call(&'static Calls);

/// Begins a call. Once [`end`] was called, this never returns: the process is about to exit.
pub(super) fn begin() -> Call {
    CALLS.begin();
    Call(&CALLS)
}

/// Waits for the running calls, but at most `limit`, and lets no other begin. Returns `false` if one still runs.
pub fn end(limit: Duration) -> bool {
    CALLS.end(limit)
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.finish();
    }
}

#[derive(Debug)]
struct Calls {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    running: usize,
    has_ended: bool,
}

impl Calls {
    const fn new() -> Self {
        Self { state: Mutex::new(State { running: 0, has_ended: false }), changed: Condvar::new() }
    }

    fn begin(&self) {
        let mut state = self.lock();
        while state.has_ended {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.running += 1;
    }

    fn finish(&self) {
        self.lock().running -= 1;
        self.changed.notify_all();
    }

    fn end(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let mut state = self.lock();
        state.has_ended = true;
        while state.running > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Locks the state. Nothing panics while it is locked, so a poisoned lock still guards a sound state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn the_end_waits_for_running_calls_and_keeps_others_out() {
        let calls = Arc::new(Calls::new());
        calls.begin();
        assert!(!calls.end(Duration::ZERO), "a call is running");
        let has_begun = Arc::new(AtomicBool::new(false));
        let begun = Arc::clone(&has_begun);
        let later = Arc::clone(&calls);
        // Never ends: the process would exit.
        thread::spawn(move || {
            later.begin();
            begun.store(true, Ordering::SeqCst);
        });
        let waiting = Arc::clone(&calls);
        let end = thread::spawn(move || waiting.end(Duration::from_mins(1)));
        calls.finish();
        assert!(end.join().unwrap());
        assert!(!has_begun.load(Ordering::SeqCst), "a call began after the end");
    }
}
