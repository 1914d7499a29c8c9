//! One request and its outcome, which is either a complete answer with a list per query or a kind of
//! failure.

use std::fmt;
use std::time::{Duration, Instant};

use reqwest::{Client, Response, StatusCode, Url, header};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use shared::contract::wire::RetrieveRequest;
use shared::machine::http;

use super::BenchError;

/// The longest accepted answer. A longer one counts as malformed.
const MAX_RESPONSE_BYTES: usize = 1 << 30;
const MAX_INFO_BYTES: usize = 1 << 20;
const INFO_LIMIT: Duration = Duration::from_secs(5);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// The outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every query has a list of passages.
    Answered {
        /// The number of queries whose list is empty.
        queries_without_passages: u64,
    },
    /// At least one query has no list.
    Failed(Failure),
}

/// The kind of a failure.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// No connection was established.
    Connection,
    /// No complete answer arrived in time.
    Timeout,
    /// The connection broke.
    Transport,
    /// The status was not 200. An overloaded server sends 503.
    Status(u16),
    /// The status was 200, but the body does not answer these queries.
    Malformed,
    /// The server could not answer a query of the request.
    Query(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection => formatter.write_str("connection"),
            Self::Timeout => formatter.write_str("timeout"),
            Self::Transport => formatter.write_str("transport"),
            Self::Status(status) => write!(formatter, "status {status}"),
            Self::Malformed => formatter.write_str("malformed answer"),
            Self::Query(code) => write!(formatter, "query: {code}"),
        }
    }
}

/// The texts to send in turn, with `batch_queries` in each request.
#[derive(Clone, Debug)]
pub struct Requests {
    queries: Vec<String>,
    batch_queries: usize,
    top_k: usize,
}

impl Requests {
    /// Makes requests with `batch_queries` of the `queries` each. There must be at least one query. The
    /// texts should differ, because a server may search for equal ones only once.
    pub fn new(queries: Vec<String>, batch_queries: usize, top_k: usize) -> Self {
        Self { queries, batch_queries, top_k }
    }

    /// Returns the number of queries in a request.
    pub fn batch_queries(&self) -> usize {
        self.batch_queries
    }

    /// Returns the body of request `number`. It has the queries after those of the previous request, and
    /// starts again from the first after the last.
    pub fn body(&self, number: u64) -> Vec<u8> {
        let count = self.queries.len();
        let first = (u128::from(number) * self.batch_queries as u128 % count as u128) as usize;
        let queries = (first..first + self.batch_queries)
            .map(|position| self.queries[position % count].clone())
            .collect();
        let request = RetrieveRequest { queries, topk: Some(self.top_k), return_scores: true };
        serde_json::to_vec(&request).expect("texts and numbers always have a JSON form")
    }
}

/// A client of one server.
#[derive(Clone, Debug)]
pub struct Asker {
    http: Client,
    endpoint: Url,
    batch_queries: usize,
}

impl Asker {
    /// Sets up the client without connecting yet. Each request is cancelled after `timeout`.
    pub fn new(endpoint: Url, batch_queries: usize, timeout: Duration) -> Result<Self, BenchError> {
        let http = http::client_builder()
            .connect_timeout(CONNECT_LIMIT.min(timeout))
            .timeout(timeout)
            .no_proxy()
            .tcp_nodelay(true)
            .redirect(http::redirects_within_server())
            .build()
            .map_err(|error| BenchError::Client(error.to_string()))?;
        Ok(Self { http, endpoint, batch_queries })
    }

    /// Returns the address of the requests.
    pub fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// Returns the server's `/info`, or `null` if it has none.
    pub async fn server(&self) -> Value {
        let mut url = self.endpoint.clone();
        let base = url.path().trim_end_matches("/retrieve").to_owned();
        url.set_path(&format!("{base}/info"));
        let Ok(response) = self.http.get(url).timeout(INFO_LIMIT).send().await else {
            return Value::Null;
        };
        let is_ok = response.status() == StatusCode::OK;
        match read_body(response, MAX_INFO_BYTES).await {
            Ok(bytes) if is_ok => serde_json::from_slice(&bytes).unwrap_or_default(),
            _ => Value::Null,
        }
    }

