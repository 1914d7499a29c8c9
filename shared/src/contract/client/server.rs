//! One server: its connections, its health, and single requests to it.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use reqwest::{Client, Response, StatusCode, Url, header};
use serde_json::json;
use tokio::time::Instant;

use super::headers::{self, TIMEOUT_HEADER};
use super::health::Health;
use super::serving::Serving;
use super::{ClientConfig, ConfigError, SearchError, address, pause, reply};
use crate::contract::wire::IDENTITY_HEADER;
use crate::machine::http;

/// Maximum length of the excerpt of an error body that messages show.
const ERROR_BODY_CHARS: usize = 300;
/// Time after which a silent connection is probed, and pause between its probes.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Unanswered probes after which a connection is dead.
const KEEP_ALIVE_PROBES: u32 = 4;
/// Time after which sent bytes without a confirmation from the other machine mean a dead connection.
const UNCONFIRMED_TIMEOUT: Duration = Duration::from_mins(2);

/// Queries that are sent together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) queries: &'a [&'a str],
    pub(super) top_k: usize,
}

/// The failure of one attempt.
#[derive(Debug)]
pub(super) enum Fault {
    /// Another attempt may succeed, after the pause that the server requested, if it did.
    Retry {
        reason: String,
        requested_pause: Option<Duration>,
    },
    Final(SearchError),
}

/// The answers of a server to a request.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) answers: Vec<reply::Answer>,
    /// The identity of the server when it answered, if it says so.
    pub(super) identity: Option<String>,
}

/// A server that queries are sent to.
#[derive(Debug)]
pub(super) struct Server {
    http: Client,
    pub(super) endpoint: Url,
    /// The address for messages, without secrets.
    pub(super) shown: String,
    /// The address of the machine, if a name of several servers led to this one.
    pub(super) ip: Option<IpAddr>,
    config: ClientConfig,
    health: Mutex<Health>,
    in_flight: AtomicUsize,
    is_vouched: AtomicBool,
}

