//! The observed rate of queries: how many end in a second while there is work, and how many are refused.

use std::time::Duration;

use tokio::time::Instant;

/// The least time that a rate is measured over.
const WINDOW: Duration = Duration::from_millis(50);
/// The share of the newest window in the rate.
const NEWEST: f64 = 0.3;
/// The time after which a refused query counts for 1/e.
const MEMORY: Duration = Duration::from_secs(1);

/// The rates of one server.
#[derive(Debug, Default)]
pub(super) struct Rate {
    /// The rate while queries wait, which is the capacity.
    full: Windows,
    /// The rate while any query is in flight, which is at most the capacity.
    busy: Windows,
    refused: f64,
    refused_at: Option<Instant>,
}

/// A moving average over windows of the time in which a state lasts, with pauses between.
#[derive(Debug, Default)]
struct Windows {
    /// The time from which on the state lasts, if it does.
    since: Option<Instant>,
    lasted: Duration,
    queries: usize,
    per_s: Option<f64>,
}

impl Windows {
    /// Counts queries that end now, in windows of at least `least`. The state ends unless it `goes_on`.
    fn count(&mut self, queries: usize, goes_on: bool, least: Duration, now: Instant) {
        if let Some(since) = self.since {
            self.lasted += now.saturating_duration_since(since);
            self.queries += queries;
        }
        self.since = goes_on.then_some(now);
        if self.lasted >= least && !self.lasted.is_zero() {
            let newest = self.queries as f64 / self.lasted.as_secs_f64();
            self.per_s = Some(match self.per_s {
                Some(before) => before + NEWEST * (newest - before),
                None => newest,
            });
            (self.lasted, self.queries) = (Duration::ZERO, 0);
        }
    }
}

impl Rate {
    /// Notes that work begins after none was in flight.
    pub(super) fn start(&mut self, now: Instant) {
        self.busy.since.get_or_insert(now);
    }

    /// Counts queries that end. Others wait if it `is_full`; others are in flight or wait if it `is_busy`.
    pub(super) fn end(&mut self, queries: usize, is_full: bool, is_busy: bool, now: Instant) {
        self.full.count(queries, is_full, WINDOW, now);
        // The first estimate must come soon: without one, nobody is refused for a long wait.
        let least = if self.busy.per_s.is_none() { Duration::ZERO } else { WINDOW };
        self.busy.count(queries, is_busy, least, now);
    }

    /// Returns the queries per second of a full server. The rate of a busy one is a lower bound, which matters if
    /// nobody has waited for long, perhaps because a rate of worse times says that waits are too long.
    pub(super) fn per_s(&self) -> Option<f64> {
        let [full, busy] = [self.full.per_s, self.busy.per_s].map(|rate| rate.unwrap_or(0.0));
        Some(full.max(busy)).filter(|per_s| *per_s > 0.0)
    }

    /// Counts refused queries, and returns the number of those that were refused lately.
    pub(super) fn refuse(&mut self, queries: usize, now: Instant) -> f64 {
        let age = self.refused_at.map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        let decay = (-age.as_secs_f64() / MEMORY.as_secs_f64()).exp();
        self.refused = self.refused * decay + queries as f64;
        self.refused_at = Some(now);
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_a_full_server_if_it_was_full() {
        let mut rate = Rate::default();
        let mut now = Instant::now();
        assert_eq!(rate.per_s(), None);
        // One at a time: 100 per second, though two would be answered at once.
        for _ in 0..20 {
            rate.start(now);
            now += Duration::from_millis(10);
            rate.end(1, false, false, now);
            now += Duration::from_secs(1);
        }
        assert!((rate.per_s().unwrap() - 100.0).abs() < 1.0, "{rate:?}");
        for _ in 0..100 {
            now += Duration::from_millis(10);
            rate.end(2, true, true, now);
        }
        assert!((rate.per_s().unwrap() - 200.0).abs() < 1.0, "{rate:?}");
    }

    /// A server that was slow once, and then has nobody wait because of that.
    #[test]
    fn a_low_rate_does_not_last() {
        let mut rate = Rate::default();
        let mut now = Instant::now();
        rate.start(now);
        for _ in 0..10 {
            now += Duration::from_secs(1);
            rate.end(1, true, true, now);
        }
        rate.end(0, false, false, now);
        assert!((rate.per_s().unwrap() - 1.0).abs() < 0.01, "{rate:?}");
        for _ in 0..200 {
            rate.start(now);
            now += Duration::from_millis(10);
            rate.end(1, false, false, now);
            now += Duration::from_millis(1);
        }
        assert!((rate.per_s().unwrap() - 100.0).abs() < 1.0, "{rate:?}");
    }

    #[test]
    fn refused_queries_are_forgotten() {
        let mut rate = Rate::default();
        let now = Instant::now();
        assert!((rate.refuse(5, now) - 5.0).abs() < 1e-9);
        assert!((rate.refuse(5, now) - 10.0).abs() < 1e-9);
        assert!(rate.refuse(0, now + Duration::from_secs(20)) < 1e-6);
    }
}
