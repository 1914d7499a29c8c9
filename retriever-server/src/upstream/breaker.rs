//! The circuit breaker of a service. It is a state machine over times that are passed in.
//!
//! ```text
//! closed ── failures in a row ──▶ open ── time is up ──▶ probing ── success ──▶ closed
//!                                  ▲                        │
//!                                  └────── failure ─────────┘ (for twice as long)
//! ```

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row that open the breaker.
const FAILURES: u32 = 5;

/// First time for which it stays open; each failed probe doubles it.
const FIRST_REST: Duration = Duration::from_secs(5);

/// Longest time for which it stays open.
pub const MAX_REST: Duration = Duration::from_mins(5);

/// The breaker of one service.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    rest: Duration,
}

#[derive(Debug)]
enum State {
    /// Calls pass.
    Closed {
        /// Failures since the last success.
        failures: u32,
    },
    /// No call passes before `until`.
    Open { until: Instant, cause: Cause },
    /// One call is on its way, which decides.
    Probing { cause: Cause },
}

/// The reason why a breaker is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The failure that opened it.
    pub detail: String,
    /// `true` if the service may recover by itself; `false` if a person must act, such as after a refused key.
    pub is_retryable: bool,
}

impl Breaker {
    /// Creates a closed breaker.
    pub fn new() -> Self {
        Self { state: State::Closed { failures: 0 }, rest: FIRST_REST }
    }

    /// Returns the cause if no call can pass.
    pub fn refusal(&self, now: Instant) -> Option<Cause> {
        match &self.state {
            State::Closed { .. } => None,
            State::Open { until, cause } => (now < *until).then(|| cause.clone()),
            State::Probing { cause } => Some(cause.clone()),
        }
    }

    /// Lets a call pass, whose end must be reported. Returns `true` if the call is a probe.
    ///
    /// # Errors
    /// The cause of an open breaker.
    pub fn admit(&mut self, now: Instant) -> Result<bool, Cause> {
        match &self.state {
            State::Closed { .. } => Ok(false),
            State::Open { until, cause } if now >= *until => {
                self.state = State::Probing { cause: cause.clone() };
                Ok(true)
            }
            State::Open { cause, .. } | State::Probing { cause } => Err(cause.clone()),
        }
    }

    /// Notes a call that the service answered.
    pub fn succeed(&mut self) {
        self.state = State::Closed { failures: 0 };
        self.rest = FIRST_REST;
    }

    /// Notes a call that failed because of the service. A late failure of a call from before the breaker opened
    /// changes nothing.
    pub fn fail(&mut self, now: Instant, detail: &str) {
        match &mut self.state {
            State::Closed { failures } if *failures + 1 < FAILURES => *failures += 1,
            State::Closed { .. } | State::Probing { .. } => {
                let cause = Cause { detail: detail.to_owned(), is_retryable: true };
                self.open(now, self.rest, cause);
                self.rest = (self.rest * 2).min(MAX_REST);
            }
            State::Open { .. } => {}
        }
    }

    /// Opens the breaker for [`MAX_REST`], because every later call would fail too.
    pub fn refuse(&mut self, now: Instant, detail: &str) {
        let cause = Cause { detail: detail.to_owned(), is_retryable: false };
        self.open(now, MAX_REST, cause);
    }

    /// Notes a probe that was given up without a result: the next call is one.
    pub fn forget_probe(&mut self, now: Instant) {
        if let State::Probing { cause } = &self.state {
            self.state = State::Open { until: now, cause: cause.clone() };
        }
    }

    fn open(&mut self, now: Instant, rest: Duration, cause: Cause) {
        self.state = State::Open { until: now + rest, cause };
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(now: Instant) -> Breaker {
        let mut breaker = Breaker::new();
        for _ in 0..FAILURES {
            assert_eq!(breaker.admit(now), Ok(false));
            breaker.fail(now, "503");
        }
        breaker
    }

    #[tokio::test]
    async fn failures_in_a_row_open_it_and_one_probe_decides() {
        let start = Instant::now();
        let mut breaker = open(start);
        assert_eq!(breaker.admit(start).unwrap_err().detail, "503");
        let later = start + FIRST_REST;
        assert_eq!(breaker.admit(later), Ok(true));
        assert!(breaker.admit(later).is_err(), "one probe");
        breaker.fail(later, "504");
        assert!(breaker.admit(later + FIRST_REST).is_err(), "twice as long");
        assert_eq!(breaker.admit(later + FIRST_REST * 2), Ok(true));
        breaker.succeed();
        assert_eq!(breaker.admit(later), Ok(false));
    }

    #[tokio::test]
    async fn a_success_between_failures_keeps_it_closed() {
        let now = Instant::now();
        let mut breaker = Breaker::new();
        for _ in 0..10 {
            for _ in 0..FAILURES - 1 {
                breaker.fail(now, "500");
            }
            breaker.succeed();
        }
        assert_eq!(breaker.refusal(now), None);
    }

    #[tokio::test]
    async fn a_probe_without_a_result_is_repeated() {
        let start = Instant::now();
        let (mut breaker, later) = (open(start), start + FIRST_REST);
        assert_eq!(breaker.admit(later), Ok(true));
        breaker.forget_probe(later);
        assert_eq!(breaker.admit(later), Ok(true));
    }

    #[tokio::test]
    async fn a_refused_key_opens_it_at_once() {
        let now = Instant::now();
        let mut breaker = Breaker::new();
        breaker.refuse(now, "401");
        let cause = breaker.refusal(now + MAX_REST / 2).unwrap();
        assert_eq!(cause, Cause { detail: "401".to_owned(), is_retryable: false });
        assert_eq!(breaker.admit(now + MAX_REST), Ok(true));
    }
}
