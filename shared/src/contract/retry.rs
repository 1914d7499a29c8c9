//! The schedule of retries: jittered exponential back-off with an overall deadline.
//!
//! Owns only the arithmetic. It neither sleeps nor reads a clock, so tests can treat the schedule as a function of
//! elapsed time.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::contract::splitmix;

/// Longest pause after a server requested one that ends after the deadline.
pub const MAX_UNFIT_PAUSE: Duration = Duration::from_secs(30);

/// The limits of an operation that may be retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Upper limit of the first pause; each later limit is twice the one before.
    pub first_pause: Duration,
    /// Upper limit of every pause, unless the server requests a longer one.
    pub max_pause: Duration,
    /// Time from the start of the first attempt after which no pause may end.
    pub deadline: Duration,
}

impl Default for RetryPolicy {
    /// Returns limits that survive the restart of a server and do not add load to an overloaded one.
    fn default() -> Self {
        Self {
            first_pause: Duration::from_millis(200),
            max_pause: Duration::from_secs(5),
            deadline: Duration::from_mins(2),
        }
    }
}

/// The pauses of one operation.
#[derive(Clone, Debug)]
pub struct Backoff {
    policy: RetryPolicy,
    pauses: u32,
    random: u64,
}

impl Backoff {
    /// Starts with random pauses, so that clients that failed together do not retry together.
    pub fn new(policy: RetryPolicy) -> Self {
        Self::seeded(policy, RandomState::new().hash_one(0_u64))
    }

    /// Starts with pauses that `seed` determines.
    pub fn seeded(policy: RetryPolicy, seed: u64) -> Self {
        Self { policy, pauses: 0, random: seed }
    }

    /// Returns the pause before the next attempt, or `None` if there is no time for another attempt. `elapsed`
    /// counts from the start of the first attempt. The pause is at least `requested`, which is the server's
    /// `Retry-After`. A request that does not fit before the deadline is not obeyed, since that would be giving up
    /// because of one header: the pause is then half of the remaining time, and at most [`MAX_UNFIT_PAUSE`].
    pub fn next_pause(
        &mut self,
        elapsed: Duration,
        requested: Option<Duration>,
    ) -> Option<Duration> {
        let doubled = self.policy.first_pause.saturating_mul(1 << self.pauses.min(30));
        let ceiling = doubled.min(self.policy.max_pause);
        self.pauses = self.pauses.saturating_add(1);
        // Between half the ceiling and all of it: spread out, but never immediate.
        let jittered = ceiling.mul_f64(0.5 + 0.5 * self.next_unit());
        let remaining = self.policy.deadline.checked_sub(elapsed)?;
        let requested = requested.map(|requested| requested.saturating_add(jittered));
        let pause = match requested {
            None => jittered,
            Some(pause) if pause < remaining => pause,
            Some(_) => jittered.max(MAX_UNFIT_PAUSE.min(remaining / 2)),
        };
        (pause < remaining).then_some(pause)
    }

    /// Draws a number in [0, 1).
    fn next_unit(&mut self) -> f64 {
        splitmix::unit(splitmix::next(&mut self.random))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(deadline_ms: u64) -> RetryPolicy {
        RetryPolicy {
            first_pause: Duration::from_millis(100),
            max_pause: Duration::from_secs(1),
            deadline: Duration::from_millis(deadline_ms),
        }
    }

    #[test]
    fn pauses_double_up_to_the_limit_and_are_in_the_upper_half() {
        for seed in 0..50 {
            let mut backoff = Backoff::seeded(policy(1_000_000), seed);
            for ceiling_ms in [100, 200, 400, 800, 1000, 1000, 1000] {
                let pause = backoff.next_pause(Duration::ZERO, None).unwrap();
                assert!(pause >= Duration::from_millis(ceiling_ms / 2), "{pause:?} {ceiling_ms}");
                assert!(pause <= Duration::from_millis(ceiling_ms), "{pause:?} {ceiling_ms}");
            }
        }
    }

    #[test]
    fn pauses_differ_between_operations() {
        let pauses: std::collections::BTreeSet<Duration> = (0..20)
            .map(|seed| Backoff::seeded(policy(10_000), seed))
            .map(|mut backoff| backoff.next_pause(Duration::ZERO, None).unwrap())
            .collect();
        assert!(pauses.len() > 15, "{pauses:?}");
    }

    #[test]
    fn no_pause_ends_after_the_deadline() {
        let mut backoff = Backoff::seeded(policy(500), 1);
        assert_eq!(backoff.next_pause(Duration::from_millis(500), None), None);
        assert_eq!(backoff.next_pause(Duration::from_millis(700), None), None);
    }

    #[test]
    fn a_request_that_ends_after_the_deadline_is_cut() {
        let requested = Some(Duration::MAX);
        let mut backoff = Backoff::seeded(policy(1000), 1);
        let pause = backoff.next_pause(Duration::from_millis(200), requested).unwrap();
        assert_eq!(pause, Duration::from_millis(400), "half of what remains");
        let mut backoff = Backoff::seeded(policy(3_600_000), 1);
        assert_eq!(backoff.next_pause(Duration::ZERO, requested), Some(MAX_UNFIT_PAUSE));
        let mut backoff = Backoff::seeded(policy(100), 1);
        assert_eq!(backoff.next_pause(Duration::from_millis(80), requested), None);
    }

    #[test]
    fn a_pause_is_at_least_as_long_as_the_server_requests() {
        let mut backoff = Backoff::seeded(policy(10_000), 1);
        let asked = Duration::from_secs(3);
        let pause = backoff.next_pause(Duration::ZERO, Some(asked)).unwrap();
        assert!(pause >= asked, "{pause:?}");
    }

    #[test]
    fn many_failures_do_not_overflow() {
        let mut backoff = Backoff::seeded(policy(u64::MAX), 3);
        for _ in 0..200 {
            assert!(backoff.next_pause(Duration::ZERO, None).is_some());
        }
    }
}
