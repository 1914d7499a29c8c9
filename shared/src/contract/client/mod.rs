//! The client of `POST /retrieve`, for one server or several that serve the same index.
//!
//! Owns the request, the choice of the server, retries under a deadline, and all checks of the response. Each query gets
//! its own answer: passages, or an error that names the server. A failure never looks like an empty list, because a model
//! that trains on the answers would learn that searches find nothing.

mod address;
pub mod pause;
mod reply;
mod serving;
mod headers;
mod health;
mod hedge;
mod server;
mod discovery;
mod fleet;
mod slots;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub use self::address::{NAME_PREFIX, endpoint, listed};
pub use self::headers::{RequestHeaders, TIMEOUT_HEADER};
pub use self::serving::{MixedServers, Serving};
pub use crate::contract::passage::Passage;
use crate::contract::retry::{Backoff, RetryPolicy};
use discovery::Resolver;
use fleet::{Fleet, Outcome};
use server::{Fault, Request, Server};
use slots::Slots;

/// The addresses of retrievers, and limits of requests.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Addresses, separated by commas: `http://host:port`, with or without `/retrieve`, with or without a slash at its
    /// end. With the prefix `dns+`, the host is a name, and each of its addresses is a server.
    pub url: String,
    /// Time limit for opening a connection.
    pub connect_timeout: Duration,
    /// Time limit for one attempt, from connecting to the last byte of the answer. Without it, one server may take all
    /// the time before the deadline: a slow server would otherwise compute the same answer again and again. Of several
    /// servers, one may take half of it.
    pub attempt_timeout: Option<Duration>,
    /// Pauses between attempts, and the deadline of all attempts together.
    pub retry: RetryPolicy,
    /// Most requests, in percent of all, that ask a second server because the first is late; 0 asks none.
    pub hedge_percent: u32,
    /// Maximum number of queries in a request; a longer list is sent in several requests.
    pub max_request_queries: usize,
    /// Maximum size of an answer; a longer one is refused.
    pub max_response_bytes: usize,
    /// Headers that each request gets in addition.
    pub request_headers: RequestHeaders,
}

impl ClientConfig {
    /// Returns limits for a local server: two minutes in all.
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            connect_timeout: Duration::from_secs(5),
            attempt_timeout: None,
            retry: RetryPolicy::default(),
            hedge_percent: 5,
            max_request_queries: 512,
            max_response_bytes: 64 * 1024 * 1024,
            request_headers: RequestHeaders::default(),
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
    /// The server serves something else than before, and the client was told to accept no change.
    #[error(
        "the retriever at {url} now has the identity {found}, and had {expected}: its index or its settings changed"
    )]
    Changed { url: String, expected: String, found: String },
    /// This query failed, independently of the others in the request.
    #[error("the retriever at {url} could not answer this query: {code}")]
    Failed { url: String, code: String },
}

fn attempts_in_words(attempts: u32) -> String {
    if attempts == 1 { "1 attempt".to_owned() } else { format!("{attempts} attempts") }
}

/// The answer to a query: passages, best first, or an error. An empty list is a success.
pub type SearchResult = Result<Vec<Passage>, SearchError>;

/// The answer of one server to a question that was asked once.
#[derive(Clone, Debug)]
pub struct ServerReply {
    /// The address of the server, without secrets.
    pub url: String,
    pub result: SearchResult,
    pub milliseconds: u128,
}

/// A client of one retriever, or of several. Clones share its connections and what it knows about the servers.
#[derive(Clone, Debug)]
pub struct RetrieveClient {
    fleet: Arc<Fleet>,
    config: ClientConfig,
}

impl RetrieveClient {
    /// Makes a client. Does not connect yet.
    ///
    /// # Errors
    /// An invalid address, or an HTTP client that cannot be set up.
    pub fn new(config: ClientConfig) -> Result<Self, ConfigError> {
        Self::with_resolver(config, Resolver::of_system())
    }

    fn with_resolver(config: ClientConfig, resolver: Resolver) -> Result<Self, ConfigError> {
        Ok(Self { fleet: Arc::new(Fleet::new(config.clone(), resolver)?), config })
    }

    /// Returns the configured addresses for messages, without secrets.
    pub fn shown_addresses(&self) -> &str {
        &self.fleet.shown
    }

    /// Returns at most `top_k` passages for each of `queries`, in their order.
    ///
    /// Retries until the deadline after failed connections, timeouts, status 408, 429, 500, 502, 503 and 504, and for
    /// queries that the server marks as retryable: at once if another server can be asked, else after a pause. Cancel
    /// safe: dropping the future drops the requests.
    pub async fn retrieve(&self, queries: &[String], top_k: usize) -> Vec<SearchResult> {
        let mut results = Vec::with_capacity(queries.len());
        for batch in queries.chunks(self.config.max_request_queries.max(1)) {
            results.extend(self.retrieve_batch(batch, top_k).await);
        }
        results
    }

    /// Sends one query to each server once, without a retry, and waits at most `limit` for the answers. Returns at least
    /// one reply, in the order of the servers.
    pub async fn ask_each_once(
        &self,
        query: &str,
        top_k: usize,
        limit: Duration,
    ) -> Vec<ServerReply> {
        let started = Instant::now();
        self.fleet.look_up().await;
        let asked = self.fleet.of_each(|server| {
            let query = query.to_owned();
            async move { ask_once(&server, &query, top_k, limit).await }
        });
        let mut replies: Vec<ServerReply> =
            asked.await.into_iter().map(|(_, reply)| reply).collect();
        if let Some(last) = self.fleet.lookup_fault() {
            let (url, milliseconds) = (self.fleet.shown.clone(), started.elapsed().as_millis());
            let result = Err(self.unavailable(0, milliseconds, last));
            replies.push(ServerReply { url, result, milliseconds });
        }
        replies
    }

