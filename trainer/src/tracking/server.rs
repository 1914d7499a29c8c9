//! Requests to a tracker's server, from the tracker's thread.

use std::fs;
use std::path::PathBuf;

use reqwest::header::HeaderName;
use reqwest::{Client, Method, StatusCode, Url};
use serde_json::Value;
use shared::machine::http::{self, with_causes};
use tokio::runtime::Runtime;

use super::{Fault, ServerSettings};

/// Characters of an error body that are shown.
const ERROR_BODY_CHARS: usize = 300;
/// The longest answer that is read.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// A server with its address and token.
pub(super) struct Server {
    client: Client,
    base: Url,
    token_file: Option<PathBuf>,
    runtime: Runtime,
}

/// An answer: its status, and its body as JSON, `null` if it is none.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Value,
    /// The begin of the body, for messages.
    pub(super) shown: String,
    url: String,
}

impl Answer {
    /// Returns the body of a success, or an error that shows the answer.
    pub(super) fn success(self) -> Result<Value, Fault> {
        if self.status.is_success() { Ok(self.body) } else { Err(self.fault()) }
    }

    /// Returns an error that shows the answer.
    pub(super) fn fault(&self) -> Fault {
        Fault(format!("{}: status {}: {}", self.url, self.status.as_u16(), self.shown))
    }
}

impl Server {
    pub(super) fn open(settings: &ServerSettings) -> Result<Self, Fault> {
        let client = http::client_builder()
            .connect_timeout(settings.timeout)
            .timeout(settings.timeout)
            .redirect(http::redirects_within_server())
            .build()
            .map_err(|error| Fault(with_causes(&error)))?;
        let text = format!("{}/", settings.url.trim_end_matches('/'));
        let base = Url::parse(&text).map_err(|error| Fault(format!("{text}: {error}")))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Fault(error.to_string()))?;
        Ok(Self { client, base, token_file: settings.token_file.clone(), runtime })
    }

    /// Sends a request with the token, if there is one, in `header` after `prefix`.
    pub(super) fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        (header, prefix): (HeaderName, &str),
    ) -> Result<Answer, Fault> {
        let url = self.base.join(path).map_err(|error| Fault(format!("{path}: {error}")))?;
        let mut request = self.client.request(method, url.clone());
        if let Some(path) = &self.token_file {
            let token = fs::read_to_string(path)
                .map_err(|error| Fault(format!("{}: {error}", path.display())))?;
            request = request.header(header, format!("{prefix}{}", token.trim()));
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let at =
            |error: reqwest::Error| Fault(format!("{url}: {}", with_causes(&error.without_url())));
        self.runtime.block_on(async {
            let mut response = request.send().await.map_err(at)?;
            let status = response.status();
            let mut bytes = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(at)? {
                if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
                    return Err(Fault(format!(
                        "{url}: an answer of more than {MAX_ANSWER_BYTES} bytes"
                    )));
                }
                bytes.extend_from_slice(&chunk);
            }
            let shown = String::from_utf8_lossy(&bytes).chars().take(ERROR_BODY_CHARS).collect();
            let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            Ok(Answer { status, body, shown, url: url.to_string() })
        })
    }
}
