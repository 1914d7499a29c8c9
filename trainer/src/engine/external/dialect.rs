//! What both servers are asked for, and the choice between their ways of saying it. Values only:
//! nothing here sends anything.

use reqwest::Method;
use serde_json::Value;

use super::{sglang, vllm};
use crate::engine::Sampling;

/// Whose protocol is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Vllm,
    Sglang,
}

/// A request to a server.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    pub(super) method: Method,
    /// With its query, beginning with `/`.
    pub(super) path: &'static str,
    /// `null` sends none.
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

/// One turn as every server needs it.
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
    /// Tokens that end a sequence.
    pub(super) end_ids: Vec<u32>,
}

/// Why a server ended a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// At a stop string or a token that ends the text.
    Stop,
    Length,
    /// Somebody told the server to give up.
    Aborted,
}

/// What a server sampled: ids and log-probs of one length, at least 1 unless it was aborted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sampled {
    pub(super) token_ids: Vec<u32>,
    pub(super) log_probs: Vec<f32>,
    pub(super) ending: Ending,
    /// Name of the weights, where the answer tells it.
    pub(super) weights: Option<String>,
}

/// What a server serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Served {
    /// How requests name the model.
    pub(super) model: String,
    /// Longest context in tokens, where the server tells it.
    pub(super) max_context_tokens: Option<usize>,
}

/// Requests that exchange the weights.
#[derive(Clone, Debug)]
pub(super) struct Update {
    /// In order; each must succeed.
    pub(super) calls: Vec<Call>,
    /// Afterwards in any case: a server that stays paused would answer nobody.
    pub(super) resume: Call,
}

impl Dialect {
    /// Samples one turn.
    pub(super) fn generate(self, turn: &TurnRequest, model: &str) -> Call {
        match self {
            Self::Vllm => vllm::generate(turn, model),
            Self::Sglang => sglang::generate(turn),
        }
    }

    /// Reads the answer to [`Self::generate`]; what is wrong with it, if it is no answer.
    pub(super) fn read(self, answer: &Value) -> Result<Sampled, String> {
        let sampled = match self {
            Self::Vllm => vllm::read(answer),
            Self::Sglang => sglang::read(answer),
        }?;
        let (tokens, log_probs) = (sampled.token_ids.len(), sampled.log_probs.len());
        if tokens != log_probs {
            return Err(format!("{tokens} token ids came with {log_probs} log-probs"));
        }
        if tokens == 0 && sampled.ending != Ending::Aborted {
            return Err("no token was sampled".to_owned());
        }
        Ok(sampled)
    }

    /// Asks what is served.
    pub(super) fn ask_served(self) -> Call {
        match self {
            Self::Vllm => vllm::ask_served(),
            Self::Sglang => sglang::ask_served(),
        }
    }

    pub(super) fn read_served(self, answer: &Value) -> Result<Served, String> {
        match self {
            Self::Vllm => vllm::read_served(answer),
            Self::Sglang => sglang::read_served(answer),
        }
    }

    /// Loads the weights of `folder` and names them `name`.
    pub(super) fn update(self, folder: &str, name: &str) -> Update {
        match self {
            Self::Vllm => vllm::update(folder, name),
            Self::Sglang => sglang::update(folder, name),
        }
    }

    /// Whether a request of [`Self::update`] was refused in an answer with a good status.
    pub(super) fn refusal(self, answer: &Value) -> Option<String> {
        match self {
            Self::Vllm => None,
            Self::Sglang => sglang::refusal(answer),
        }
    }

    /// Asks for the name of the weights.
    pub(super) fn ask_weights(self) -> Call {
        match self {
            Self::Vllm => vllm::ask_weights(),
            Self::Sglang => sglang::ask_served(),
        }
    }
}

/// Reads the answer to [`Dialect::ask_weights`], in which both servers use one key.
pub(super) fn weights_name(answer: &Value) -> Result<String, String> {
    text_at(answer, "weight_version").map(str::to_owned)
}

/// The text of a key.
pub(super) fn text_at<'a>(object: &'a Value, key: &str) -> Result<&'a str, String> {
    object[key].as_str().ok_or_else(|| format!("{key} is {}, expected a text", object[key]))
}

/// The token ids of a key.
pub(super) fn ids_at(object: &Value, key: &str) -> Result<Vec<u32>, String> {
    let refuse = || format!("{key} is {}, expected a list of token ids", object[key]);
    let values = object[key].as_array().ok_or_else(refuse)?;
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    values.iter().map(|value| id(value).ok_or_else(refuse)).collect()
}

/// A log-prob: a finite number of at most 0 but for rounding.
pub(super) fn log_prob(value: &Value) -> Result<f32, String> {
    let number = value.as_f64().filter(|number| number.is_finite() && *number < 1e-3);
    let number = number.ok_or_else(|| format!("{value} is no log-prob of a sampled token"))?;
    Ok(number.min(0.0) as f32)
}
