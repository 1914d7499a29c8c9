//! Bounded waits for a state or an event. They fail with what they saw last.

use std::fmt::Debug;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use crate::harness::http::PATIENCE;

/// Calls `observe` until `is_reached` accepts the result. Panics with the last result after `limit`.
pub(crate) async fn wait_until<T: Debug>(
    limit: Duration,
    observe: impl AsyncFn() -> T,
    is_reached: impl Fn(&T) -> bool,
) {
    let started = Instant::now();
    loop {
        let seen = observe().await;
        if is_reached(&seen) {
            return;
        }
        assert!(started.elapsed() < limit, "not reached within {limit:?}; last seen: {seen:?}");
        tokio::task::yield_now().await;
    }
}

/// Receives events until `wanted`. Panics with the last event if none arrives within [`PATIENCE`].
pub(crate) fn wait_for_event<E: Copy + Debug + PartialEq>(events: &Receiver<E>, wanted: E) {
    let mut last = None;
    while last != Some(wanted) {
        match events.recv_timeout(PATIENCE) {
            Ok(event) => last = Some(event),
            Err(error) => panic!("no {wanted:?}: {error}; the last event was {last:?}"),
        }
    }
}
