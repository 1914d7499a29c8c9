//! Requests that are repeated while an engine does not answer, within a deadline.

use std::time::Duration;

use shared::contract::retry::{Backoff, RetryPolicy};
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::{EngineConfig, EngineError};

/// The first pause. Later ones double.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause, unless the engine requests a longer one.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Repeats requests to an engine.
#[derive(Clone, Debug)]
pub struct Patience {
    engine: &'static str,
    url: String,
    policy: RetryPolicy,
    /// The longest time for one attempt.
    attempt: Duration,
}

impl Patience {
    /// Creates a patience that ends `limit` after the start of a request. One attempt takes at most `attempt`.
    pub fn new(config: &EngineConfig, limit: Duration, attempt: Duration) -> Self {
        let policy =
            RetryPolicy { first_pause: FIRST_PAUSE, max_pause: MAX_PAUSE, deadline: limit };
        Self { engine: config.kind.name(), url: config.url.to_string(), policy, attempt }
    }

    /// Sends a request until it is answered or refused, or until the time is over. `attempt` gets the time that
    /// is left.
    pub async fn ask<T, F>(&self, mut attempt: impl FnMut(Duration) -> F) -> Result<T, EngineError>
    where
        F: Future<Output = Result<T, EngineError>>,
    {
        let started = Instant::now();
        let mut backoff = Backoff::new(self.policy);
        loop {
            let left = self.policy.deadline.saturating_sub(started.elapsed()).min(self.attempt);
            let outcome = match timeout(left, attempt(left)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(self.late(left)),
            };
            let error = match outcome {
                Err(error) if error.is_retryable() => error,
                other => return other,
            };
            let Some(pause) = backoff.next_pause(started.elapsed(), error.pause()) else {
                return Err(error);
            };
            warn!(%error, pause_ms = pause.as_millis(), "a request to the engine is repeated");
            tokio::time::sleep(pause).await;
        }
    }

    fn late(&self, limit: Duration) -> EngineError {
        EngineError::Unavailable {
            engine: self.engine,
            url: self.url.clone(),
            reason: format!("no answer within {} ms", limit.as_millis()),
            pause: None,
        }
    }
}
