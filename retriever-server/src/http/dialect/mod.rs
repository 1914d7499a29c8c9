//! The request shapes of the known clients of a Search-R1 retrieval server, and the response that each
//! expects. Every shape becomes one batch of queries.
//!
//! | path | keys | clients | response |
//! |---|---|---|---|
//! | `/retrieve` | `queries`, `topk`, `return_scores` | Search-R1, veRL, slime, verl-tool | one list per query |
//! | | `queries`, `topk_rerank`, `return_scores` | Search-R1 with a re-ranker | one list per query |
//! | | `queries` | web search servers of Search-R1, profile `proxy` | one list per query, `document` without a score |
//! | | `query`, `topk`, `return_scores` | SkyRL-gym, NeMo RL | one list |
//! | | the same in MessagePack | GEM | the list of the one query, not in a list |
//! | | `query`, a list | SkyRL-gym's followers that join calls | one list per query |
//! | | `query`, `top_k` or `k` | rLLM | `{"query", "method", "results", "num_results"}` |
//! | | the same, profile `zerosearch` | ZeroSearch | `[{"text"}]` |
//! | `/search` | `query`, `top_n`, `return_score` | ReCall, ReSearch | a list, or list and scores |
//! | `/batch_search` | `query`, a list | ReCall, ReSearch | the same for each query |
//! | `/queries` | `queries`, `k` | R1-Searcher | `{"queries", "answers"}` |
//!
//! A body is JSON or MessagePack, by its first byte, and so is its answer. On `/retrieve`, `"partial": true` asks for
//! the lists of the other queries if some fail. Unknown keys are ignored, as those clients' own servers do.

mod json;
mod message_pack;
mod values;

use serde_json::{Map, Value};
use shared::contract::rows::kind_of;
use shared::contract::wire::{Location, ValidationError};

use crate::config::{Profile, RequestLimits};
use crate::query::QueryBatch;

pub(super) use values::{TopK, is_true, top_k};

/// The most faults that one response lists.
pub(super) const MAX_FAULTS: usize = 32;

/// The kind of the fault of an empty query, where the client's own server refuses one with status 400.
pub(super) const EMPTY_QUERY: &str = "empty_query";

/// The key of the passages per query after a re-ranker.
const RERANKED_KEY: &str = "topk_rerank";
/// The keys of the passages per query in requests of rLLM.
const RLLM_KEYS: [&str; 2] = ["top_k", "k"];

/// The path of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/retrieve`.
    Retrieve,
    /// `/search`.
    Search,
    /// `/batch_search`.
    BatchSearch,
    /// `/queries`.
    Queries,
}

/// The encoding of a request and its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    MessagePack,
}

impl Encoding {
    /// Returns the encoding of a body: a map of MessagePack begins with a byte that no JSON begins with.
    pub(crate) fn of(body: &[u8]) -> Self {
        match body.first() {
            Some(0x80..=0x8f | 0xde | 0xdf) => Self::MessagePack,
            _ => Self::Json,
        }
    }
}

/// The shape of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `{"result": [[{"document": {..}, "score": ..}]]}`.
    Scored,
    /// `{"result": [[{"id": .., "contents": ..}]]}`.
    Bare,
    /// `{"result": [[{"document": {..}}]]}`.
    Wrapped,
    /// `{"result": [{"document": {..}, "score": ..}]}`, for one query.
    Single,
    /// The shape of rLLM, which repeats the query.
    Rllm,
    /// `[{"text": ..}]`, for one query.
    Texts,
    /// `[{"id": .., "contents": ..}]` for one query, or a list of these for several; with scores,
    /// `[documents, scores]`.
    Documents {
        /// `true` for one query.
        is_single: bool,
        /// `true` if scores follow the documents.
        with_scores: bool,
    },
    /// `{"queries": [..], "answers": [["1\tcontents"]]}`.
    Answers,
}

/// A parsed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) batch: QueryBatch,
    pub(crate) shape: Shape,
    pub(crate) encoding: Encoding,
    /// `true` if queries may fail alone; else a failed query fails the request.
    pub(crate) is_partial: bool,
    /// `true` if the request wants more passages than the limit.
    pub(crate) is_top_k_limited: bool,
}

/// Parses a body. The `Content-Type` is ignored, because some clients send none.
pub(crate) fn parse(
    body: &[u8],
    limits: &RequestLimits,
    route: Route,
    profile: Profile,
) -> Result<Call, Vec<ValidationError>> {
    let fields = object(body).map_err(|fault| vec![fault])?;
    let encoding = Encoding::of(body);
    let mut faults = Vec::new();
    let (queries, is_single) = queries(&fields, route, limits, &mut faults);
    let has_list = fields.get("queries").is_some_and(|value| !value.is_null());
    let key = match route {
        Route::Retrieve => top_k_key(&fields, has_list),
        Route::Search | Route::BatchSearch => "top_n",
        Route::Queries => "k",
    };
    let TopK { passages, is_limited } = top_k(&fields, key, limits, &mut faults);
    let mut flag = |key| is_true(&fields, key, &mut faults);
    let shape = match route {
        Route::Search | Route::BatchSearch => {
            let with_scores = flag("return_score");
            Shape::Documents { is_single: route == Route::Search, with_scores }
        }
        Route::Queries => Shape::Answers,
        Route::Retrieve => {
            let with_scores = flag("return_scores");
            let is_rllm = is_single && RLLM_KEYS.contains(&key);
            match profile {
                Profile::Zerosearch if is_rllm => Shape::Texts,
                _ if is_rllm => Shape::Rllm,
                _ if is_single && with_scores && encoding == Encoding::MessagePack => Shape::Single,
                _ if with_scores => Shape::Scored,
                Profile::Proxy if !fields.contains_key("return_scores") => Shape::Wrapped,
                _ => Shape::Bare,
            }
        }
    };
    let is_partial = route == Route::Retrieve && shape != Shape::Texts && flag("partial");
    if faults.is_empty() {
        let batch = QueryBatch { queries: queries.into(), top_k: passages };
        Ok(Call { batch, shape, encoding, is_partial, is_top_k_limited: is_limited })
    } else {
        faults.truncate(MAX_FAULTS);
        Err(faults)
    }
}

