//! Parses requests for chat completions. A field that this server does not support is refused by name; a
//! field that does not affect the answer is ignored.

use serde_json::{Map, Value};

use super::error::ApiError;
use crate::engine::Sampling;

/// The values of fields that a request does not set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Defaults {
    pub sampling: Sampling,
    /// Most tokens sampled in all turns together.
    pub max_sampled_tokens: usize,
}

/// A parsed request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ChatRequest {
    pub(super) model: Option<String>,
    /// The text of the user's last message.
    pub(super) question: String,
    /// Number of messages that the model does not see: it was trained on single questions.
    pub(super) ignored_messages: usize,
    pub(super) sampling: Sampling,
    pub(super) seed: Option<u64>,
    pub(super) max_sampled_tokens: usize,
    pub(super) stream: bool,
    /// If `true`, the last chunk of the stream reports the usage.
    pub(super) include_usage: bool,
}

/// Fields that are not supported, each with the value that is accepted because it has no effect.
const UNSUPPORTED: [(&str, &str); 9] = [
    ("tools", "nothing: the agent's only tool is its search"),
    ("functions", "nothing: the agent's only tool is its search"),
    ("logprobs", "false"),
    ("top_logprobs", "0"),
    ("stop", "null: a turn ends at the tags of the protocol"),
    ("frequency_penalty", "0"),
    ("presence_penalty", "0"),
    ("logit_bias", "nothing"),
    ("audio", "nothing"),
];

impl ChatRequest {
    pub(super) fn parse(body: &[u8], defaults: Defaults) -> Result<Self, ApiError> {
        let value: Value = serde_json::from_slice(body).map_err(|error| ApiError::Invalid {
            param: None,
            message: format!("the body is not JSON: {error}"),
        })?;
        let Value::Object(fields) = value else {
            let message = "the body is not a JSON object".to_owned();
            return Err(ApiError::Invalid { param: None, message });
        };
        for (name, accepted) in UNSUPPORTED {
            if fields.get(name).is_some_and(|value| !is_empty(value)) {
                return Err(ApiError::field(name, &fields[name], accepted));
            }
        }
        let n = optional(&fields, "n", "1", Value::as_u64)?;
        if n.is_some_and(|n| n != 1) {
            return Err(ApiError::field("n", &fields["n"], "1"));
        }
        check_format(&fields)?;
        let (question, ignored_messages) = question(&fields)?;
        Ok(Self {
            model: optional(&fields, "model", "a string", owned_text)?,
            question,
            ignored_messages,
            sampling: sampling(&fields, defaults.sampling)?,
            seed: optional(&fields, "seed", "an integer, at least 0", Value::as_u64)?,
            max_sampled_tokens: max_tokens(&fields)?.unwrap_or(defaults.max_sampled_tokens),
            stream: optional(&fields, "stream", "true or false", Value::as_bool)?.unwrap_or(false),
            include_usage: include_usage(&fields)?,
        })
    }
}

/// Returns `true` if a value has the same effect as its absence.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_f64() == Some(0.0),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(_) => false,
    }
}

/// Reads a field that may be absent or null.
fn optional<T>(
    fields: &Map<String, Value>,
    name: &str,
    accepted: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Option<T>, ApiError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => read(value).map(Some).ok_or_else(|| ApiError::field(name, value, accepted)),
    }
}

fn owned_text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn number_within(value: &Value, low: f64, high: f64) -> Option<f32> {
    value.as_f64().filter(|number| (low..=high).contains(number)).map(|number| number as f32)
}

fn sampling(fields: &Map<String, Value>, default: Sampling) -> Result<Sampling, ApiError> {
    let temperature = optional(fields, "temperature", "a number from 0 to 2", |value| {
        number_within(value, 0.0, 2.0)
    })?;
    let top_p = optional(fields, "top_p", "a number above 0 and at most 1", |value| {
        number_within(value, f64::from(f32::MIN_POSITIVE), 1.0)
    })?;
    Ok(Sampling {
        temperature: temperature.unwrap_or(default.temperature),
        top_p: top_p.unwrap_or(default.top_p),
    })
}

/// Reads `max_completion_tokens`, or `max_tokens`, its older name.
fn max_tokens(fields: &Map<String, Value>) -> Result<Option<usize>, ApiError> {
    for name in ["max_completion_tokens", "max_tokens"] {
        let count = |value: &Value| {
            value.as_u64().and_then(|count| usize::try_from(count).ok()).filter(|&count| count > 0)
        };
        if let Some(count) = optional(fields, name, "an integer, at least 1", count)? {
            return Ok(Some(count));
        }
    }
    Ok(None)
}

fn include_usage(fields: &Map<String, Value>) -> Result<bool, ApiError> {
    let accepted = "an object such as {\"include_usage\": true}";
    let options = optional(fields, "stream_options", accepted, |value| value.as_object().cloned())?;
    let Some(options) = options else { return Ok(false) };
    let include = optional(&options, "include_usage", "true or false", Value::as_bool)?;
    Ok(include.unwrap_or(false))
}

