//! A service with everything that keeps calls of it bounded: a deadline, a time limit of each attempt, the
//! rate of requests, a number of requests on their way, a breaker, and retries under one budget.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::StatusCode;
use shared::contract::client::pause;
use shared::contract::retry::{Backoff, RetryPolicy};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};
use tower::retry::budget::{Budget, TpsBudget};

use super::breaker::{Breaker, Cause};
use super::context;
use super::exchange::{Exchange, ExchangeFault, Reply, Request};
use super::pace::{Pace, TooLate};
use super::secret::Secret;

/// The time for which a request earns retries.
const BUDGET_TTL: Duration = Duration::from_secs(10);

/// Retries per second that are always allowed.
const BUDGET_MIN_PER_SECOND: u32 = 3;

/// Retries per request in the long run.
const BUDGET_SHARE: f32 = 0.2;

/// Longest part of a service's own message that is shown.
const MAX_DETAIL_CHARS: usize = 300;

/// The limits of calls of one service.
#[derive(Clone, Debug)]
pub struct ServiceLimits {
    /// Time limit of one attempt, from connecting to the last byte.
    pub attempt_timeout: Duration,
    /// Requests per second in the long run; `None` for no limit.
    pub requests_per_second: Option<f64>,
    /// Requests that may be ahead of the long run.
    pub burst_requests: usize,
    /// Requests that are on their way concurrently.
    pub max_concurrent_requests: usize,
    /// Upper limit of the first pause before a retry; each later one is twice as long.
    pub first_pause: Duration,
    /// Upper limit of every pause, unless the service requests a longer one.
    pub max_pause: Duration,
}

/// The allowance of retries, shared by services whose retries should be limited together.
#[derive(Clone)]
pub struct RetryBudget(Arc<TpsBudget>);

impl RetryBudget {
    /// Creates a budget: a fifth of the requests may be retried, and a few retries per second in any case.
    pub fn new() -> Self {
        Self(Arc::new(TpsBudget::new(BUDGET_TTL, BUDGET_MIN_PER_SECOND, BUDGET_SHARE)))
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RetryBudget")
    }
}

/// A failed attempt, as the reader of a reply reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason in the words of the service.
    pub detail: String,
    /// The next step.
    pub remedy: Remedy,
}

/// The next step after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Try again; the service may be broken.
    Retry,
    /// Try again after the pause that the service requests: it works, but is busy.
    Wait,
    /// Do not try this request again; another one may succeed.
    GiveUp,
    /// Do not call the service again for some time: every request would fail.
    Refuse,
}

/// The reason why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallFault {
    /// The deadline passed, or no request could start before it.
    #[error("{service}: no answer before the deadline{}", after(last.as_ref()))]
    Deadline {
        /// Name of the service.
        service: &'static str,
        /// The last failure, if there was one.
        last: Option<String>,
    },
    /// The service failed.
    #[error("{service}: {detail}")]
    Failed {
        /// Name of the service.
        service: &'static str,
        /// The reason, without keys.
        detail: String,
        /// `true` if the same call may succeed later.
        is_retryable: bool,
    },
}

fn after(last: Option<&String>) -> String {
    last.map(|last| format!(", last: {last}")).unwrap_or_default()
}

/// A service.
#[derive(Debug)]
pub struct Service {
    name: &'static str,
    exchange: Arc<dyn Exchange>,
    limits: ServiceLimits,
    pace: Pace,
    slots: Semaphore,
    breaker: Mutex<Breaker>,
    retries: RetryBudget,
    secret: Option<Secret>,
}

impl Service {
    /// Creates a service whose requests go over `exchange`. `secret` is removed from all messages.
    pub fn new(
        name: &'static str,
        exchange: Arc<dyn Exchange>,
        limits: ServiceLimits,
        retries: RetryBudget,
        secret: Option<Secret>,
    ) -> Self {
        let pace = Pace::new(limits.requests_per_second, limits.burst_requests);
        let slots = Semaphore::new(limits.max_concurrent_requests.max(1));
        let breaker = Mutex::new(Breaker::new());
        Self { name, exchange, limits, pace, slots, breaker, retries, secret }
    }

    /// Returns the name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the cause if the breaker is open.
    pub fn refusal(&self) -> Option<Cause> {
        self.breaker().refusal(Instant::now())
    }

    /// Lets no request start for a time.
    pub fn hold(&self, time: Duration) {
        self.pace.hold(time);
    }

    /// Sends `request` until `read` makes an answer of a reply.
    ///
    /// # Errors
    /// A fault before or at `deadline`, when retries do not help or are used up.
    pub async fn call<T>(
        &self,
        request: &Request,
        read: impl Fn(&Reply) -> Result<T, Failure>,
        deadline: Instant,
    ) -> Result<T, CallFault> {
        let answer = self.call_until_answered(request, read, deadline).await;
        let outcome = match &answer {
            Ok(_) => "answered",
            Err(CallFault::Deadline { .. }) => "deadline",
            Err(CallFault::Failed { .. }) => "failed",
        };
        let is_open = self.refusal().is_some();
        context::observe(|observation| observation.metrics.call(self.name, outcome, is_open));
        answer
    }