    /// Compares what the servers serve, if there are several: index, back end and settings. Returns the addresses of those
    /// that did not answer, with the reason. Each server is compared again before its first query and after a failure.
    ///
    /// # Errors
    /// Two servers that differ.
    pub async fn compare_servers(&self) -> Result<Vec<String>, MixedServers> {
        self.fleet.compare().await
    }

    /// Asks the servers what they serve, until one answers or `limit` has passed. Returns `None` for a server that does
    /// not say so, as those of other programs.
    ///
    /// # Errors
    /// The reason of the last failure.
    pub async fn serving(&self, limit: Duration) -> Result<Option<Serving>, String> {
        let started = Instant::now();
        let mut backoff = Backoff::new(RetryPolicy { deadline: limit, ..self.config.retry });
        loop {
            let remaining = limit.saturating_sub(started.elapsed());
            let reason = match self.fleet.serving(remaining).await {
                Ok(serving) => return Ok(serving),
                Err(reason) => reason,
            };
            let Some(pause) = backoff.next_pause(started.elapsed(), None) else {
                return Err(reason);
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Accepts no answer of a server with another identity from now on.
    pub fn pin_identity(&self, identity: &str) {
        self.fleet.pin_identity(identity);
    }

    fn unavailable(&self, attempts: u32, elapsed_ms: u128, last: String) -> SearchError {
        SearchError::Unavailable { url: self.fleet.shown.clone(), attempts, elapsed_ms, last }
    }

    async fn retrieve_batch(&self, queries: &[String], top_k: usize) -> Vec<SearchResult> {
        let (started, deadline) = (Instant::now(), self.config.retry.deadline);
        let mut backoff = Backoff::new(self.config.retry);
        let mut slots = Slots::new(queries.len());
        let mut round = Round::default();
        let mut attempts = 0;
        loop {
            let open = slots.open();
            if open.is_empty() {
                return slots.into_results();
            }
            let open_queries: Vec<&str> = open.iter().map(|&slot| queries[slot].as_str()).collect();
            let request = Request { queries: &open_queries, top_k };
            let remaining = deadline.saturating_sub(started.elapsed());
            let (sent, outcome) = self.fleet.ask(request, &round.tried, remaining).await;
            attempts += sent;
            match outcome {
                Outcome::Answered(server, answers) => {
                    let Some(code) = slots.fill(&server, &open, answers) else { continue };
                    round.note(server.clone(), self.fleet.named(&server, &code), None);
                }
                Outcome::Failed(faults) => {
                    for (server, fault) in faults {
                        match fault {
                            Fault::Retry { reason, requested_pause } => {
                                let reason = self.fleet.named(&server, &reason);
                                round.note(server, reason, requested_pause);
                            }
                            Fault::Final(error) => slots.close(&error),
                        }
                    }
                }
                Outcome::NoServer(reason) => round.last = reason,
            }
            let elapsed = started.elapsed();
            let has_time = elapsed < deadline;
            if slots.open().is_empty() || (has_time && self.fleet.has_other(&round.tried)) {
                continue;
            }
            let Some(pause) = backoff.next_pause(elapsed, round.requested_pause()) else {
                slots.close(&self.unavailable(attempts, elapsed.as_millis(), round.last));
                return slots.into_results();
            };
            let (url, pause_ms, reason) = (&self.fleet.shown, pause.as_millis(), &round.last);
            tracing::warn!(url, attempts, pause_ms, reason, "search failed, retrying");
            tokio::time::sleep(pause).await;
            round = Round::default();
        }
    }
}

/// Sends one query to a server once.
async fn ask_once(server: &Server, query: &str, top_k: usize, limit: Duration) -> ServerReply {
    let started = Instant::now();
    let mut slots = Slots::new(1);
    let asked = server.ask(Request { queries: &[query], top_k }, limit).await;
    let milliseconds = started.elapsed().as_millis();
    let last = match asked {
        Ok(reply) => slots.fill(server, &[0], reply.answers),
        Err(Fault::Retry { reason, .. }) => Some(reason),
        Err(Fault::Final(error)) => {
            slots.close(&error);
            None
        }
    };
    let url = server.shown.clone();
    slots.close(&SearchError::Unavailable {
        url: url.clone(),
        attempts: 1,
        elapsed_ms: milliseconds,
        last: last.unwrap_or_default(),
    });
    let result = slots.into_results().pop().expect("one query has one result");
    ServerReply { url, result, milliseconds }
}

/// The attempts since the last pause.
#[derive(Debug, Default)]
struct Round {
    tried: Vec<Arc<Server>>,
    requested_pauses: Vec<Option<Duration>>,
    /// The last failure.
    last: String,
}

impl Round {
    fn note(&mut self, server: Arc<Server>, reason: String, requested_pause: Option<Duration>) {
        self.last = reason;
        self.requested_pauses.push(requested_pause);
        self.tried.push(server);
    }

    /// Returns the shortest pause, if every server requested one.
    fn requested_pause(&self) -> Option<Duration> {
        self.requested_pauses.iter().copied().min().flatten()
    }
}
