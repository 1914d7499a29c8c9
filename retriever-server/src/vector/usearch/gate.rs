//! A limit on concurrent searches. Searches over the limit wait.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The time between two checks whether a waiting search should stop.
const STOP_INTERVAL: Duration = Duration::from_millis(5);

/// A limit on concurrent searches.
#[derive(Debug)]
pub(super) struct Gate {
    /// The number of free permits.
    free: Mutex<usize>,
    /// Notified when a permit is returned.
    returned: Condvar,
}

/// The permission to search, until it is dropped.
#[derive(Debug)]
pub(super) struct Permit<'a>(&'a Gate);

impl Gate {
    pub(super) fn new(permits: usize) -> Self {
        Self { free: Mutex::new(permits), returned: Condvar::new() }
    }

    /// Waits for a permit; returns `None` once `stop` returns `true`.
    pub(super) fn enter(&self, stop: &dyn Fn() -> bool) -> Option<Permit<'_>> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if stop() {
                return None;
            }
            if *free > 0 {
                *free -= 1;
                return Some(Permit(self));
            }
            let waited = self.returned.wait_timeout(free, STOP_INTERVAL);
            free = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.returned.notify_one();
    }
}
