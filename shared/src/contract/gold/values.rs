//! The texts within the value of a field: lists, objects with aliases, lists within texts, numbers, yes and no.

use serde_json::{Number, Value};

use super::names::{Role, canonical, role};
use super::{Found, is_blank};
use crate::contract::rows::list_in_text;

/// Most characters of a wrong value that a message shows.
const SHOWN_CHARS: usize = 80;

/// Keys of the text within an object: TriviaQA (`value`), SQuAD (`text`), ComplexWebQuestions (`answer`), WebQSP
/// (`EntityName`), FreebaseQA (`AnswersName`), DROP (`spans`, `number`).
const TEXT_KEYS: [&str; 8] =
    ["value", "text", "texts", "name", "entityname", "answersname", "spans", "number"];
/// The parts of a date of DROP, in the order in which its evaluation joins them.
const DATE_KEYS: [&str; 3] = ["day", "month", "year"];
/// Mark before the result of a solution of GSM8K.
const RESULT_MARK: &str = "\n#### ";

/// One answer as the record has it: a text, a number, or true and false.
#[derive(Debug)]
pub(super) struct Leaf {
    /// Path of the field.
    pub(super) field: String,
    pub(super) role: Role,
    pub(super) value: Value,
}

impl Leaf {
    /// Returns the spellings of this answer. "Yes" and "true" answer the same questions, so both count.
    pub(super) fn texts(&self) -> Vec<String> {
        match &self.value {
            Value::String(text) => {
                // The steps before the result are no part of the answer.
                let result = text.rsplit_once(RESULT_MARK).map_or(text.as_str(), |(_, end)| end);
                vec![result.trim().to_owned()]
            }
            Value::Number(number) => vec![number_text(number)],
            Value::Bool(true) => vec!["yes".to_owned(), "true".to_owned()],
            Value::Bool(false) => vec!["no".to_owned(), "false".to_owned()],
            Value::Null | Value::Array(_) | Value::Object(_) => Vec::new(),
        }
    }
}

/// Returns a number as people write it. Tables turn whole numbers into 1898.0, whose digits would be other ones without
/// the dot.
pub(super) fn number_text(number: &Number) -> String {
    match number.as_f64() {
        Some(value) if number.is_f64() && value.fract() == 0.0 && value.abs() < 1e15 => {
            format!("{value:.0}")
        }
        _ => number.to_string(),
    }
}

/// Returns the list or the object that a text holds, as in PopQA's `possible_answers`.
pub(super) fn parsed(value: &Value) -> Option<Value> {
    let text = value.as_str()?.trim();
    match (text.as_bytes().first()?, text.as_bytes().last()?) {
        (b'[', b']') => list_in_text(text),
        (b'{', b'}') => serde_json::from_str(text).ok(),
        _ => None,
    }
}

/// Adds the answers within `value`.
pub(super) fn leaves(
    field: &str,
    role: Role,
    value: &Value,
    found: &mut Found,
) -> Result<(), String> {
    if let Some(parsed) = parsed(value) {
        return leaves(field, role, &parsed, found);
    }
    match value {
        Value::Null => {}
        Value::Array(items) => {
            for item in items {
                leaves(field, role, item, found)?;
            }
        }
        Value::Object(_) => object(field, role, value, found)?,
        // A numpy array that was written as a text has no commas.
        Value::String(text) if is_list_like(text) => {
            return Err(format!("\"{field}\" is {}, a list that cannot be read", shown(value)));
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            found.leaves.push(Leaf { field: field.to_owned(), role, value: value.clone() });
        }
    }
    Ok(())
}

fn is_list_like(text: &str) -> bool {
    let text = text.trim();
    ["['", "[\""].iter().any(|start| text.starts_with(start)) && text.ends_with(']')
}

/// Adds the answers within an object. Blank parts of it are not there.
fn object(field: &str, outer: Role, value: &Value, found: &mut Found) -> Result<(), String> {
    let mut is_known = false;
    for (name, part) in value.as_object().into_iter().flatten() {
        let (name_there, path) = (canonical(name), format!("{field}.{name}"));
        if name_there == "date" && part.is_object() {
            is_known = true;
            let date = date(part);
            if !date.is_empty() {
                leaves(&path, outer, &Value::String(date), found)?;
            }
            continue;
        }
        let inner = match role(&name_there) {
            Some(Role::Answer) => Some(outer),
            Some(Role::Alias) => Some(Role::Alias),
            None if TEXT_KEYS.contains(&name_there.as_str()) => Some(outer),
            None if name_there == "alias" => Some(Role::Alias),
            Some(Role::Key | Role::Ignored) | None => None,
        };
        match inner {
            Some(inner) => {
                is_known = true;
                if !is_blank(part) {
                    leaves(&path, inner, part, found)?;
                }
            }
            None if role(&name_there).is_none() => found.note_unread(&path, part),
            None => {}
        }
    }
    if is_known {
        Ok(())
    } else {
        Err(format!(
            "\"{field}\" is {}; accepted is a text, a number, true or false, a list of them, or an object with \
             \"value\", \"text\", \"answer\", \"name\", \"target\" or \"aliases\"",
            shown(value)
        ))
    }
}

/// Returns the parts of a date that are there, joined.
fn date(value: &Value) -> String {
    let part = |key: &&str| value.get(*key).and_then(Value::as_str).filter(|text| !text.is_empty());
    DATE_KEYS.iter().filter_map(part).collect::<Vec<_>>().join(" ")
}

/// Returns the beginning of a value.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
