//! The JSON of `/retrieve`, as both services read and write it. Only data: the server decides what the fields mean
//! to a back end, and recognises the dialects of other clients.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::contract::passage::Passage;

/// Header of responses to queries: the `identity` in `/info` of the server when it answered.
pub const IDENTITY_HEADER: &str = "x-retriever-identity";

/// A batch of queries, in the dialect of Search-R1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetrieveRequest {
    /// Queries, in the order of their results. May be empty.
    pub queries: Vec<String>,
    /// Passages per query. Absent or 0 means the server's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topk: Option<usize>,
    /// `true` if every passage is to come with its score.
    #[serde(default)]
    pub return_scores: bool,
}

/// The answer to a [`RetrieveRequest`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RetrieveResponse {
    /// One list per query, best passage first.
    pub result: Vec<Vec<RankedPassage>>,
    /// The queries that failed. Their lists in `result` are empty, which without this entry would mean
    /// "nothing found".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<QueryError>,
}

/// A passage in a result list, with its score if the request asked for scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum RankedPassage {
    /// `{"document": {..}, "score": ..}`.
    Scored {
        /// The passage.
        document: Passage,
        /// The score: higher is better, and the scale depends on the back end.
        score: f64,
    },
    /// The passage alone.
    Bare(Passage),
}

impl RankedPassage {
    /// Returns the passage, in whichever form it was sent.
    pub fn passage(&self) -> &Passage {
        match self {
            Self::Scored { document, .. } | Self::Bare(document) => document,
        }
    }

    /// Returns the score, if there is one.
    pub fn score(&self) -> Option<f64> {
        match self {
            Self::Scored { score, .. } => Some(*score),
            Self::Bare(_) => None,
        }
    }
}

/// The failure of one query of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QueryError {
    /// Position of the query in the request.
    pub index: usize,
    /// Kind of the failure.
    pub code: QueryErrorCode,
    /// `true` if the same query may succeed when it is sent again.
    pub retryable: bool,
}

/// The kinds of failures of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueryErrorCode {
    /// The server's time limit passed before the query was answered.
    DeadlineExceeded,
    /// The query is longer than the server accepts. Servers of this version cut it instead.
    QueryTooLong,
    /// A service behind the server failed.
    UpstreamFailed,
    /// A service behind the server refused the query. Another attempt does not help.
    UpstreamRefused,
    /// A fault of the server; its log has the details.
    Internal,
    /// A code that this version does not know.
    #[serde(other)]
    Unknown,
}

/// The body of a 422: the faults of the request and their positions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ValidationErrors {
    /// All faults, at least one.
    pub detail: Vec<ValidationError>,
}

/// One fault of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ValidationError {
    /// Path to the value, such as `["body", "queries", 3]`.
    pub loc: Vec<Location>,
    /// The fault, and what is accepted.
    pub msg: String,
    /// Kind of the fault, for programs.
    #[serde(rename = "type")]
    pub kind: String,
}

/// A step of a path into a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Location {
    /// Position in a list.
    Index(usize),
    /// Key of an object.
    Key(String),
}

/// The body of every other error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// Description of the error.
    pub detail: String,
    /// Name of the error, for programs.
    pub code: String,
    /// The limit that the request exceeded, in bytes (413 only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<usize>,
}

/// The body of `GET /info`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServerInfo {
    /// Name of the program.
    pub name: String,
    /// Version of the program.
    pub version: String,
    /// Back end that answers, such as `bm25`.
    pub backend: String,
    /// The back ends that search: the parts of a hybrid back end, else the back end itself.
    #[serde(default)]
    pub components: Vec<String>,
    /// `true` if a re-ranker follows the back end; scores are then the re-ranker's.
    #[serde(default)]
    pub has_reranker: bool,
    /// SHA-256 of the index manifest, which holds the digest of every index file. For an engine, the index that it was
    /// loaded from. Absent, like the next two, if another service holds the passages and does not say which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_digest: Option<String>,
    /// Passages in the index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passage_count: Option<u64>,
    /// Analysis of queries and passages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analyzer: Option<String>,
    /// SHA-256 of everything that answers depend on. Responses have it in the header `x-retriever-identity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// BM25 term-frequency saturation.
    pub k1: f32,
    /// BM25 length normalisation.
    pub b: f32,
    /// Limits of the server.
    pub limits: ServerLimits,
}

/// The limits of a server, so that clients can observe them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerLimits {
    /// Passages per query if the request has no number.
    pub default_top_k: usize,
    /// Maximum number of passages per query; a request for more gets as many.
    pub max_top_k: usize,
    /// Maximum number of queries in a request.
    pub max_batch_queries: usize,
    /// Maximum length of a query, in bytes; the rest of a longer one is ignored.
    pub max_query_bytes: usize,
    /// Maximum size of a request body, in bytes.
    pub max_body_bytes: usize,
    /// Maximum number of concurrently admitted queries of all requests.
    pub max_queued_queries: usize,
    /// Time limit of a request, in milliseconds.
    pub deadline_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_result_shapes_are_read() {
        let text = r#"{"result":[[{"document":{"id":"1","contents":"a"},"score":0.5}],
                                 [{"id":2,"contents":"b"}]],
                       "errors":[{"index":3,"code":"upstream_timeout","retryable":true}]}"#;
        let response: RetrieveResponse = serde_json::from_str(text).unwrap();
        assert_eq!(response.result[0][0].score(), Some(0.5));
        assert_eq!(response.result[1][0].passage().id, "2");
        assert_eq!(response.result[1][0].score(), None);
        assert_eq!(response.errors[0].code, QueryErrorCode::Unknown);
        assert!(response.errors[0].retryable);
    }

    #[test]
    fn a_response_without_errors_has_no_errors_key() {
        let text = serde_json::to_string(&RetrieveResponse::default()).unwrap();
        assert_eq!(text, r#"{"result":[]}"#);
    }
}
