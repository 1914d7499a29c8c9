//! Lets so many in at once, and makes others wait.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How often one that waits asks whether it still should.
const ASKING_INTERVAL: Duration = Duration::from_millis(5);

/// Counts those who may still come in.
#[derive(Debug)]
pub(super) struct Gate {
    free: Mutex<usize>,
    left: Condvar,
}

/// One that is in, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a Gate);

impl Gate {
    pub(super) fn new(places: usize) -> Self {
        Self { free: Mutex::new(places), left: Condvar::new() }
    }

    /// Waits for a place; `None` once `stop` says so.
    pub(super) fn enter(&self, stop: &dyn Fn() -> bool) -> Option<Turn<'_>> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if stop() {
                return None;
            }
            if *free > 0 {
                *free -= 1;
                return Some(Turn(self));
            }
            let waited = self.left.wait_timeout(free, ASKING_INTERVAL);
            free = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.left.notify_one();
    }
}
