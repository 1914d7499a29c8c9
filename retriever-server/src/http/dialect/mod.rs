//! The request shapes of the known clients of a Search-R1 retrieval server, and the response that each
//! expects. Every shape becomes one batch of queries.
//!
//! | keys | clients | response |
//! |---|---|---|
//! | `queries`, `topk`, `return_scores` | Search-R1, veRL, slime, verl-tool | one list per query |
//! | `queries`, `topk_rerank`, `return_scores` | Search-R1 with a re-ranker | one list per query |
//! | `query`, `topk`, `return_scores` | SkyRL-gym, NeMo RL | one list |
//! | `query`, a list | SkyRL-gym's followers that join calls | one list per query |
//! | `query`, `top_k` or `k` | rLLM | `{"query", "method", "results", "num_results"}` |
//!
//! In every shape, `"partial": true` asks for the lists of the other queries if some fail. Unknown keys are
//! ignored, as those clients' own servers do.

mod json;
mod values;

use serde_json::{Map, Value};
use shared::contract::wire::{Location, ValidationError};

use crate::config::RequestLimits;
use crate::json_kind::json_kind;
use crate::query::QueryBatch;

pub(super) use values::{TopK, is_true, top_k};

/// The most faults that one response lists.
pub(super) const MAX_FAULTS: usize = 32;

/// The key of the passages per query after a re-ranker.
const RERANKED_KEY: &str = "topk_rerank";
/// The keys of the passages per query in requests of rLLM.
const RLLM_KEYS: [&str; 2] = ["top_k", "k"];

/// The shape of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `{"result": [[{"document": {..}, "score": ..}]]}`.
    Scored,
    /// `{"result": [[{"id": .., "contents": ..}]]}`.
    Bare,
    /// The shape of rLLM, which repeats the query.
    Rllm,
}

/// A parsed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) batch: QueryBatch,
    pub(crate) shape: Shape,
    /// `true` if queries may fail alone; else a failed query fails the request.
    pub(crate) is_partial: bool,
    /// `true` if the request wants more passages than the limit.
    pub(crate) is_top_k_limited: bool,
}

/// Parses a body. The `Content-Type` is ignored, because some clients send none.
pub(crate) fn parse(body: &[u8], limits: &RequestLimits) -> Result<Call, Vec<ValidationError>> {
    let fields = object(body).map_err(|fault| vec![fault])?;
    let mut faults = Vec::new();
    let given = |key| fields.get(key).filter(|value: &&Value| !value.is_null());
    let (queries, is_single) = match (given("queries"), given("query")) {
        (Some(queries), _) => (query_list("queries", queries, limits, &mut faults), false),
        (None, Some(list @ Value::Array(_))) => {
            (query_list("query", list, limits, &mut faults), false)
        }
        (None, Some(query)) => (single_query(query, &mut faults), true),
        (None, None) => {
            let message = "field required: queries, a list of strings, or query, a string";
            faults.push(fault(&["queries"], None, message, "missing"));
            (Vec::new(), false)
        }
    };
    let key = top_k_key(&fields, given("queries").is_some());
    let TopK { passages, is_limited } = top_k(&fields, key, limits, &mut faults);
    let with_scores = is_true(&fields, "return_scores", &mut faults);
    let is_partial = is_true(&fields, "partial", &mut faults);
    let shape = match with_scores {
        _ if is_single && RLLM_KEYS.contains(&key) => Shape::Rllm,
        true => Shape::Scored,
        false => Shape::Bare,
    };
    if faults.is_empty() {
        let batch = QueryBatch { queries: queries.into(), top_k: passages };
        Ok(Call { batch, shape, is_partial, is_top_k_limited: is_limited })
    } else {
        faults.truncate(MAX_FAULTS);
        Err(faults)
    }
}

/// Returns the key of the number of passages. Beside `queries`, the keys of rLLM are unknown ones.
fn top_k_key(fields: &Map<String, Value>, has_queries: bool) -> &'static str {
    let others: &[&'static str] = if has_queries { &[RERANKED_KEY] } else { &RLLM_KEYS };
    let keys = ["topk"].into_iter().chain(others.iter().copied());
    keys.into_iter().find(|key| fields.contains_key(*key)).unwrap_or("topk")
}

/// Parses a JSON object.
pub(super) fn object(body: &[u8]) -> Result<Map<String, Value>, ValidationError> {
    match json::read(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => {
            let message = format!("the body is {}, expected an object", json_kind(&other));
            Err(fault(&[], None, &message, "object_type"))
        }
        Err(message) => Err(fault(&[], None, &message, "json_invalid")),
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
        let message = format!("is {}, expected a list of strings", json_kind(value));
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
                let message = format!("is {}, expected a string", json_kind(other));
                faults.push(fault(&[key], Some(index), &message, "string_type"));
            }
        }
    }
    queries
}

fn single_query(value: &Value, faults: &mut Vec<ValidationError>) -> Vec<String> {
    if let Value::String(query) = value {
        return vec![query.clone()];
    }
    let message = format!("is {}, expected a string or a list of strings", json_kind(value));
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