/// Reads the queries of a request. The truth value is `true` for a single one.
fn queries(
    fields: &Map<String, Value>,
    route: Route,
    limits: &RequestLimits,
    faults: &mut Vec<ValidationError>,
) -> (Vec<String>, bool) {
    let given = |key| fields.get(key).filter(|value: &&Value| !value.is_null());
    let (list, single) = match route {
        Route::Retrieve => (given("queries"), given("query")),
        Route::Search | Route::BatchSearch => (None, given("query")),
        Route::Queries => (given("queries"), None),
    };
    match (list, single) {
        (Some(queries), _) => (query_list("queries", queries, limits, faults), false),
        (None, Some(list @ Value::Array(_))) if route != Route::Search => {
            (query_list("query", list, limits, faults), false)
        }
        (None, Some(other)) if route == Route::BatchSearch => {
            (query_list("query", other, limits, faults), false)
        }
        (None, Some(query)) => {
            let accepted =
                if route == Route::Search { "a string" } else { "a string or a list of strings" };
            let queries = single_query(query, accepted, faults);
            if route == Route::Search && queries.iter().any(|query| query.trim().is_empty()) {
                faults.push(fault(&["query"], None, "is empty, expected a text", EMPTY_QUERY));
            }
            (queries, true)
        }
        (None, None) => {
            let (key, message) = match route {
                Route::Retrieve => {
                    ("queries", "field required: queries, a list of strings, or query, a string")
                }
                Route::Queries => ("queries", "field required: queries, a list of strings"),
                Route::Search => ("query", "field required: query, a string"),
                Route::BatchSearch => ("query", "field required: query, a list of strings"),
            };
            faults.push(fault(&[key], None, message, "missing"));
            (Vec::new(), false)
        }
    }
}

/// Returns the key of the number of passages. Beside `queries`, the keys of rLLM are unknown ones.
fn top_k_key(fields: &Map<String, Value>, has_queries: bool) -> &'static str {
    let others: &[&'static str] = if has_queries { &[RERANKED_KEY] } else { &RLLM_KEYS };
    let keys = ["topk"].into_iter().chain(others.iter().copied());
    keys.into_iter().find(|key| fields.contains_key(*key)).unwrap_or("topk")
}

/// Parses an object of JSON or MessagePack.
pub(super) fn object(body: &[u8]) -> Result<Map<String, Value>, ValidationError> {
    let parsed = match Encoding::of(body) {
        Encoding::Json => json::read(body),
        Encoding::MessagePack => message_pack::read(body),
    };
    match parsed {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => {
            let message = format!("the body is {}, expected an object", kind_of(&other));
            Err(fault(&[], None, &message, "object_type"))
        }
        Err(message) => {
            let kind = match Encoding::of(body) {
                Encoding::Json => "json_invalid",
                Encoding::MessagePack => "msgpack_invalid",
            };
            Err(fault(&[], None, &message, kind))
        }
    }
}

/// Reads the list of queries at `key`. Faults are added to `faults`.
pub(super) fn query_list(
    key: &str,
    value: &Value,
    limits: &RequestLimits,
    faults: &mut Vec<ValidationError>,
) -> Vec<String> {
    let Value::Array(values) = value else {
        let message = format!("is {}, expected a list of strings", kind_of(value));
        faults.push(fault(&[key], None, &message, "list_type"));
        return Vec::new();
    };
    if values.len() > limits.max_batch_queries {
        let message =
            format!("has {} queries, expected at most {}", values.len(), limits.max_batch_queries);
        faults.push(fault(&[key], None, &message, "too_long"));
        return Vec::new();
    }
    let mut queries = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        match value {
            Value::String(query) => queries.push(query.clone()),
            other => {
                let message = format!("is {}, expected a string", kind_of(other));
                faults.push(fault(&[key], Some(index), &message, "string_type"));
            }
        }
    }
    queries
}

fn single_query(value: &Value, accepted: &str, faults: &mut Vec<ValidationError>) -> Vec<String> {
    if let Value::String(query) = value {
        return vec![query.clone()];
    }
    let message = format!("is {}, expected {accepted}", kind_of(value));
    faults.push(fault(&["query"], None, &message, "string_type"));
    Vec::new()
}

/// Returns a fault at the path of `keys` in the body, then at `index`.
pub(super) fn fault(
    keys: &[&str],
    index: Option<usize>,
    message: &str,
    kind: &str,
) -> ValidationError {
    let keys = keys.iter().map(|key| Location::Key((*key).to_owned()));
    let loc = std::iter::once(Location::Key("body".to_owned()))
        .chain(keys)
        .chain(index.map(Location::Index))
        .collect();
    ValidationError { loc, msg: message.to_owned(), kind: kind.to_owned() }
}

#[cfg(test)]
mod tests;
