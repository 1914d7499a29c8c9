//! The values that both server protocols share: requests, turns, answers, and readers of JSON fields. Nothing
//! here sends anything.

use reqwest::Method;
use serde_json::Value;

use crate::engine::Sampling;

/// A request to a server.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    pub(super) method: Method,
    /// The path with its query, beginning with `/`.
    pub(super) path: &'static str,
    /// The JSON body; `null` sends none.
    pub(super) body: Value,
}

impl Call {
    pub(super) fn get(path: &'static str) -> Self {
        Self { method: Method::GET, path, body: Value::Null }
    }

    pub(super) fn post(path: &'static str, body: Value) -> Self {
        Self { method: Method::POST, path, body }
    }
}

/// A turn in the form that every server needs.
#[derive(Clone, Debug)]
pub(super) struct TurnRequest {
    /// The whole context.
    pub(super) prompt: Vec<u32>,
    /// At least 1.
    pub(super) max_new_tokens: usize,
    pub(super) sampling: Sampling,
    /// Not negative.
    pub(super) seed: i64,
    pub(super) stop_at: Vec<String>,
    /// The tokens that end a sequence.
    pub(super) end_ids: Vec<u32>,
}

/// The reason that a server reports for the end of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TurnEnding {
    /// A stop string, or a token that ends the text.
    Stop,
    Length,
    /// A request to the server to abort.
    Aborted,
}

/// The tokens that a server sampled. Ids and log-probs have the same length, at least 1 unless the turn was
/// aborted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SampledTurn {
    pub(super) token_ids: Vec<u32>,
    pub(super) log_probs: Vec<f32>,
    pub(super) ending: TurnEnding,
    /// The name of the weights, if the answer contains it.
    pub(super) weights: Option<String>,
}

/// The model that a server serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServedModel {
    /// The model's name in requests.
    pub(super) model: String,
    /// The longest context in tokens, if the server reports it.
    pub(super) max_context_tokens: Option<usize>,
}

/// The requests that replace a server's weights.
#[derive(Clone, Debug)]
pub(super) struct WeightUpdate {
    /// Sent in order; each must succeed.
    pub(super) calls: Vec<Call>,
    /// Sent afterwards in any case, because a server that stays paused answers nobody.
    pub(super) resume: Call,
}

/// Reads the name of the weights from the answer that reports it; both servers use the same key.
pub(super) fn weights_name(answer: &Value) -> Result<String, String> {
    text_at(answer, "weight_version").map(str::to_owned)
}

/// Returns the text of a key.
pub(super) fn text_at<'a>(object: &'a Value, key: &str) -> Result<&'a str, String> {
    object[key].as_str().ok_or_else(|| format!("{key} is {}, expected a text", object[key]))
}

/// Returns the token ids of a key.
pub(super) fn ids_at(object: &Value, key: &str) -> Result<Vec<u32>, String> {
    let refuse = || format!("{key} is {}, expected a list of token ids", object[key]);
    let values = object[key].as_array().ok_or_else(refuse)?;
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    values.iter().map(|value| id(value).ok_or_else(refuse)).collect()
}

/// Reads a log-prob, a finite number of at most 0 except for rounding.
pub(super) fn log_prob(value: &Value) -> Result<f32, String> {
    let number = value.as_f64().filter(|number| number.is_finite() && *number < 1e-3);
    let number = number.ok_or_else(|| format!("{value} is not a log-prob of a sampled token"))?;
    Ok(number.min(0.0) as f32)
}
