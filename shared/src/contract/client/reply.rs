//! Parsing of the body of a successful `/retrieve` response.

use serde_json::Value;

use super::Passage;
use crate::contract::python_json::{self, NotFinite};

/// Most characters of a wrong value that a message shows.
const SHOWN_CHARS: usize = 60;

/// The server's answer to one query.
#[derive(Debug)]
pub(super) enum Answer {
    Passages(Vec<Passage>),
    Failed {
        code: String,
        retryable: bool,
    },
    /// The list of this query is unusable; those of the others are not affected.
    Malformed(String),
}

/// Returns one answer for each query, or the fault of the body. A fault within the list of a query is that query's
/// answer.
pub(super) fn parse(bytes: &[u8], queries: usize) -> Result<Vec<Answer>, String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = str::from_utf8(bytes).map_err(|error| format!("it is not UTF-8: {error}"))?;
    let body = python_json::parse(text, NotFinite::Text)
        .map_err(|error| format!("it is not JSON: {error}: {}", shortened(text)))?;
    let result = body["result"]
        .as_array()
        .ok_or_else(|| format!("it has no list \"result\": {}", shown(&body)))?;
    if result.len() != queries {
        return Err(format!("\"result\" has {} entries for {queries} queries", result.len()));
    }
    let answer =
        |(query, entry)| passages(query, entry).map_or_else(Answer::Malformed, Answer::Passages);
    let mut answers: Vec<Answer> = result.iter().enumerate().map(answer).collect();
    match &body["errors"] {
        Value::Null => {}
        Value::Array(errors) => {
            for error in errors {
                insert_error(error, &mut answers)?;
            }
        }
        other => return Err(format!("\"errors\" is {}, not a list", shown(other))),
    }
    Ok(answers)
}

/// Replaces the empty list that `result` has for a failed query by its error.
fn insert_error(error: &Value, answers: &mut [Answer]) -> Result<(), String> {
    let slot = error["index"]
        .as_u64()
        .and_then(|index| answers.get_mut(usize::try_from(index).ok()?))
        .ok_or_else(|| {
            format!("\"errors\" names the query {}, which is not in the request", error["index"])
        })?;
    *slot = Answer::Failed {
        code: error["code"].as_str().unwrap_or("unknown").to_owned(),
        retryable: error["retryable"].as_bool().unwrap_or(false),
    };
    Ok(())
}

fn passages(query: usize, entry: &Value) -> Result<Vec<Passage>, String> {
    let list = entry
        .as_array()
        .ok_or_else(|| format!("result[{query}] is {}, not a list", shown(entry)))?;
    let read = |(rank, hit): (usize, &Value)| {
        // Some servers nest the document next to its score, others send it alone.
        let document = hit.get("document").unwrap_or(hit);
        let contents = Passage::contents_of(document).ok_or_else(|| {
            format!(
                "result[{query}][{rank}] has no text \"contents\", nor title and text: it is {}",
                shown(document)
            )
        })?;
        if !is_score(&hit["score"]) {
            // Passages that were ranked by no number are as good as random ones.
            return Err(format!("result[{query}][{rank}] has the score {}", shown(&hit["score"])));
        }
        let id = match &document["id"] {
            Value::String(id) => id.clone(),
            Value::Number(id) => id.to_string(),
            _ => String::new(),
        };
        Ok(Passage::new(id, contents))
    };
    list.iter().enumerate().map(read).collect()
}

/// Returns `true` for a finite number, also as a text, and for no score at all.
fn is_score(score: &Value) -> bool {
    match score {
        Value::Null | Value::Number(_) => true,
        Value::String(text) => text.trim().parse().is_ok_and(f64::is_finite),
        _ => false,
    }
}

fn shown(value: &Value) -> String {
    shortened(&value.to_string())
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
