//! The client of `POST /retrieve`.
//!
//! Owns the request, its retries under a deadline, and all checks of the response. Each query gets its own answer:
//! passages, or an error. A failure never looks like an empty list, because a model that trains on the answers
//! would learn that searches find nothing.

mod address;
pub mod pause;
mod reply;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use reqwest::{Client, Response, StatusCode, Url, header};
use serde_json::json;
use tokio::time::Instant;

pub use crate::contract::passage::Passage;
use crate::contract::retry::{Backoff, RetryPolicy};
use crate::machine::http;

/// The address of a retriever, and limits of its requests.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Address: `http://host:port`, with or without `/retrieve`, with or without a slash at its end.
    pub url: String,
    /// Time limit for opening a connection.
    pub connect_timeout: Duration,
    /// Time limit for one attempt, from connecting to the last byte of the answer. Without it, the deadline of all
    /// attempts is the only limit: a slow server would otherwise compute the same answer again and again.
    pub attempt_timeout: Option<Duration>,
    /// Pauses between attempts, and the deadline of all attempts together.
    pub retry: RetryPolicy,
    /// Maximum number of queries in a request; a longer list is sent in several requests.
    pub max_request_queries: usize,
    /// Maximum size of an answer; a longer one is refused.
    pub max_response_bytes: usize,
}

impl ClientConfig {
    /// Returns limits for a local server: two minutes in all.
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            connect_timeout: Duration::from_secs(5),
            attempt_timeout: None,
            retry: RetryPolicy::default(),
            max_request_queries: 512,
            max_response_bytes: 64 * 1024 * 1024,
        }
    }
}

/// The reason why a client cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The address is invalid.
    #[error("retriever url {url:?}: {reason}; accepted is http://host:port or https://host")]
    Url { url: String, reason: String },
    /// The HTTP client failed.
    #[error("cannot set up an http client: {0}")]
    Http(String),
}

/// The reason why a query has no answer. All are final: everything retryable has been retried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    /// There was no usable answer before the deadline.
    #[error(
        "no answer from the retriever at {url} after {} in {elapsed_ms} ms: {last}",
        attempts_in_words(*attempts)
    )]
    Unavailable { url: String, attempts: u32, elapsed_ms: u128, last: String },
    /// The server refused the request; a retry would not help.
    #[error("the retriever at {url} refused the request with status {status}: {body}")]
    Refused { url: String, status: u16, body: String },
    /// The response of the server, or its part for this query, is not a valid answer.
    #[error("the answer of the retriever at {url} is malformed: {reason}")]
    Malformed { url: String, reason: String },
    /// This query failed, independently of the others in the request.
    #[error("the retriever at {url} could not answer this query: {code}")]
    Failed { url: String, code: String },
}

/// The answer to a query: passages, best first, or an error. An empty list is a success.
pub type SearchResult = Result<Vec<Passage>, SearchError>;

/// A client of one retriever. Clones share its connections.
#[derive(Clone, Debug)]
pub struct RetrieveClient {
    http: Client,
    endpoint: Url,
    config: ClientConfig,
}

fn attempts_in_words(attempts: u32) -> String {
    if attempts == 1 { "1 attempt".to_owned() } else { format!("{attempts} attempts") }
}

/// The failure of one attempt.
enum Attempt {
    /// Another attempt may succeed, after the pause that the server requested, if it did.
    Retry {
        reason: String,
        requested_pause: Option<Duration>,
    },
    Final(SearchError),
}

/// Maximum length of the excerpt of an error body that messages show.
const ERROR_BODY_CHARS: usize = 300;
/// Time after which a silent connection is probed, and pause between its probes.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Unanswered probes after which a connection is dead.
const KEEP_ALIVE_PROBES: u32 = 4;
/// Time after which sent bytes without a confirmation from the other machine mean a dead connection.
const UNCONFIRMED_TIMEOUT: Duration = Duration::from_mins(2);

