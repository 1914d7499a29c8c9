//! The client of `POST /retrieve`.
//!
//! Owns the request, its retries under a deadline, and all checks of the response. Each query gets its own answer:
//! passages, or an error. A failure never looks like an empty list, because a model that trains on the answers
//! would learn that searches find nothing.

mod reply;
#[cfg(test)]
mod tests;

use std::time::Duration;

use reqwest::{Client, Response, StatusCode, Url, header};
use serde_json::json;
use tokio::time::Instant;

pub use crate::contract::passage::Passage;
use crate::contract::retry::{Backoff, RetryPolicy};
use crate::machine::http;

/// The address of a retriever, and limits of its requests.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Address: `http://host:port`, with or without `/retrieve`.
    pub url: String,
    /// Time limit for opening a connection.
    pub connect_timeout: Duration,
    /// Time limit for one attempt, from connecting to the last byte of the answer.
    pub attempt_timeout: Duration,
    /// Pauses between attempts, and the deadline of all attempts together.
    pub retry: RetryPolicy,
    /// Maximum number of queries in a request; a longer list is sent in several requests.
    pub max_request_queries: usize,
    /// Maximum size of an answer; a longer one is refused.
    pub max_response_bytes: usize,
}

impl ClientConfig {
    /// Returns limits for a local server: 30 s for an attempt, two minutes in all.
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            connect_timeout: Duration::from_secs(5),
            attempt_timeout: Duration::from_secs(30),
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
    #[error("no answer from the retriever after {attempts} attempts in {elapsed_ms} ms: {last}")]
    Unavailable { attempts: u32, elapsed_ms: u128, last: String },
    /// The server refused the request; a retry would not help.
    #[error("the retriever refused the request with status {status}: {body}")]
    Refused { status: u16, body: String },
    /// The response of the server is not a valid answer.
    #[error("the retriever's answer is malformed: {0}")]
    Malformed(String),
    /// This query failed, independently of the others in the request.
    #[error("the retriever could not answer this query: {code}")]
    Failed { code: String },
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

impl RetrieveClient {
    /// Makes a client. Does not connect yet.
    ///
    /// # Errors
    /// An invalid address, or an HTTP client that cannot be set up.
    pub fn new(config: ClientConfig) -> Result<Self, ConfigError> {
        let endpoint = endpoint(&config.url)?;
        let http = http::client_builder()
            .connect_timeout(config.connect_timeout)
            .timeout(config.attempt_timeout)
            // Retrievers are contacted directly: a proxy for downloads does not apply to them.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
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
    /// Retries until the deadline after failed connections, timeouts, status 500, 502, 503 and 504, and for queries
    /// that the server marks as retryable. Cancel safe: dropping the future drops the request.
    pub async fn retrieve(&self, queries: &[String], top_k: usize) -> Vec<SearchResult> {
        let mut results = Vec::with_capacity(queries.len());
        for batch in queries.chunks(self.config.max_request_queries.max(1)) {
            results.extend(self.retrieve_batch(batch, top_k).await);
        }
        results
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
            let (reason, requested_pause) = match self.attempt(&open_queries, top_k, started).await
            {
                Ok(answers) => match fill(&mut results, &open, answers) {
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
                let elapsed_ms = elapsed.as_millis();
                close(
                    &mut results,
                    &SearchError::Unavailable { attempts, elapsed_ms, last: reason },
                );
                break;
            };
            let pause_ms = pause.as_millis();
            tracing::warn!(attempts, pause_ms, reason, "search failed, retrying");
            tokio::time::sleep(pause).await;
        }
        let ended = "the loop ends once every query has a result";
        results.into_iter().map(|result| result.expect(ended)).collect()
    }

    /// Sends one request and checks the answer.
    async fn attempt(
        &self,
        queries: &[&str],
        top_k: usize,
        started: Instant,
    ) -> Result<Vec<reply::Answer>, Attempt> {
        let remaining = self.config.retry.deadline.saturating_sub(started.elapsed());
        let body = json!({ "queries": queries, "topk": top_k, "return_scores": true });
        let response = self
            .http
            .post(self.endpoint.clone())
            .timeout(self.config.attempt_timeout.min(remaining))
            .json(&body)
            .send()
            .await
            .map_err(|error| transport(&error))?;
        let status = response.status();
        let requested_pause = retry_after(&response);
        let bytes = self.read_body(response).await;
        if status.is_success() {
            return reply::parse(&bytes?, queries.len())
                .map_err(|reason| Attempt::Final(SearchError::Malformed(reason)));
        }
        let body = match bytes {
            Ok(bytes) => excerpt(&bytes),
            Err(_) => "(no body)".to_owned(),
        };
        Err(match status {
            StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => {
                let reason = format!("status {}: {body}", status.as_u16());
                Attempt::Retry { reason, requested_pause }
            }
            _ => Attempt::Final(SearchError::Refused { status: status.as_u16(), body }),
        })
    }

    async fn read_body(&self, mut response: Response) -> Result<Vec<u8>, Attempt> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| transport(&error))? {
            if bytes.len() + chunk.len() > self.config.max_response_bytes {
                let limit = self.config.max_response_bytes;
                let reason = format!("it is longer than the limit of {limit} bytes");
                return Err(Attempt::Final(SearchError::Malformed(reason)));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

fn endpoint(url: &str) -> Result<Url, ConfigError> {
    let refuse = |reason: String| ConfigError::Url { url: url.to_owned(), reason };
    let mut endpoint = Url::parse(url).map_err(|error| refuse(error.to_string()))?;
    if !http::SCHEMES.contains(&endpoint.scheme()) {
        return Err(refuse(format!("the scheme {:?} is not supported", endpoint.scheme())));
    }
    if !endpoint.path().ends_with("/retrieve") {
        let path = format!("{}/retrieve", endpoint.path().trim_end_matches('/'));
        endpoint.set_path(&path);
    }
    Ok(endpoint)
}

/// Puts the answers into their slots. Returns the error code of a query that may be retried, if there is one.
fn fill(
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
                results[slot] = Some(Err(SearchError::Failed { code }));
            }
        }
    }
    retryable
}

/// Gives every query without an answer the same error.
fn close(results: &mut [Option<SearchResult>], error: &SearchError) {
    for open in results.iter_mut().filter(|result| result.is_none()) {
        *open = Some(Err(error.clone()));
    }
}

/// Makes a failed or slow connection retryable.
fn transport(error: &reqwest::Error) -> Attempt {
    Attempt::Retry { reason: http::with_causes(error), requested_pause: None }
}

/// Returns `Retry-After` in seconds. Its other form, a date, needs clocks that agree, and is ignored.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse::<u64>().ok().map(Duration::from_secs)
}

fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(ERROR_BODY_CHARS).collect()
}
