//! Filters that escape texts.

use crate::jinja::arguments::Given;
use crate::jinja::characters::push_formatted;
use crate::jinja::error::{Result, failed};
use crate::jinja::value::{self, Value};

pub(super) fn apply(name: &str, value: &Value, given: Given) -> Result<Value> {
    if name == "xmlattr" {
        return attributes(value, given.bind(name, "/ autospace?")?.optional(0));
    }
    given.bind(name, "")?;
    match name {
        "e" | "escape" => Ok(Value::Markup(escaped(value)?.into())),
        "forceescape" => Ok(Value::Markup(escape(&value::text(value)?).into())),
        "safe" => Ok(Value::Markup(value::text(value)?.into())),
        _ => url_encoded(value),
    }
}

/// Returns the text of a value with the characters of HTML escaped; texts marked as safe stay.
pub(in crate::jinja) fn escaped(value: &Value) -> Result<String> {
    match value {
        Value::Markup(text) => Ok(text.to_string()),
        _ => Ok(escape(&value::text(value)?)),
    }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            _ => out.push(letter),
        }
    }
    out
}

fn url_encoded(value: &Value) -> Result<Value> {
    let pairs = match value {
        Value::Text(text) | Value::Markup(text) => return Ok(Value::from(quoted(text, false))),
        Value::Dict(dict) => dict.pairs().to_vec(),
        Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
            return Ok(Value::from(quoted(&value::text(value)?, false)));
        }
        _ => {
            let mut pairs = Vec::new();
            for pair in value::iterated(value)? {
                let [key, value]: [Value; 2] = match value::iterated(&pair)?.try_into() {
                    Ok(pair) => pair,
                    Err(_) => return failed("urlencode takes pairs"),
                };
                pairs.push((key, value));
            }
            pairs
        }
    };
    let mut parts = Vec::new();
    for (key, value) in &pairs {
        let (key, value) = (value::text(key)?, value::text(value)?);
        parts.push(format!("{}={}", quoted(&key, true), quoted(&value, true)));
    }
    Ok(Value::from(parts.join("&")))
}

/// Quotes bytes for an address; in a query, also `/`, and a space is `+`.
fn quoted(text: &str, is_query: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => {
                out.push(char::from(byte));
            }
            b'/' if !is_query => out.push('/'),
            b' ' if is_query => out.push('+'),
            _ => push_formatted(&mut out, format_args!("%{byte:02X}")),
        }
    }
    out
}

fn attributes(value: &Value, spaced: Option<Value>) -> Result<Value> {
    value.check_defined()?;
    let Value::Dict(dict) = value else {
        return failed(format!("'{}' object has no attribute 'items'", value.type_name()));
    };
    let mut parts = Vec::new();
    for (key, value) in dict.pairs() {
        if matches!(value, Value::None | Value::Undefined(_)) {
            continue;
        }
        let Some(name) = key.as_text() else { return failed("attribute names must be texts") };
        if name.contains([' ', '\t', '\n', '\r', '\u{b}', '\u{c}', '/', '>', '=']) {
            return failed(format!("Invalid character in attribute name: {}", value::repr(key)?));
        }
        parts.push(format!("{}=\"{}\"", escaped(key)?, escaped(value)?));
    }
    let joined = parts.join(" ");
    let is_spaced = spaced.is_none_or(|spaced| spaced.is_true()) && !joined.is_empty();
    Ok(Value::from(if is_spaced { format!(" {joined}") } else { joined }))
}
