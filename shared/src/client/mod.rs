//! The client of `POST /retrieve`.
//!
//! Owns the request, its retries under a deadline, and every check of what comes back. Each query
//! gets its own answer: passages, or an error. A failure never looks like an empty list, because
//! whoever learns from the answers would learn that nothing can be found.

mod reply;
#[cfg(test)]
mod tests;

use std::time::Duration;

use reqwest::{Client, Response, StatusCode, Url, header};
use serde_json::json;
use tokio::time::Instant;

use crate::http;
pub use crate::passage::Passage;
use crate::retry::{Backoff, RetryPolicy};

/// Where to ask, and for how long.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `http://host:port`, or the same with `/retrieve`.
    pub url: String,
    /// Of opening one connection.
    pub connect_timeout: Duration,
    /// Of one attempt, from connecting to the last byte of the answer.
    pub attempt_timeout: Duration,
    /// Pauses between attempts and the deadline of all of them together.
    pub retry: RetryPolicy,
    /// A longer list of queries is sent in several requests.
    pub max_request_queries: usize,
    /// A longer answer is refused.
    pub max_response_bytes: usize,
}

impl ClientConfig {
    /// Limits that suit a local server: 30 s an attempt, two minutes in all.
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

/// A client that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The address is not one that can be asked.
    #[error("retriever url {url:?}: {reason}; accepted is http://host:port or https://host")]
    Url { url: String, reason: String },
    /// The HTTP client itself.
    #[error("cannot set up an http client: {0}")]
    Http(String),
}

/// Why one query has no answer. All of them are final: what could be retried has been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    /// No usable answer before the deadline.
    #[error("no answer from the retriever after {attempts} attempts in {elapsed_ms} ms: {last}")]
    Unavailable { attempts: u32, elapsed_ms: u128, last: String },
    /// The server does not take the request; asking again would not help.
    #[error("the retriever refused the request with status {status}: {body}")]
    Refused { status: u16, body: String },
    /// The server answered something that is no answer.
    #[error("the retriever's answer is malformed: {0}")]
    Malformed(String),
    /// This query failed while others of the request did not.
    #[error("the retriever could not answer this query: {code}")]
    Failed { code: String },
}

/// One query's answer: passages, best first (an empty list is a success), or its error.
pub type SearchResult = Result<Vec<Passage>, SearchError>;

/// Asks one retriever. Clones share its connections.
#[derive(Clone, Debug)]
pub struct RetrieveClient {
    http: Client,
    endpoint: Url,
    config: ClientConfig,
}

/// How one attempt failed.
enum Attempt {
    /// Another one may do better, after the pause that the server asks for, if it does.
    Retry {
        reason: String,
        asked: Option<Duration>,
    },
    Final(SearchError),
}

/// The beginning of an error body that is worth showing.
const ERROR_BODY_CHARS: usize = 300;

impl RetrieveClient {
    /// Checks the configuration; does not connect yet.
    pub fn new(config: ClientConfig) -> Result<Self, ConfigError> {
        let endpoint = endpoint(&config.url)?;
        let http = http::client_builder()
            .connect_timeout(config.connect_timeout)
            .timeout(config.attempt_timeout)
            // Retrievers are addressed directly: a proxy that is set for downloads is not for them.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| ConfigError::Http(error.to_string()))?;
        Ok(Self { http, endpoint, config })
    }

    /// The address that queries are sent to.
    pub fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// Answers `queries` with at most `top_k` passages each, in their order.
    ///
    /// Failed connections, timeouts, status 500, 502, 503 and 504 and queries that the server marks
    /// as retryable are asked again until the deadline. Cancel safe: dropping the future drops the
    /// request.
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
            let asked: Vec<&str> = open.iter().map(|&i| queries[i].as_str()).collect();
            let (reason, pause_asked) = match self.attempt(&asked, top_k, started).await {
                Ok(answers) => match fill(&mut results, &open, answers) {
                    Some(code) => (code, None),
                    None => break,
                },
                Err(Attempt::Retry { reason, asked }) => (reason, asked),
                Err(Attempt::Final(error)) => {
                    close(&mut results, &error);
                    break;
                }
            };
            let elapsed = started.elapsed();
            let Some(pause) = backoff.next_pause(elapsed, pause_asked) else {
                let elapsed_ms = elapsed.as_millis();
                close(
                    &mut results,
                    &SearchError::Unavailable { attempts, elapsed_ms, last: reason },
                );
                break;
            };
            let pause_ms = pause.as_millis();
            tracing::warn!(attempts, pause_ms, reason, "search failed, trying again");
            tokio::time::sleep(pause).await;
        }
        results.into_iter().flatten().collect()
    }

    /// Sends one request and checks the whole answer.
    async fn attempt(
        &self,
        queries: &[&str],
        top_k: usize,
        started: Instant,
    ) -> Result<Vec<reply::Answer>, Attempt> {
        let left = self.config.retry.deadline.saturating_sub(started.elapsed());
        let body = json!({ "queries": queries, "topk": top_k, "return_scores": true });
        let response = self
            .http
            .post(self.endpoint.clone())
            .timeout(self.config.attempt_timeout.min(left))
            .json(&body)
            .send()
            .await
            .map_err(|error| transport(&error))?;
        let status = response.status();
        let asked = retry_after(&response);
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
                Attempt::Retry { reason, asked }
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

/// Puts the answers into their slots; the code of a query that may be asked again, if there is one.
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

/// Gives every query that is still open the same error.
fn close(results: &mut [Option<SearchResult>], error: &SearchError) {
    for open in results.iter_mut().filter(|result| result.is_none()) {
        *open = Some(Err(error.clone()));
    }
}

/// A connection that cannot be made, breaks or takes too long may do better next time.
fn transport(error: &reqwest::Error) -> Attempt {
    Attempt::Retry { reason: http::with_causes(error), asked: None }
}

/// `Retry-After` in seconds. Its other form, a date, would need the clocks to agree and is ignored.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse::<u64>().ok().map(Duration::from_secs)
}

fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(ERROR_BODY_CHARS).collect()
}
