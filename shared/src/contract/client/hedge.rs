//! A second request for the same queries when the first is late: when it is sent, how many there may be, and which
//! answer counts.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::time::Duration;

/// Latencies that are remembered, and fewest that say something.
const LATENCIES_MAX: usize = 256;
const LATENCIES_MIN: usize = 20;
/// Bounds of the wait before a second request.
const DELAY_MIN: Duration = Duration::from_millis(10);
const DELAY_MAX: Duration = Duration::from_secs(10);
/// Most second requests that may be saved up, in hundredths.
const SAVED_MAX: u32 = 1000;

/// The latencies of answers, and the budget of second requests: a share of all requests, so that servers which are slow
/// under load get little more of it.
#[derive(Debug)]
pub(super) struct Hedging {
    percent: u32,
    latencies: VecDeque<Duration>,
    /// Second requests that may be sent, in hundredths.
    saved: u32,
}

impl Hedging {
    /// Starts with an empty budget, to which each request adds `percent` hundredths of a second request.
    pub(super) fn new(percent: u32) -> Self {
        Self { percent, latencies: VecDeque::with_capacity(LATENCIES_MAX), saved: 0 }
    }

    /// Notes a request that is not a second one.
    pub(super) fn count_request(&mut self) {
        self.saved = (self.saved + self.percent).min(SAVED_MAX);
    }

    /// Notes the latency of an answer.
    pub(super) fn record(&mut self, latency: Duration) {
        if self.latencies.len() == LATENCIES_MAX {
            self.latencies.pop_front();
        }
        self.latencies.push_back(latency);
    }

    /// Returns the wait before a second request: 95 % of the latest answers came within it.
    pub(super) fn delay(&self) -> Duration {
        if self.latencies.len() < LATENCIES_MIN {
            return DELAY_MAX;
        }
        let mut sorted: Vec<Duration> = self.latencies.iter().copied().collect();
        sorted.sort_unstable();
        sorted[(sorted.len() * 95).div_ceil(100) - 1].clamp(DELAY_MIN, DELAY_MAX)
    }

    /// Takes a second request from the budget, if there is one left.
    pub(super) fn take(&mut self) -> bool {
        let left = self.saved.checked_sub(100);
        self.saved = left.unwrap_or(self.saved);
        left.is_some()
    }
}

/// One of two requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    First,
    Second,
}

/// Returns the first success of two requests, or both failures. The other request is dropped with its future.
pub(super) async fn first_success<T, E>(
    mut first: Pin<&mut impl Future<Output = Result<T, E>>>,
    second: impl Future<Output = Result<T, E>>,
) -> Result<(Sent, T), [E; 2]> {
    let mut second = pin!(second);
    tokio::select! {
        biased;
        outcome = &mut first => match outcome {
            Ok(answer) => Ok((Sent::First, answer)),
            Err(fault) => match second.await {
                Ok(answer) => Ok((Sent::Second, answer)),
                Err(other) => Err([fault, other]),
            },
        },
        outcome = &mut second => match outcome {
            Ok(answer) => Ok((Sent::Second, answer)),
            Err(fault) => match first.await {
                Ok(answer) => Ok((Sent::First, answer)),
                Err(other) => Err([other, fault]),
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    #[test]
    fn the_wait_is_the_bounded_95th_percentile_of_the_latest_answers() {
        let mut hedging = Hedging::new(5);
        assert_eq!(hedging.delay(), DELAY_MAX, "nothing is known");
        for ms in 1..=100 {
            hedging.record(Duration::from_millis(ms));
        }
        assert_eq!(hedging.delay(), Duration::from_millis(95));
        for _ in 0..LATENCIES_MAX {
            hedging.record(Duration::from_micros(80));
        }
        assert_eq!(hedging.delay(), DELAY_MIN, "the first answers are forgotten");
        for _ in 0..LATENCIES_MAX {
            hedging.record(Duration::from_mins(1));
        }
        assert_eq!(hedging.delay(), DELAY_MAX);
    }

    #[test]
    fn second_requests_stay_within_their_share() {
        for (percent, requests, expected) in [(5, 1000, 50), (100, 30, 30), (0, 1000, 0)] {
            let mut hedging = Hedging::new(percent);
            let mut sent = 0;
            for _ in 0..requests {
                hedging.count_request();
                sent += u32::from(hedging.take());
            }
            assert_eq!(sent, expected, "{percent} %");
        }
        let mut hedging = Hedging::new(5);
        for _ in 0..10_000 {
            hedging.count_request();
        }
        let saved = (0..100).filter(|_| hedging.take()).count();
        assert_eq!(saved, 10, "a long quiet time saves only a few");
    }

    /// Answers or fails after some milliseconds.
    async fn after(ms: u64, outcome: Result<&str, &str>) -> Result<String, String> {
        sleep(Duration::from_millis(ms)).await;
        outcome.map(str::to_owned).map_err(str::to_owned)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_success_counts_and_a_failure_waits_for_the_other() {
        type Outcome = (u64, Result<&'static str, &'static str>);
        type Case = (Outcome, Outcome, Result<Sent, [&'static str; 2]>, u64);
        let cases: [Case; 7] = [
            ((10, Ok("a")), (20, Ok("b")), Ok(Sent::First), 10),
            ((20, Ok("a")), (10, Ok("b")), Ok(Sent::Second), 10),
            ((10, Err("a")), (20, Ok("b")), Ok(Sent::Second), 20),
            ((20, Ok("a")), (10, Err("b")), Ok(Sent::First), 20),
            ((10, Ok("a")), (20, Err("b")), Ok(Sent::First), 10),
            ((10, Err("a")), (20, Err("b")), Err(["a", "b"]), 20),
            ((20, Err("a")), (10, Err("b")), Err(["a", "b"]), 20),
        ];
        for (first, second, expected, elapsed_ms) in cases {
            let started = Instant::now();
            let mut first = pin!(after(first.0, first.1));
            let outcome = first_success(first.as_mut(), after(second.0, second.1)).await;
            let outcome = outcome.map(|(sent, _)| sent);
            assert_eq!(outcome, expected.map_err(|faults| faults.map(str::to_owned)));
            assert_eq!(started.elapsed(), Duration::from_millis(elapsed_ms));
        }
    }
}
