//! One exchange of JSON with a service: time limit, retries with back-off and `Retry-After`, and a bound of concurrent
//! requests. A further request waits for its turn, so a slow service slows the trainer and is not flooded by it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use reqwest::{Client, StatusCode};
use serde_json::Value;
use shared::contract::client::pause;
use shared::contract::retry::{Backoff, RetryPolicy};
use shared::machine::http::{client_builder, redirects_within_server, with_causes};
use tokio::sync::Semaphore;

use super::OutsideError;

/// Characters of an error body that are shown.
const ERROR_BODY_CHARS: usize = 300;
/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Address and limits of a service.
#[derive(Clone)]
pub struct EndpointSettings {
    /// Address to which requests are posted.
    pub url: String,
    /// Key sent as `Authorization: Bearer`.
    pub api_key: Option<String>,
    /// Time limit of one attempt.
    pub attempt_timeout: Duration,
    /// Pauses between attempts, and the time limit of all of them.
    pub retry: RetryPolicy,
    /// Most concurrent requests.
    pub max_in_flight: usize,
}

impl fmt::Debug for EndpointSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("EndpointSettings").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A service that answers JSON with JSON.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    settings: EndpointSettings,
    client: Client,
    in_flight: Arc<Semaphore>,
}

/// The failure of one attempt.
struct Fault {
    reason: String,
    is_transient: bool,
    requested_pause: Option<Duration>,
}

impl Endpoint {
    pub(super) fn new(settings: EndpointSettings) -> Result<Self, OutsideError> {
        let url = settings.url.clone();
        let invalid = |reason: String| OutsideError::Address { url: url.clone(), reason };
        reqwest::Url::parse(&settings.url).map_err(|error| invalid(error.to_string()))?;
        let client = client_builder()
            .redirect(redirects_within_server())
            .timeout(settings.attempt_timeout)
            .build()
            .map_err(|error| invalid(with_causes(&error)))?;
        let in_flight = Arc::new(Semaphore::new(settings.max_in_flight));
        Ok(Self { settings, client, in_flight })
    }

    /// Posts `body` until it is answered. Returns the reason of the last failure once the deadline leaves no time for
    /// another attempt, or if another attempt would fail too. The deadline counts from the turn of the request.
    pub(super) async fn ask(&self, body: &Value) -> Result<Value, String> {
        let _permit = self.in_flight.acquire().await.expect("nothing closes this semaphore");
        let started = Instant::now();
        let mut backoff = Backoff::new(self.settings.retry);
        loop {
            let fault = match self.attempt(body).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            let reason = format!("POST {}: {}", self.settings.url, fault.reason);
            if !fault.is_transient {
                return Err(reason);
            }
            match backoff.next_pause(started.elapsed(), fault.requested_pause) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(reason),
            }
        }
    }

    async fn attempt(&self, body: &Value) -> Result<Value, Fault> {
        let transport = |error: &reqwest::Error| Fault {
            reason: with_causes(error),
            is_transient: true,
            requested_pause: None,
        };
        let lasting = |reason| Fault { reason, is_transient: false, requested_pause: None };
        let mut request = self.client.post(&self.settings.url).json(body);
        if let Some(key) = &self.settings.api_key {
            request = request.bearer_auth(key);
        }
        let mut response = request.send().await.map_err(|error| transport(&error))?;
        let status = response.status();
        let requested_pause = pause::requested(response.headers(), SystemTime::now());
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| transport(&error))? {
            if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(lasting(format!("the answer exceeds {MAX_ANSWER_BYTES} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|error| {
                lasting(format!("the answer is not JSON ({error}): {}", shown(&bytes)))
            });
        }
        let is_transient = status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
            || status == StatusCode::TOO_MANY_REQUESTS
            || status == StatusCode::REQUEST_TIMEOUT;
        let reason = format!("status {}: {}", status.as_u16(), shown(&bytes));
        Err(Fault { reason, is_transient, requested_pause })
    }
}

/// Returns the beginning of an answer.
pub(super) fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(ERROR_BODY_CHARS).collect()
}
