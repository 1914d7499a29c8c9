//! The protocol of users' own rewards: a batch of items in, a score for each out.
//!
//! Request: `{"items": [{"id", "question", "golden_answers", "trajectory", "answer", "searches", "exact_match",
//! "score"}, …]}`. Answer: `{"scores": […]}`, in order: a number; `{"score": 0.5, "parts": {"style": 0.1}}`; or
//! `{"error": "why"}` for an item that could not be scored.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::post::{Endpoint, shown};
use super::{OutsideItem, Part};

/// Most named parts of a score.
const MAX_PARTS: usize = 16;
const EXPECTED: &str = "expected {\"scores\": […]} with a number, {\"score\": …, \"parts\": {…}} or \
                        {\"error\": …} for each item";

/// Scores a batch, in its order.
pub(super) async fn scores(
    endpoint: &Endpoint,
    items: &[OutsideItem],
) -> Vec<Result<Part, String>> {
    let answer = endpoint.ask(&json!({ "items": items })).await;
    match answer.and_then(|answer| read(&answer, items.len())) {
        Ok(scores) => scores,
        Err(reason) => vec![Err(reason); items.len()],
    }
}

/// Reads the answer to a batch of `count` items.
fn read(answer: &Value, count: usize) -> Result<Vec<Result<Part, String>>, String> {
    let malformed = |what: String| format!("the reward service's answer {what}; {EXPECTED}");
    let Some(scores) = answer.get("scores").and_then(Value::as_array) else {
        let text = answer.to_string();
        return Err(malformed(format!("has no list \"scores\": {}", shown(text.as_bytes()))));
    };
    if scores.len() != count {
        return Err(malformed(format!("has {} scores for {count} items", scores.len())));
    }
    let read_one = |(index, score): (usize, &Value)| {
        part(score).map_err(|what| malformed(format!("has at scores[{index}] {what}")))
    };
    Ok(scores.iter().enumerate().map(read_one).collect())
}

fn part(score: &Value) -> Result<Part, String> {
    if let Some(score) = score.as_f64() {
        return Ok(Part { score, parts: BTreeMap::new() });
    }
    if let Some(error) = score.get("error") {
        return Err(format!("the error {error}"));
    }
    let Some(number) = score.get("score").and_then(Value::as_f64) else {
        return Err(format!("{}, which is no score", shown(score.to_string().as_bytes())));
    };
    let mut parts = BTreeMap::new();
    for (name, value) in score.get("parts").and_then(Value::as_object).into_iter().flatten() {
        let value = value.as_f64().ok_or_else(|| format!("parts.{name} = {value}, no number"))?;
        parts.insert(name.clone(), value);
    }
    if parts.len() > MAX_PARTS {
        return Err(format!("{} parts, more than {MAX_PARTS}", parts.len()));
    }
    Ok(Part { score: number, parts })
}
