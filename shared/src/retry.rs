//! When to try again: jittered exponential back-off under an overall deadline.
//!
//! Owns the arithmetic only. It neither sleeps nor reads a clock, so that the schedule can be
//! tested as a plain function of elapsed time.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::splitmix;

/// The limits of one operation that is tried several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Upper end of the first pause; each later pause may be twice as long.
    pub first_pause: Duration,
    /// Upper end of every pause, unless the server asks for more.
    pub max_pause: Duration,
    /// From the start of the first attempt; no pause is begun that would end after it.
    pub deadline: Duration,
}

impl Default for RetryPolicy {
    /// Rides out a server that is restarted, without hammering one that is overloaded.
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
    /// Pauses that differ from process to process and from operation to operation, so that clients
    /// that failed together do not come back together.
    pub fn new(policy: RetryPolicy) -> Self {
        Self::seeded(policy, RandomState::new().hash_one(0_u64))
    }

    /// Pauses decided by `seed`.
    pub fn seeded(policy: RetryPolicy, seed: u64) -> Self {
        Self { policy, pauses: 0, random: seed }
    }

    /// The pause before the next attempt, or `None` when there is no time for one. `elapsed` counts
    /// from the start of the first attempt; `asked` is what the server asked for (`Retry-After`)
    /// and is waited for at least, while time is left.
    pub fn next_pause(&mut self, elapsed: Duration, asked: Option<Duration>) -> Option<Duration> {
        let doubled = self.policy.first_pause.saturating_mul(1 << self.pauses.min(30));
        let ceiling = doubled.min(self.policy.max_pause);
        self.pauses = self.pauses.saturating_add(1);
        // Between half the ceiling and all of it: spread out, yet never immediate.
        let jittered = ceiling.mul_f64(0.5 + 0.5 * self.next_unit());
        let pause = asked.map_or(jittered, |asked| asked.saturating_add(jittered));
        let left = self.policy.deadline.checked_sub(elapsed)?;
        (pause < left).then_some(pause)
    }

    /// A number in [0, 1).
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
    fn pauses_double_up_to_the_limit_and_lie_in_the_upper_half() {
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
        assert_eq!(backoff.next_pause(Duration::ZERO, Some(Duration::from_secs(1))), None);
    }

    #[test]
    fn what_the_server_asks_for_is_waited_for_at_least() {
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
