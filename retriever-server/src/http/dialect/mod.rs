//! The request shapes of the known clients of a Search-R1 retrieval server, and the response that each
//! expects. Every shape becomes one batch of queries.
//!
//! | keys | clients | response |
//! |---|---|---|
//! | `queries`, `topk`, `return_scores` | Search-R1, veRL, slime, verl-tool | one list per query |
//! | `queries`, `topk_rerank`, `return_scores` | Search-R1 with a re-ranker | one list per query |
//! | `query`, `topk`, `return_scores` | SkyRL-gym, NeMo RL | one list |
//! | `query`, `top_k` or `k` | rLLM | `{"query", "method", "results", "num_results"}` |
//!
//! Unknown keys are ignored, as those clients' own servers do.

use serde_json::{Map, Value};
use shared::contract::wire::{Location, ValidationError};

use crate::config::RequestLimits;
use crate::json_kind::json_kind;
use crate::query::QueryBatch;

/// The most faults that one response lists.
pub(super) const MAX_FAULTS: usize = 32;

/// The key of the passages per query after a re-ranker.
const RERANKED_KEY: &str = "topk_rerank";

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
}

/// Parses a body. The `Content-Type` is ignored, because some clients send none.
pub(crate) fn parse(body: &[u8], limits: &RequestLimits) -> Result<Call, Vec<ValidationError>> {
    let fields = object(body).map_err(|fault| vec![fault])?;
    let mut faults = Vec::new();
    let (queries, is_batch) = match (fields.get("queries"), fields.get("query")) {
        (Some(queries), _) => (query_list(queries, limits, &mut faults), true),
        (None, Some(query)) => (single_query(query, &mut faults), false),
        (None, None) => {
            let message = "field required: queries, a list of strings, or query, a string";
            faults.push(fault(&["queries"], None, message, "missing"));
            (Vec::new(), true)
        }
    };
    let top_k_key = if is_batch || fields.contains_key("topk") {
        let reranked = !fields.contains_key("topk") && fields.contains_key(RERANKED_KEY);
        if reranked { RERANKED_KEY } else { "topk" }
    } else {
        ["top_k", "k"].into_iter().find(|&key| fields.contains_key(key)).unwrap_or("topk")
    };
    let top_k = top_k(&fields, top_k_key, limits, &mut faults);
    let shape = match return_scores(&fields, &mut faults) {
        _ if !["topk", RERANKED_KEY].contains(&top_k_key) => Shape::Rllm,
        true => Shape::Scored,
        false => Shape::Bare,
    };
    if faults.is_empty() {
        Ok(Call { batch: QueryBatch { queries: queries.into(), top_k }, shape })
    } else {
        faults.truncate(MAX_FAULTS);
        Err(faults)
    }
}

/// Parses a JSON object.
pub(super) fn object(body: &[u8]) -> Result<Map<String, Value>, ValidationError> {
    let invalid = |message: String| fault(&[], None, &message, "json_invalid");
    let text = std::str::from_utf8(body).map_err(|error| {
        invalid(format!("the body is not UTF-8: invalid at byte {}", error.valid_up_to()))
    })?;
    if text.trim_ascii().is_empty() {
        return Err(invalid("the body is empty, expected a JSON object".to_owned()));
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => {
            let message = format!("the body is {}, expected an object", json_kind(&other));
            Err(fault(&[], None, &message, "object_type"))
        }
        Err(error) => Err(invalid(format!("the body is not JSON: {error}"))),
    }
}

/// Reads the list of queries. Faults are added to `faults`, here and below.
pub(super) fn query_list(
    value: &Value,
    limits: &RequestLimits,
    faults: &mut Vec<ValidationError>,
) -> Vec<String> {
    let Value::Array(values) = value else {
        let message = format!("is {}, expected a list of strings", json_kind(value));
        faults.push(fault(&["queries"], None, &message, "list_type"));
        return Vec::new();
    };
    if values.len() > limits.max_batch_queries {
        let message =
            format!("has {} queries, expected at most {}", values.len(), limits.max_batch_queries);
        faults.push(fault(&["queries"], None, &message, "too_long"));
        return Vec::new();
    }
    let mut queries = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        match value {
            Value::String(query) => queries.push(query.clone()),
            other => {
                let message = format!("is {}, expected a string", json_kind(other));
                faults.push(fault(&["queries"], Some(index), &message, "string_type"));
            }
        }
    }
    queries
}

fn single_query(value: &Value, faults: &mut Vec<ValidationError>) -> Vec<String> {
    if let Value::String(query) = value {
        return vec![query.clone()];
    }
    let message = format!("is {}, expected a string", json_kind(value));
    faults.push(fault(&["query"], None, &message, "string_type"));
    Vec::new()
}

/// Reads the number of passages. Absent, null and 0 mean the default, as in Search-R1's own server.
pub(super) fn top_k(
    fields: &Map<String, Value>,
    key: &str,
    limits: &RequestLimits,
    faults: &mut Vec<ValidationError>,
) -> usize {
    let value = match fields.get(key) {
        None | Some(Value::Null) => return limits.default_top_k,
        Some(value) => value,
    };
    let accepted = format!("expected an integer from 0 to {}", limits.max_top_k);
    // Some clients send the number as a float.
    let number = value.as_f64().filter(|number| number.fract() == 0.0);
    match number {
        Some(0.0) => limits.default_top_k,
        Some(number) if (1.0..=limits.max_top_k as f64).contains(&number) => number as usize,
        Some(_) => {
            let message = format!("is {value}, {accepted}");
            faults.push(fault(&[key], None, &message, "out_of_range"));
            limits.default_top_k
        }
        None => {
            let given =
                if value.is_number() { value.to_string() } else { json_kind(value).to_owned() };
            let message = format!("is {given}, {accepted}");
            faults.push(fault(&[key], None, &message, "int_type"));
            limits.default_top_k
        }
    }
}

/// Reads the request for scores.
pub(super) fn return_scores(
    fields: &Map<String, Value>,
    faults: &mut Vec<ValidationError>,
) -> bool {
    match fields.get("return_scores") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(requested)) => *requested,
        Some(other) => {
            let message = format!("is {}, expected true or false", json_kind(other));
            faults.push(fault(&["return_scores"], None, &message, "bool_type"));
            false
        }
    }
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
