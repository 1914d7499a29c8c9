//! One line of a corpus, `{"id": "..", "contents": ".."}`. Every key is checked separately, so the
//! message about an invalid line names its fault.

use serde_json::{Map, Value};
use shared::contract::jsonl::{JsonlError, Line, LineFault};
use shared::contract::passage::Passage;

use crate::json_kind::json_kind;

/// The keys that are kept in addition to `id` and `contents`. All others are dropped.
const OPTIONAL_KEYS: [&str; 3] = ["title", "text", "url"];

/// Parses the passage in a line.
pub fn passage(line: &Line<'_>) -> Result<Passage, JsonlError> {
    let value: Value = serde_json::from_str(line.text)
        .map_err(|error| line.fault(LineFault::Record(format!("is not JSON: {error}"))))?;
    from_value(value).map_err(|reason| line.fault(LineFault::Record(reason)))
}

fn from_value(value: Value) -> Result<Passage, String> {
    let Value::Object(mut fields) = value else {
        return Err(format!("is {}, expected an object with id and contents", json_kind(&value)));
    };
    let id = match fields.remove("id") {
        Some(Value::String(id)) if !id.is_empty() => id,
        Some(Value::Number(id)) if id.is_u64() || id.is_i64() => id.to_string(),
        Some(Value::String(_)) => return Err("id is empty".to_owned()),
        Some(other) => return Err(format!("id is {}, expected a string", json_kind(&other))),
        None => return Err("id is missing".to_owned()),
    };
    let contents = match fields.remove("contents") {
        Some(Value::String(contents)) => contents,
        Some(other) => return Err(format!("contents is {}, expected a string", json_kind(&other))),
        None => return Err("contents is missing".to_owned()),
    };
    let [title, text, url] = OPTIONAL_KEYS.map(|key| optional(&mut fields, key));
    Ok(Passage { id, contents, title: title?, text: text?, url: url? })
}

fn optional(fields: &mut Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match fields.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("{key} is {}, expected a string", json_kind(&other))),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use shared::contract::jsonl::JsonlReader;

    use super::*;

    fn read(line: &str) -> Result<Passage, String> {
        let mut reader = JsonlReader::new(line.as_bytes(), Path::new("c.jsonl"));
        let line = reader.next_line().map_err(|error| error.to_string())?.unwrap();
        passage(&line).map_err(|error| error.to_string())
    }

    #[test]
    fn known_keys_are_kept_and_others_dropped() {
        let passage =
            read(r#"{"id":3,"contents":"x","url":"u","title":null,"extra":[1]}"#).unwrap();
        let expected = Passage {
            id: "3".to_owned(),
            contents: "x".to_owned(),
            url: Some("u".to_owned()),
            ..Passage::default()
        };
        assert_eq!(passage, expected);
    }

    #[test]
    fn every_fault_is_named() {
        for (line, expected) in [
            (r#"{"id":"1"}"#, "contents is missing"),
            (r#"{"id":"1","contents":null}"#, "contents is null, expected a string"),
            (r#"{"id":"1","contents":["x"]}"#, "contents is a list, expected a string"),
            (r#"{"contents":"x"}"#, "id is missing"),
            (r#"{"id":"","contents":"x"}"#, "id is empty"),
            (r#"{"id":1.5,"contents":"x"}"#, "id is a number, expected a string"),
            (r#"{"id":"1","contents":"x","url":7}"#, "url is a number, expected a string"),
            (r#"["x"]"#, "is a list, expected an object with id and contents"),
        ] {
            assert_eq!(read(line).unwrap_err(), format!("c.jsonl:1: {expected}"), "{line}");
        }
        let error = read(r#"{"id":"1","contents":"x"#).unwrap_err();
        assert!(error.starts_with("c.jsonl:1: is not JSON: EOF"), "{error}");
    }
}
