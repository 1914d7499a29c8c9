//! One request with its answer. A failure is either transient, so that another attempt may succeed, or final.

use std::time::Duration;

use reqwest::{Client, Response, StatusCode, header};
use serde_json::Value;
use shared::machine::http::with_causes;

use super::protocol::Call;

/// Characters of an error body that are shown.
const ERROR_BODY_CHARS: usize = 300;
/// The largest answer that is read. Ids and log-probs of a turn take about 50 bytes a token.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// The failure of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Another attempt, at this server or another one, may succeed after the pause that the server requests.
    Retry { reason: String, requested_pause: Option<Duration> },
    /// Another attempt would fail too.
    Final(String),
}

impl Fault {
    pub(super) fn retry(reason: String) -> Self {
        Self::Retry { reason, requested_pause: None }
    }
}

/// Sends `call` and returns its answer, `null` if the answer is not JSON.
pub(super) async fn send(client: &Client, base: &str, call: &Call) -> Result<Value, Fault> {
    let url = format!("{base}{}", call.path);
    let at = |reason: String| format!("{} {url}: {reason}", call.method);
    let mut request = client.request(call.method.clone(), &url);
    if !call.body.is_null() {
        request = request.json(&call.body);
    }
    let transport = |error: &reqwest::Error| Fault::retry(at(with_causes(error)));
    let mut response = request.send().await.map_err(|error| transport(&error))?;
    let (status, requested_pause) = (response.status(), retry_after(&response));
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| transport(&error))? {
        if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
            let reason = format!("the answer is longer than {MAX_ANSWER_BYTES} bytes");
            return Err(Fault::Final(at(reason)));
        }
        bytes.extend_from_slice(&chunk);
    }
    if status.is_success() {
        // Some answers are not JSON, such as SGLang's acknowledgements.
        return Ok(serde_json::from_slice(&bytes).unwrap_or(Value::Null));
    }
    let body: String = String::from_utf8_lossy(&bytes).chars().take(ERROR_BODY_CHARS).collect();
    let reason = at(format!("status {}: {body}", status.as_u16()));
    let is_transient = status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT;
    Err(if is_transient { Fault::Retry { reason, requested_pause } } else { Fault::Final(reason) })
}

/// Returns the pause of a `Retry-After` header in seconds.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse::<u64>().ok().map(Duration::from_secs)
}