impl RetrieveClient {
    /// Makes a client. Does not connect yet.
    ///
    /// # Errors
    /// An invalid address, or an HTTP client that cannot be set up.
    pub fn new(config: ClientConfig) -> Result<Self, ConfigError> {
        let endpoint = address::endpoint(&config.url)?;
        let http = http::client_builder()
            .connect_timeout(config.connect_timeout)
            // An attempt may wait for minutes; a machine that is gone is noticed all the same.
            .tcp_keepalive(KEEP_ALIVE)
            .tcp_keepalive_interval(KEEP_ALIVE)
            .tcp_keepalive_retries(KEEP_ALIVE_PROBES)
            .tcp_user_timeout(UNCONFIRMED_TIMEOUT)
            // Retrievers are contacted directly: a proxy for downloads does not apply to them.
            .no_proxy()
            .redirect(http::redirects_within_server())
            .build()
            .map_err(|error| ConfigError::Http(error.to_string()))?;
        Ok(Self { http, endpoint, config })
    }

    /// Returns the address that queries are sent to.
    pub fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// Returns at most `top_k` passages for each of `queries`, in their order.
    ///
    /// Retries until the deadline after failed connections, timeouts, status 408, 429, 500, 502, 503 and 504, and for
    /// queries that the server marks as retryable. Cancel safe: dropping the future drops the request.
    pub async fn retrieve(&self, queries: &[String], top_k: usize) -> Vec<SearchResult> {
        let mut results = Vec::with_capacity(queries.len());
        for batch in queries.chunks(self.config.max_request_queries.max(1)) {
            results.extend(self.retrieve_batch(batch, top_k).await);
        }
        results
    }

    /// Sends one query once, without a retry, and waits at most `limit` for the answer.
    pub async fn ask_once(&self, query: &str, top_k: usize, limit: Duration) -> SearchResult {
        let started = Instant::now();
        let unavailable = |last| {
            let (url, elapsed_ms) = (self.shown_address(), started.elapsed().as_millis());
            SearchError::Unavailable { url, attempts: 1, elapsed_ms, last }
        };
        match self.attempt(&[query], top_k, limit).await {
            Ok(answers) => {
                let mut results = [None];
                let open = self.fill(&mut results, &[0], answers);
                let [result] = results;
                let unanswered = || Err(unavailable(open.unwrap_or_default()));
                result.unwrap_or_else(unanswered)
            }
            Err(Attempt::Retry { reason, .. }) => Err(unavailable(reason)),
            Err(Attempt::Final(error)) => Err(error),
        }
    }

    /// Returns the address for messages, without secrets.
    pub fn shown_address(&self) -> String {
        address::shown(&self.endpoint)
    }

    async fn retrieve_batch(&self, queries: &[String], top_k: usize) -> Vec<SearchResult> {
        let started = Instant::now();
        let mut backoff = Backoff::new(self.config.retry);
        let mut results: Vec<Option<SearchResult>> = vec![None; queries.len()];
        let mut attempts = 0;
        loop {
            let open: Vec<usize> = (0..queries.len()).filter(|&i| results[i].is_none()).collect();
            if open.is_empty() {
                break;
            }
            attempts += 1;
            let open_queries: Vec<&str> = open.iter().map(|&i| queries[i].as_str()).collect();
            let remaining = self.config.retry.deadline.saturating_sub(started.elapsed());
            let limit = self.config.attempt_timeout.map_or(remaining, |limit| limit.min(remaining));
            let (reason, requested_pause) = match self.attempt(&open_queries, top_k, limit).await {
                Ok(answers) => match self.fill(&mut results, &open, answers) {
                    Some(code) => (code, None),
                    None => break,
                },
                Err(Attempt::Retry { reason, requested_pause }) => (reason, requested_pause),
                Err(Attempt::Final(error)) => {
                    close(&mut results, &error);
                    break;
                }
            };
            let elapsed = started.elapsed();
            let Some(pause) = backoff.next_pause(elapsed, requested_pause) else {
                let (url, elapsed_ms) = (self.shown_address(), elapsed.as_millis());
                let error = SearchError::Unavailable { url, attempts, elapsed_ms, last: reason };
                close(&mut results, &error);
                break;
            };
            let pause_ms = pause.as_millis();
            let url = self.shown_address();
            tracing::warn!(url, attempts, pause_ms, reason, "search failed, retrying");
            tokio::time::sleep(pause).await;
        }
        let ended = "the loop ends once every query has a result";
        results.into_iter().map(|result| result.expect(ended)).collect()
    }