fn check_format(fields: &Map<String, Value>) -> Result<(), ApiError> {
    match fields.get("response_format") {
        None | Some(Value::Null) => Ok(()),
        Some(format) if format.get("type").and_then(Value::as_str) == Some("text") => Ok(()),
        Some(format) => Err(ApiError::field("response_format", format, "{\"type\": \"text\"}")),
    }
}

/// Returns the user's last message and the number of other messages.
fn question(fields: &Map<String, Value>) -> Result<(String, usize), ApiError> {
    let accepted = "a list of messages with at least one of the user";
    let null = Value::Null;
    let given = fields.get("messages").unwrap_or(&null);
    let messages = given.as_array().ok_or_else(|| ApiError::field("messages", given, accepted))?;
    let mut question = None;
    for (index, message) in messages.iter().enumerate() {
        let name = |part: &str| format!("messages[{index}].{part}");
        let role = message.get("role").unwrap_or(&null);
        let role_name = role.as_str().ok_or_else(|| {
            ApiError::field(&name("role"), role, "\"user\", \"assistant\" or \"system\"")
        })?;
        if role_name == "user" {
            let content = message.get("content").unwrap_or(&null);
            let text =
                text_of(content).filter(|text| !text.trim().is_empty()).ok_or_else(|| {
                    ApiError::field(&name("content"), content, "a text or a list of text parts")
                })?;
            question = Some(text);
        }
    }
    let question = question.ok_or_else(|| ApiError::field("messages", given, accepted))?;
    Ok((question, messages.len() - 1))
}

/// Returns the text of a content: a string, or parts that are all text.
fn text_of(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => parts
            .iter()
            .map(|part| {
                let is_text = part.get("type").and_then(Value::as_str) == Some("text");
                part.get("text").and_then(Value::as_str).filter(|_| is_text)
            })
            .collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DEFAULTS: Defaults =
        Defaults { sampling: Sampling { temperature: 0.0, top_p: 1.0 }, max_sampled_tokens: 900 };

    fn parse(body: &Value) -> Result<ChatRequest, ApiError> {
        ChatRequest::parse(body.to_string().as_bytes(), DEFAULTS)
    }

    #[test]
    fn the_last_message_of_the_user_is_the_question() {
        let request = parse(&json!({
            "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": "first?"},
                {"role": "assistant", "content": null, "tool_calls": []},
                {"role": "user", "content": [{"type": "text", "text": "who is "}, {"type": "text", "text": "king?"}]},
            ],
            "temperature": 0.7, "top_p": 0.9, "seed": 4, "max_tokens": 30, "stream": true,
            "stream_options": {"include_usage": true}, "user": "me", "tools": [], "n": 1,
        }));
        let expected = ChatRequest {
            model: None,
            question: "who is king?".to_owned(),
            ignored_messages: 3,
            sampling: Sampling { temperature: 0.7, top_p: 0.9 },
            seed: Some(4),
            max_sampled_tokens: 30,
            stream: true,
            include_usage: true,
        };
        assert_eq!(request, Ok(expected));
        let short = parse(&json!({"messages": [{"role": "user", "content": "q"}]})).unwrap();
        assert_eq!((short.sampling, short.max_sampled_tokens), (DEFAULTS.sampling, 900));
        assert!(!short.stream && short.seed.is_none());
    }

    #[test]
    fn a_refused_field_is_named_with_its_value() {
        let message = json!([{"role": "user", "content": "q"}]);
        for (field, value, accepted) in [
            ("messages", json!("q"), "a list of messages"),
            ("messages", json!([]), "one of the user"),
            ("messages", json!([{"role": 3}]), "messages[0].role"),
            ("messages", json!([{"role": "user", "content": "  "}]), "messages[0].content"),
            (
                "messages",
                json!([{"role": "user", "content": [{"type": "image_url"}]}]),
                "text parts",
            ),
            ("temperature", json!(2.5), "from 0 to 2"),
            ("temperature", json!("hot"), "from 0 to 2"),
            ("top_p", json!(0), "above 0 and at most 1"),
            ("seed", json!(-1), "at least 0"),
            ("max_tokens", json!(0), "at least 1"),
            ("max_completion_tokens", json!(1.5), "at least 1"),
            ("stream", json!("yes"), "true or false"),
            ("stream_options", json!([1]), "include_usage"),
            ("n", json!(2), "expected 1"),
            ("tools", json!([{"type": "function"}]), "its search"),
            ("logprobs", json!(true), "expected false"),
            ("stop", json!(["\n"]), "the tags of the protocol"),
            ("response_format", json!({"type": "json_object"}), "text"),
            ("model", json!(7), "a string"),
        ] {
            let mut body = json!({"messages": message});
            body[field] = value.clone();
            let Err(ApiError::Invalid { param, message }) = parse(&body) else {
                panic!("{body} is accepted")
            };
            assert!(param.is_some_and(|param| param.starts_with(field)), "{message}");
            assert!(message.contains(accepted), "{accepted:?} is not in {message}");
        }
        for body in ["", "[]", "{"] {
            assert!(ChatRequest::parse(body.as_bytes(), DEFAULTS).is_err(), "{body}");
        }
    }
}
