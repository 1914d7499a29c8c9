//! The rate of requests to a service: a token bucket, in which callers wait in their order, and a hold,
//! which a service requests with `Retry-After` or with headers about its limits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

/// Longest hold, so that one absurd header does not end the use of a service.
pub const MAX_HOLD: Duration = Duration::from_mins(5);

/// The rate of requests to one service.
#[derive(Debug)]
pub struct Pace {
    /// The time between two requests in the long run; zero for no limit.
    interval: Duration,
    /// The time by which requests may be ahead of the long run.
    burst: Duration,
    /// The turn of the first caller in the queue, and the time at which a full bucket would be empty.
    turn: tokio::sync::Mutex<Instant>,
    waiting: AtomicUsize,
    held_until: Mutex<Instant>,
}

/// The error of a caller whose turn comes after its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLate;

impl Pace {
    /// Creates a full bucket of `burst_requests` that is filled with `requests_per_second`, or without a limit.
    pub fn new(requests_per_second: Option<f64>, burst_requests: usize) -> Self {
        let interval = requests_per_second
            .filter(|rate| *rate > 0.0)
            .and_then(|rate| Duration::try_from_secs_f64(1.0 / rate).ok())
            .unwrap_or_default();
        let now = Instant::now();
        Self {
            interval,
            burst: interval.saturating_mul(burst_requests.saturating_sub(1) as u32),
            turn: tokio::sync::Mutex::new(now),
            waiting: AtomicUsize::new(0),
            held_until: Mutex::new(now),
        }
    }

    /// Waits for a token. Fails at once if the deadline passes before a turn can come, and calls `is_vain` at each
    /// turn, to leave without a token.
    pub async fn wait(&self, deadline: Instant, is_vain: impl Fn() -> bool) -> Result<(), TooLate> {
        let now = Instant::now();
        let ahead = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _leaving = Leaving(&self.waiting);
        let queue = self.interval.saturating_mul(ahead as u32).saturating_sub(self.burst);
        if now + queue.min(MAX_HOLD) > deadline || self.held() > deadline {
            return Err(TooLate);
        }
        let mut emptied = timeout_at(deadline, self.turn.lock()).await.map_err(|_| TooLate)?;
        loop {
            if is_vain() {
                return Ok(());
            }
            let now = Instant::now();
            let earliest = emptied.checked_sub(self.burst).unwrap_or(now).max(self.held());
            if earliest <= now {
                *emptied = (*emptied).max(now) + self.interval;
                return Ok(());
            }
            if earliest > deadline {
                return Err(TooLate);
            }
            sleep_until(earliest).await;
        }
    }

    /// Lets no request start for a time, at most [`MAX_HOLD`]. A longer hold stays.
    pub fn hold(&self, time: Duration) {
        let until = Instant::now() + time.min(MAX_HOLD);
        let mut held = self.held_until.lock().unwrap_or_else(PoisonError::into_inner);
        *held = (*held).max(until);
    }

    fn held(&self) -> Instant {
        *self.held_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a caller out of the count when its future ends or is dropped.
struct Leaving<'a>(&'a AtomicUsize);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn never() -> bool {
        false
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_the_rest_follow_in_their_order() {
        let (pace, start) = (Arc::new(Pace::new(Some(2.0), 3)), Instant::now());
        let far = start + Duration::from_hours(1);
        let mut times_ms = Vec::new();
        for _ in 0..6 {
            pace.wait(far, never).await.unwrap();
            times_ms.push(start.elapsed().as_millis());
        }
        assert_eq!(times_ms, [0, 0, 0, 500, 1000, 1500]);
        // A pause fills the bucket again, but not beyond its size.
        tokio::time::advance(Duration::from_mins(10)).await;
        let start = Instant::now();
        for _ in 0..4 {
            pace.wait(far + Duration::from_hours(1), never).await.unwrap();
        }
        assert_eq!(start.elapsed().as_millis(), 500);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_cannot_be_in_time_fails_at_once() {
        let (pace, start) = (Arc::new(Pace::new(Some(1.0), 1)), Instant::now());
        let soon = start + Duration::from_secs(3);
        let waits = (0..10).map(|_| {
            let pace = Arc::clone(&pace);
            tokio::spawn(async move { pace.wait(soon, never).await })
        });
        let waits: Vec<_> = waits.collect();
        let mut passed = 0;
        for wait in waits {
            passed += usize::from(wait.await.unwrap().is_ok());
        }
        assert_eq!((passed, start.elapsed().as_secs()), (4, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_stops_everyone_and_is_bounded() {
        let (pace, start) = (Pace::new(None, 1), Instant::now());
        pace.hold(Duration::from_secs(1_000_000_000));
        pace.hold(Duration::from_secs(1));
        let far = start + Duration::from_hours(1);
        assert_eq!(pace.wait(start + Duration::from_secs(2), never).await, Err(TooLate));
        pace.wait(far, never).await.unwrap();
        assert_eq!(start.elapsed(), MAX_HOLD);
    }
}