    /// Sends a body of [`Requests`]. The returned time is that of the answer's last byte, so the latency
    /// does not include the client's own parsing.
    pub async fn ask(&self, body: Vec<u8>) -> (Outcome, Instant) {
        let request = self
            .http
            .post(self.endpoint.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(body);
        let answer = match request.send().await {
            Ok(response) if response.status() == StatusCode::OK => {
                read_body(response, MAX_RESPONSE_BYTES).await
            }
            Ok(response) => Err(Failure::Status(response.status().as_u16())),
            Err(error) => Err(failure(&error)),
        };
        let ended = Instant::now();
        let outcome = answer.and_then(|bytes| judge(&bytes, self.batch_queries));
        (outcome.unwrap_or_else(Outcome::Failed), ended)
    }
}

/// Reads a body, which must not be longer than `max_bytes`.
async fn read_body(mut response: Response, max_bytes: usize) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failure(&error))? {
        if bytes.len() + chunk.len() > max_bytes {
            return Err(Failure::Malformed);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn failure(error: &reqwest::Error) -> Failure {
    if error.is_timeout() {
        Failure::Timeout
    } else if error.is_connect() {
        Failure::Connection
    } else {
        Failure::Transport
    }
}

/// The parts of an answer that are counted.
#[derive(Deserialize)]
struct AnswerBody {
    result: Vec<Vec<IgnoredAny>>,
    #[serde(default)]
    errors: Vec<QueryError>,
}

#[derive(Deserialize)]
struct QueryError {
    code: String,
}

/// Judges whether `bytes` answer `queries` queries.
fn judge(bytes: &[u8], queries: usize) -> Result<Outcome, Failure> {
    let answer: AnswerBody = serde_json::from_slice(bytes).map_err(|_| Failure::Malformed)?;
    if let Some(error) = answer.errors.into_iter().next() {
        return Err(Failure::Query(error.code));
    }
    if answer.result.len() != queries {
        return Err(Failure::Malformed);
    }
    let empty = answer.result.iter().filter(|list| list.is_empty()).count() as u64;
    Ok(Outcome::Answered { queries_without_passages: empty })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_cycle_through_the_queries() {
        let queries = ["a", "b", "c"].map(str::to_owned).to_vec();
        let requests = Requests::new(queries, 2, 5);
        let bodies: Vec<Value> =
            (0..4).map(|number| serde_json::from_slice(&requests.body(number)).unwrap()).collect();
        let body =
            |queries: [&str; 2]| json!({"queries": queries, "topk": 5, "return_scores": true});
        let expected = [["a", "b"], ["c", "a"], ["b", "c"], ["a", "b"]].map(body);
        assert_eq!(bodies, expected);
        // A number that no run reaches does not overflow.
        requests.body(u64::MAX);
    }

    #[test]
    fn an_answer_has_a_list_for_every_query() {
        let judged = |body: &str| judge(body.as_bytes(), 2);
        let passage = r#"{"document":{"id":3,"contents":"x"},"score":0.5}"#;
        let answered = |empty| Ok(Outcome::Answered { queries_without_passages: empty });
        assert_eq!(judged(&format!(r#"{{"result":[[{passage}],[{passage}]]}}"#)), answered(0));
        assert_eq!(judged(&format!(r#"{{"result":[[],[{passage}]]}}"#)), answered(1));
        for body in [r#"{"result":[[]]}"#, "not JSON", r#"{"results":[[],[]]}"#, "[]"] {
            assert_eq!(judged(body), Err(Failure::Malformed), "{body}");
        }
        let failed = r#"{"result":[[],[]],"errors":[{"index":1,"code":"deadline_exceeded"}]}"#;
        assert_eq!(judged(failed), Err(Failure::Query("deadline_exceeded".to_owned())));
    }
}