    async fn call_until_answered<T>(
        &self,
        request: &Request,
        read: impl Fn(&Reply) -> Result<T, Failure>,
        deadline: Instant,
    ) -> Result<T, CallFault> {
        self.retries.0.deposit();
        let start = Instant::now();
        let mut backoff = Backoff::new(RetryPolicy {
            first_pause: self.limits.first_pause,
            max_pause: self.limits.max_pause,
            deadline: deadline.saturating_duration_since(start),
        });
        let mut last = None;
        loop {
            let attempt = self.attempt(request, deadline).await;
            let (mark, outcome) = match attempt {
                Ok((mark, outcome)) => (mark, outcome),
                Err(Refusal::Open(cause)) => {
                    let Cause { detail, is_retryable } = cause;
                    let detail = format!("not called after: {detail}");
                    return Err(CallFault::Failed { service: self.name, detail, is_retryable });
                }
                Err(Refusal::TooLate) => {
                    return Err(CallFault::Deadline { service: self.name, last });
                }
            };
            let reply = match outcome {
                Ok(reply) => read(&reply).map_err(|failure| (failure, requested(&reply))),
                Err(failure) => Err((failure, None)),
            };
            let (failure, requested) = match reply {
                Ok(answer) => {
                    mark.end(Breaker::succeed);
                    return Ok(answer);
                }
                Err(failed) => failed,
            };
            let detail = self.shown(&failure.detail);
            let now = Instant::now();
            match failure.remedy {
                Remedy::Retry => mark.end(|breaker| breaker.fail(now, &detail)),
                Remedy::Wait | Remedy::GiveUp => mark.end(Breaker::succeed),
                Remedy::Refuse => mark.end(|breaker| breaker.refuse(now, &detail)),
            }
            if let Some(pause) = requested {
                self.pace.hold(pause);
            }
            let is_retryable = matches!(failure.remedy, Remedy::Retry | Remedy::Wait);
            // Once the breaker is open, another service should be asked, not this one again.
            if !is_retryable || self.refusal().is_some() || !self.retries.0.withdraw() {
                return Err(CallFault::Failed { service: self.name, detail, is_retryable });
            }
            // A pause that the service requests is kept by the hold, for every caller.
            let Some(pause) = backoff.next_pause(start.elapsed(), None) else {
                return Err(CallFault::Deadline { service: self.name, last: Some(detail) });
            };
            last = Some(detail);
            sleep(pause).await;
        }
    }

    /// Waits for its turn and sends the request once.
    async fn attempt(
        &self,
        request: &Request,
        deadline: Instant,
    ) -> Result<(Mark<'_>, Result<Reply, Failure>), Refusal> {
        if let Some(cause) = self.refusal() {
            return Err(Refusal::Open(cause));
        }
        let is_vain = || self.refusal().is_some();
        self.pace.wait(deadline, is_vain).await.map_err(|TooLate| Refusal::TooLate)?;
        let _slot = timeout_at(deadline, self.slots.acquire())
            .await
            .ok()
            .and_then(Result::ok)
            .ok_or(Refusal::TooLate)?;
        let mark = Mark::admit(self).map_err(Refusal::Open)?;
        let limit = deadline.min(Instant::now() + self.limits.attempt_timeout);
        let mut request = request.clone();
        let span = context::begin(self.name, request.headers_mut());
        let sent = timeout_at(limit, self.exchange.send(request)).await;
        match &sent {
            Ok(Ok(reply)) => {
                span.set("http.response.status_code", i64::from(reply.status.as_u16()));
            }
            Ok(Err(fault)) => span.fail(self.shown(&fault.to_string())),
            Err(_) => span.fail("no reply in time"),
        }
        drop(span);
        let outcome = match sent {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(fault)) => Err(Failure {
                detail: fault.to_string(),
                remedy: match fault {
                    ExchangeFault::Broken(_) => Remedy::Retry,
                    ExchangeFault::TooLarge { .. } | ExchangeFault::Withheld(_) => Remedy::GiveUp,
                },
            }),
            // The caller's haste is not the service's failure.
            Err(_) if limit == deadline => return Err(Refusal::TooLate),
            Err(_) => Err(Failure {
                detail: format!("no reply within {} ms", self.limits.attempt_timeout.as_millis()),
                remedy: Remedy::Retry,
            }),
        };
        Ok((mark, outcome))
    }

    /// Returns a message without the key, on one line and not too long.
    fn shown(&self, detail: &str) -> String {
        let redacted = match &self.secret {
            Some(secret) => secret.redact(detail),
            None => detail.to_owned(),
        };
        let words: Vec<&str> = redacted.split_whitespace().collect();
        words.join(" ").chars().take(MAX_DETAIL_CHARS).collect()
    }

    /// Locks the breaker, whose methods cannot fail half-way.
    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reason why no attempt was made.
enum Refusal {
    Open(Cause),
    TooLate,
}

/// An attempt that the breaker admitted. If it is dropped without an end, its caller has gone.
struct Mark<'a> {
    service: &'a Service,
    is_probe: bool,
}

impl<'a> Mark<'a> {
    fn admit(service: &'a Service) -> Result<Self, Cause> {
        let is_probe = service.breaker().admit(Instant::now())?;
        Ok(Self { service, is_probe })
    }

    /// Reports the end to the breaker.
    fn end(mut self, report: impl FnOnce(&mut Breaker)) {
        report(&mut self.service.breaker());
        self.is_probe = false;
    }
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        if self.is_probe {
            self.service.breaker().forget_probe(Instant::now());
        }
    }
}

/// Returns the pause that a reply of an overloaded or failing service requests.
fn requested(reply: &Reply) -> Option<Duration> {
    let is_about_time = reply.status == StatusCode::TOO_MANY_REQUESTS
        || reply.status == StatusCode::SERVICE_UNAVAILABLE;
    is_about_time.then(|| pause::requested(&reply.headers, SystemTime::now())).flatten()
}