/// A pending request; counted until it is dropped.
pub(super) struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Server {
    /// Makes the client of the server at `endpoint`, or of the one that has the address `ip` under that name. Does not
    /// connect yet.
    ///
    /// # Errors
    /// An HTTP client that cannot be set up.
    pub(super) fn new(
        endpoint: Url,
        ip: Option<IpAddr>,
        config: &ClientConfig,
    ) -> Result<Self, ConfigError> {
        let mut builder = http::client_builder()
            .connect_timeout(config.connect_timeout)
            // An attempt may wait for minutes; a machine that is gone is noticed all the same.
            .tcp_keepalive(KEEP_ALIVE)
            .tcp_keepalive_interval(KEEP_ALIVE)
            .tcp_keepalive_retries(KEEP_ALIVE_PROBES)
            .tcp_user_timeout(UNCONFIRMED_TIMEOUT)
            // Retrievers are contacted directly: a proxy for downloads does not apply to them.
            .no_proxy()
            .redirect(http::redirects_within_server());
        let mut shown = address::shown(&endpoint);
        if let (Some(ip), Some(host)) = (ip, endpoint.host_str()) {
            // The name stays in the request, and a certificate must be valid for it. Port 0 is the port of the URL.
            builder = builder.resolve(host, SocketAddr::new(ip, 0));
            shown = format!("{shown} ({ip})");
        }
        let http = builder.build().map_err(|error| ConfigError::Http(error.to_string()))?;
        Ok(Self {
            http,
            endpoint,
            shown,
            ip,
            config: config.clone(),
            health: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            is_vouched: AtomicBool::new(false),
        })
    }

    pub(super) fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns `true` if the server is known to serve what the others serve.
    pub(super) fn is_vouched(&self) -> bool {
        self.is_vouched.load(Ordering::Acquire)
    }

    pub(super) fn set_vouched(&self, is_vouched: bool) {
        self.is_vouched.store(is_vouched, Ordering::Release);
    }

    /// Returns the number of pending requests.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Counts a request from now on.
    pub(super) fn begin(&self, now: Instant) -> InFlight<'_> {
        self.health().begin(now);
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        InFlight(&self.in_flight)
    }

    /// Sends one request, waits at most `limit` for its answer, and checks the answer.
    pub(super) async fn ask(&self, request: Request<'_>, limit: Duration) -> Result<Reply, Fault> {
        let Request { queries, top_k } = request;
        // With "partial", the project's server reports each failed query alone. Without it, it fails the request for
        // clients that take the empty list of a failed query for an answer. Other servers ignore the key.
        let body =
            json!({"queries": queries, "topk": top_k, "return_scores": true, "partial": true});
        let response = self
            .http
            .post(self.endpoint.clone())
            .headers(self.config.request_headers.make())
            .header(TIMEOUT_HEADER, headers::timeout_ms(limit))
            .timeout(limit)
            .json(&body)
            .send()
            .await
            .map_err(transport)?;
        let status = response.status();
        let requested_pause = pause::requested(response.headers(), SystemTime::now());
        let target = response.headers().get(header::LOCATION).cloned();
        let identity = response.headers().get(IDENTITY_HEADER);
        let identity = identity.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let bytes = self.read_body(response).await;
        if status.is_success() {
            let answers = reply::parse(&bytes?, queries.len());
            let answers = answers.map_err(|reason| Fault::Final(self.malformed(reason)))?;
            return Ok(Reply { answers, identity });
        }
        let body = match (bytes, target) {
            (_, Some(target)) if status.is_redirection() => {
                format!("it redirects to {}", excerpt(target.as_bytes()))
            }
            (Ok(bytes), _) => excerpt(&bytes),
            (Err(_), _) => "(no body)".to_owned(),
        };
        Err(if is_retryable(status) {
            let reason = format!("status {}: {body}", status.as_u16());
            Fault::Retry { reason, requested_pause }
        } else {
            let (url, status) = (self.shown.clone(), status.as_u16());
            Fault::Final(SearchError::Refused { url, status, body })
        })
    }

    /// Asks for what the server serves. Returns `None` for a server that does not say so, as those of other programs.
    ///
    /// # Errors
    /// The reason why there was no answer within `limit`.
    pub(super) async fn serving(&self, limit: Duration) -> Result<Option<Serving>, String> {
        let mut url = self.endpoint.clone();
        url.path_segments_mut().expect("an endpoint has a host").pop().push("info");
        let request = self.http.get(url).headers(self.config.request_headers.make()).timeout(limit);
        let without_url = |error: reqwest::Error| http::with_causes(&error.without_url());
        let response = request.send().await.map_err(without_url)?;
        let status = response.status();
        if is_retryable(status) {
            return Err(format!("GET /info: status {}", status.as_u16()));
        }
        match self.read_body(response).await {
            Ok(body) if status.is_success() => Ok(Serving::parse(&body)),
            Ok(_) | Err(Fault::Final(_)) => Ok(None),
            Err(Fault::Retry { reason, .. }) => Err(reason),
        }
    }

    /// Returns the error of an answer that cannot be read.
    pub(super) fn malformed(&self, reason: String) -> SearchError {
        SearchError::Malformed { url: self.shown.clone(), reason }
    }

    async fn read_body(&self, mut response: Response) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(transport)? {
            if bytes.len() + chunk.len() > self.config.max_response_bytes {
                let limit = self.config.max_response_bytes;
                let reason = format!("it is longer than the limit of {limit} bytes");
                return Err(Fault::Final(self.malformed(reason)));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

fn is_retryable(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// Makes a failed or slow connection retryable. The address is left out: it is in the message anyway, without secrets.
fn transport(error: reqwest::Error) -> Fault {
    Fault::Retry { reason: http::with_causes(&error.without_url()), requested_pause: None }
}

fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(ERROR_BODY_CHARS).collect()
}
