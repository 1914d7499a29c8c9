//! The health of one server among several: a server that fails is passed over for a growing pause, then gets one
//! request, and is used again after its first answer. Pure: the caller passes the time.
//!
//! Health only orders the servers. If all of them fail, they are asked all the same.

use std::time::Duration;

use tokio::time::Instant;

use crate::contract::retry::{Backoff, RetryPolicy};

/// Pauses of a server that fails. A longer `Retry-After` is obeyed up to `deadline`, beyond which half of it passes.
const PAUSES: RetryPolicy = RetryPolicy {
    first_pause: Duration::from_millis(500),
    max_pause: Duration::from_secs(30),
    deadline: Duration::from_mins(1),
};
/// Answers of another server, in succession, for which this server was too late, that count as a failure.
const LATE_MAX: u32 = 3;

/// The failures of a server since its last success.
#[derive(Debug, Default)]
pub(super) struct Health {
    failing: Option<Failing>,
    late_in_succession: u32,
}

#[derive(Debug)]
struct Failing {
    pauses: Backoff,
    pause: Duration,
    /// Time of the last failure. What began before it says nothing new.
    failed_at: Instant,
    passed_over_until: Instant,
}

impl Health {
    /// Returns the end of the pause in which the server is passed over, if it is.
    pub(super) fn passed_over_until(&self, now: Instant) -> Option<Instant> {
        self.failing.as_ref().map(|failing| failing.passed_over_until).filter(|until| now < *until)
    }

    /// Notes the beginning of a request. The first one after a pause is the only one until it ends, or until another
    /// pause has passed.
    pub(super) fn begin(&mut self, now: Instant) {
        if let Some(failing) = &mut self.failing
            && failing.passed_over_until <= now
        {
            failing.passed_over_until = now + failing.pause;
        }
    }

    /// Notes an answer to a request that began at `began`. Returns `true` if the server had failed before.
    pub(super) fn succeed(&mut self, began: Instant) -> bool {
        self.late_in_succession = 0;
        self.failing.take_if(|failing| failing.failed_at <= began).is_some()
    }

    /// Notes the failure of a request that began at `began`. Returns the pause, at least `requested`, unless the
    /// server failed since then: requests that fail together count once.
    pub(super) fn fail(
        &mut self,
        began: Instant,
        now: Instant,
        requested: Option<Duration>,
    ) -> Option<Duration> {
        self.late_in_succession = 0;
        if self.failing.as_ref().is_some_and(|failing| began < failing.failed_at) {
            return None;
        }
        let mut pauses =
            self.failing.take().map_or_else(|| Backoff::new(PAUSES), |failing| failing.pauses);
        let pause = pauses
            .next_pause(Duration::ZERO, requested)
            .expect("every pause is shorter than the deadline");
        let passed_over_until = now + pause;
        self.failing = Some(Failing { pauses, pause, failed_at: now, passed_over_until });
        Some(pause)
    }

    /// Notes that another server answered a request that this one still had. Returns the pause if that makes a
    /// failure: the server may accept requests and never answer.
    pub(super) fn lose(&mut self, began: Instant, now: Instant) -> Option<Duration> {
        self.late_in_succession += 1;
        if self.late_in_succession < LATE_MAX { None } else { self.fail(began, now, None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_grow_while_a_server_fails_and_an_answer_ends_them() {
        let mut health = Health::default();
        let mut now = Instant::now();
        assert_eq!(health.passed_over_until(now), None);
        for ceiling_ms in [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            let pause = health.fail(now, now, None).unwrap();
            let ceiling = Duration::from_millis(ceiling_ms);
            assert!(ceiling / 2 <= pause && pause <= ceiling, "{pause:?} {ceiling_ms}");
            assert_eq!(health.passed_over_until(now), Some(now + pause));
            now += pause;
            assert_eq!(health.passed_over_until(now), None, "tried again");
            health.begin(now);
            assert!(health.passed_over_until(now).is_some(), "one request tries it");
        }
        assert!(health.succeed(now));
        assert!(!health.succeed(now), "it had been well");
        assert_eq!(health.passed_over_until(now), None);
        assert!(health.fail(now, now, None).unwrap() <= SECOND, "the pauses begin anew");
    }

    #[test]
    fn requests_that_fail_together_count_once() {
        let mut health = Health::default();
        let began = Instant::now();
        let first = health.fail(began, began + SECOND, None).unwrap();
        for _ in 0..20 {
            assert_eq!(health.fail(began, began + 2 * SECOND, None), None);
        }
        assert!(!health.succeed(began), "an answer to what began before the failure");
        assert_eq!(health.passed_over_until(began + SECOND), Some(began + SECOND + first));
        let second = health.fail(began + 2 * SECOND, began + 3 * SECOND, None).unwrap();
        assert!(second <= SECOND && Duration::from_millis(500) <= second, "{second:?}");
    }

    #[test]
    fn a_requested_pause_is_obeyed_up_to_a_minute() {
        for (requested, least_s, most_s) in [(7, 7, 8), (59, 59, 60), (3600, 30, 31)] {
            let now = Instant::now();
            let requested = Some(Duration::from_secs(requested));
            let pause = Health::default().fail(now, now, requested).unwrap();
            assert!(least_s * SECOND <= pause && pause <= most_s * SECOND, "{pause:?}");
        }
    }

    #[test]
    fn a_server_that_is_late_three_times_in_succession_has_failed() {
        let mut health = Health::default();
        let now = Instant::now();
        assert_eq!((health.lose(now, now), health.lose(now, now)), (None, None));
        health.succeed(now);
        assert_eq!((health.lose(now, now), health.lose(now, now)), (None, None));
        assert!(health.lose(now, now).is_some());
        assert!(health.passed_over_until(now).is_some());
    }
}
