//! One request and its answer, and whether a failed one is worth another try.

use std::time::Duration;

use reqwest::{Client, Response, StatusCode, header};
use serde_json::Value;
use shared::http::with_causes;

use super::dialect::Call;

/// The beginning of an error body that is worth showing.
const ERROR_BODY_CHARS: usize = 300;
/// Largest answer that is read: ids and log-probs of a turn take some 50 bytes a token.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// How a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Another try, here or elsewhere, may do better, after the pause that the server asks for.
    Retry { reason: String, asked: Option<Duration> },
    /// Asking again would not help.
    Final(String),
}

impl Fault {
    pub(super) fn retry(reason: String) -> Self {
        Self::Retry { reason, asked: None }
    }
}

/// Sends `call` and reads its answer; `null` stands for an answer without a body.
pub(super) async fn send(client: &Client, base: &str, call: &Call) -> Result<Value, Fault> {
    let url = format!("{base}{}", call.path);
    let at = |reason: String| format!("{} {url}: {reason}", call.method);
    let mut request = client.request(call.method.clone(), &url);
    if !call.body.is_null() {
        request = request.json(&call.body);
    }
    let transport = |error: &reqwest::Error| Fault::retry(at(with_causes(error)));
    let mut response = request.send().await.map_err(|error| transport(&error))?;
    let (status, asked) = (response.status(), retry_after(&response));
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| transport(&error))? {
        if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
            let reason = format!("the answer is longer than {MAX_ANSWER_BYTES} bytes");
            return Err(Fault::Final(at(reason)));
        }
        bytes.extend_from_slice(&chunk);
    }
    if status.is_success() {
        // Some answers are no JSON, such as SGLang's to requests that it takes note of.
        return Ok(serde_json::from_slice(&bytes).unwrap_or(Value::Null));
    }
    let body: String = String::from_utf8_lossy(&bytes).chars().take(ERROR_BODY_CHARS).collect();
    let reason = at(format!("status {}: {body}", status.as_u16()));
    let passes = status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT;
    Err(if passes { Fault::Retry { reason, asked } } else { Fault::Final(reason) })
}

/// `Retry-After` in seconds.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse::<u64>().ok().map(Duration::from_secs)
}
