//! The part that engines with an HTTP interface share: one client with its limits, the key in a header that no
//! log shows, and the meaning of a status.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;
use shared::contract::client::pause;
use shared::machine::http;

use super::{EngineConfig, EngineError};

/// Longest time to open a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Longest time without a byte of an answer. A search has a shorter limit of its own; this is for loading.
const READ_LIMIT: Duration = Duration::from_mins(2);
/// Largest answer that is read.
const MAX_ANSWER_BYTES: usize = 256 << 20;
/// Most characters of an error's text that a message shows.
const SHOWN_CHARS: usize = 400;

/// The body of a request.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// No body.
    Nothing,
    /// One value.
    Json(Value),
    /// A value on each line, with a line break behind each.
    Lines(String),
}

/// A request to an engine.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// The method.
    pub(super) method: Method,
    /// The parts of the path below the address, not encoded.
    pub(super) path: &'a [&'a str],
    /// Names and values behind the question mark.
    pub(super) parameters: &'a [(&'a str, &'a str)],
    /// The body.
    pub(super) body: Body,
}

impl<'a> Call<'a> {
    /// Creates a request without a body.
    pub(super) fn new(method: Method, path: &'a [&'a str]) -> Self {
        Self { method, path, parameters: &[], body: Body::Nothing }
    }

    /// Adds a body.
    pub(super) fn with(self, body: Value) -> Self {
        Self { body: Body::Json(body), ..self }
    }
}

/// A complete answer, of any status.
#[derive(Debug)]
pub(super) struct Reply {
    /// The status.
    pub(super) status: StatusCode,
    /// The text.
    pub(super) text: String,
    /// The pause that the engine requests.
    pub(super) pause: Option<Duration>,
}

/// A client of one engine.
#[derive(Debug)]
pub(super) struct Http {
    client: Client,
    config: EngineConfig,
}

impl Http {
    /// Creates a client, which sends `header` with each request.
    pub(super) fn new(
        config: &EngineConfig,
        header: Option<(HeaderName, String)>,
    ) -> Result<Self, EngineError> {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = header {
            let mut value = HeaderValue::from_str(&value).map_err(|_| {
                let key = "RETRIEVER_ENGINE_KEY has a character that no header can have";
                EngineError::Unfit(key.to_owned())
            })?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let client = http::client_builder()
            .default_headers(headers)
            .connect_timeout(CONNECT_LIMIT)
            .read_timeout(READ_LIMIT)
            // A key must not travel to another server.
            .redirect(http::redirects_within_server())
            // Engines are contacted directly: a proxy for downloads does not apply to them.
            .no_proxy()
            .build()
            .map_err(|error| {
                EngineError::Unfit(format!("cannot set up an HTTP client: {error}"))
            })?;
        Ok(Self { client, config: config.clone() })
    }

    /// Sends a request and reads its answer, of any status.
    pub(super) async fn send(&self, call: Call<'_>) -> Result<Reply, EngineError> {
        let mut url = self.config.url.expose().clone();
        url.path_segments_mut()
            .map_err(|()| EngineError::Unfit("the address cannot have a path".to_owned()))?
            .pop_if_empty()
            .extend(call.path);
        if !call.parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(call.parameters);
        }
        let request = self.client.request(call.method, url);
        let request = match call.body {
            Body::Nothing => request,
            Body::Json(value) => request.json(&value),
            Body::Lines(text) => request.header("content-type", "application/x-ndjson").body(text),
        };
        let mut response = request.send().await.map_err(|error| self.lost(error))?;
        let status = response.status();
        let pause = pause::requested(response.headers(), SystemTime::now());
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.lost(error))? {
            if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(self.malformed(format!("it is longer than {MAX_ANSWER_BYTES} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Reply { status, text: String::from_utf8_lossy(&bytes).into_owned(), pause })
    }

    /// Sends a request and parses its answer, whose status must be a success.
    pub(super) async fn ask(&self, call: Call<'_>) -> Result<Value, EngineError> {
        let reply = self.send(call).await?;
        self.parse(&reply)
    }

    /// Parses an answer, whose status must be a success.
    pub(super) fn parse(&self, reply: &Reply) -> Result<Value, EngineError> {
        if !reply.status.is_success() {
            return Err(self.failed(reply));
        }
        serde_json::from_str(&reply.text)
            .map_err(|error| self.malformed(format!("it is not JSON: {error}")))
    }

    /// Returns the error of an answer that is no success.
    pub(super) fn failed(&self, reply: &Reply) -> EngineError {
        let status = reply.status;
        // Some engines and proxies repeat the key that they refuse.
        let text = match &self.config.key {
            Some(key) => key.redact(&reply.text),
            None => reply.text.clone(),
        };
        let said = format!("status {}: {}", status.as_u16(), shown(&text));
        match status {
            StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_EARLY
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => self.unavailable(said, reply.pause),
            StatusCode::PAYLOAD_TOO_LARGE => {
                let (engine, url) = self.place();
                EngineError::TooLarge { engine, url, reason: said }
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let key = "RETRIEVER_ENGINE_KEY is missing, wrong, or may not do this";
                self.refused(format!("{key} ({said})"))
            }
            _ => self.refused(said),
        }
    }

    /// Returns the error of an engine that cannot answer now.
    pub(super) fn unavailable(&self, reason: String, pause: Option<Duration>) -> EngineError {
        let (engine, url) = self.place();
        EngineError::Unavailable { engine, url, reason, pause }
    }

    /// Returns the error of a request that the engine refuses.
    pub(super) fn refused(&self, reason: String) -> EngineError {
        let (engine, url) = self.place();
        EngineError::Refused { engine, url, reason }
    }

    /// Returns the error of an answer that differs from the protocol.
    pub(super) fn malformed(&self, reason: String) -> EngineError {
        let (engine, url) = self.place();
        EngineError::Malformed { engine, url, reason }
    }

    fn place(&self) -> (&'static str, String) {
        (self.config.kind.name(), self.config.url.to_string())
    }

    /// Returns the error of a connection that failed. The address in it may contain a password.
    fn lost(&self, error: reqwest::Error) -> EngineError {
        self.unavailable(http::with_causes(&error.without_url()), None)
    }
}

/// Returns the start of a text, for a message.
pub(super) fn shown(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() {
        return "(no text)".to_owned();
    }
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