    /// Sends one request, waits at most `limit` for its answer, and checks the answer.
    async fn attempt(
        &self,
        queries: &[&str],
        top_k: usize,
        limit: Duration,
    ) -> Result<Vec<reply::Answer>, Attempt> {
        // With "partial", the project's server reports each failed query alone. Without it, it fails the request for
        // clients that take the empty list of a failed query for an answer. Other servers ignore the key.
        let body =
            json!({"queries": queries, "topk": top_k, "return_scores": true, "partial": true});
        let response = self
            .http
            .post(self.endpoint.clone())
            .timeout(limit)
            .json(&body)
            .send()
            .await
            .map_err(transport)?;
        let status = response.status();
        let requested_pause = pause::requested(response.headers(), SystemTime::now());
        let target = response.headers().get(header::LOCATION).cloned();
        let bytes = self.read_body(response).await;
        if status.is_success() {
            let answers = reply::parse(&bytes?, queries.len());
            return answers.map_err(|reason| Attempt::Final(self.malformed(reason)));
        }
        let body = match (bytes, target) {
            (_, Some(target)) if status.is_redirection() => {
                format!("it redirects to {}", excerpt(target.as_bytes()))
            }
            (Ok(bytes), _) => excerpt(&bytes),
            (Err(_), _) => "(no body)".to_owned(),
        };
        Err(match status {
            StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => {
                let reason = format!("status {}: {body}", status.as_u16());
                Attempt::Retry { reason, requested_pause }
            }
            _ => {
                let (url, status) = (self.shown_address(), status.as_u16());
                Attempt::Final(SearchError::Refused { url, status, body })
            }
        })
    }

    fn malformed(&self, reason: String) -> SearchError {
        SearchError::Malformed { url: self.shown_address(), reason }
    }

    async fn read_body(&self, mut response: Response) -> Result<Vec<u8>, Attempt> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(transport)? {
            if bytes.len() + chunk.len() > self.config.max_response_bytes {
                let limit = self.config.max_response_bytes;
                let reason = format!("it is longer than the limit of {limit} bytes");
                return Err(Attempt::Final(self.malformed(reason)));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Puts the answers into their slots. Returns the error code of a query that may be retried, if there is one.
    fn fill(
        &self,
        results: &mut [Option<SearchResult>],
        open: &[usize],
        answers: Vec<reply::Answer>,
    ) -> Option<String> {
        let mut retryable = None;
        for (&slot, answer) in open.iter().zip(answers) {
            match answer {
                reply::Answer::Passages(passages) => results[slot] = Some(Ok(passages)),
                reply::Answer::Failed { code, retryable: true } => retryable = Some(code),
                reply::Answer::Failed { code, retryable: false } => {
                    let url = self.shown_address();
                    results[slot] = Some(Err(SearchError::Failed { url, code }));
                }
                reply::Answer::Malformed(reason) => {
                    results[slot] = Some(Err(self.malformed(reason)));
                }
            }
        }
        retryable
    }
}

/// Gives every query without an answer the same error.
fn close(results: &mut [Option<SearchResult>], error: &SearchError) {
    for open in results.iter_mut().filter(|result| result.is_none()) {
        *open = Some(Err(error.clone()));
    }
}

/// Makes a failed or slow connection retryable. The address is left out: it is in the message anyway, without secrets.
fn transport(error: reqwest::Error) -> Attempt {
    Attempt::Retry { reason: http::with_causes(&error.without_url()), requested_pause: None }
}

fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(ERROR_BODY_CHARS).collect()
}
