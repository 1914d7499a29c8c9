//! Choices, and answers that name one of them by its position, its label or its text.

use serde_json::{Map, Value};

use super::names::{Role, canonical};
use super::values::{Leaf, number_text, shown};
use crate::contract::answer::normalize;

/// Fields with all choices: MMLU, ARC, FlashRAG (`choices`), RACE, MedQA, MMLU-Pro (`options`), HellaSwag (`endings`).
const FIELDS: [&str; 4] = ["choices", "options", "answerchoices", "endings"];
/// Beginnings of the names of fields with one choice each, which end in a letter: SIQA (`answerA`), MedMCQA (`opa`),
/// tables (`option_a`, `A`).
const PREFIXES: [&str; 5] = ["answer", "option", "choice", "op", ""];
/// Letters of such fields.
const LETTERS: &str = "abcdefghij";

/// The choices of a question.
#[derive(Debug)]
pub(super) struct Choices {
    /// The field, or those of the single choices.
    fields: Vec<String>,
    /// One for each text, or none.
    labels: Vec<String>,
    texts: Vec<String>,
}

impl Choices {
    /// Returns the choices of a record, if it has any.
    pub(super) fn find(record: &Map<String, Value>) -> Result<Option<Self>, String> {
        for (name, value) in record {
            if !FIELDS.contains(&canonical(name).as_str()) {
                continue;
            }
            let parsed = super::values::parsed(value);
            let value = parsed.as_ref().unwrap_or(value);
            let is_empty = |value: &Value| super::is_blank(value);
            if is_empty(value) {
                continue;
            }
            let (labels, texts) = read(value).ok_or_else(|| {
                format!(
                    "\"{name}\" is {}; accepted are a list of texts, an object of texts by label, and \
                     {{\"text\": […], \"label\": […]}}",
                    shown(value)
                )
            })?;
            return Ok(Some(Self { fields: vec![name.clone()], labels, texts }));
        }
        Ok(PREFIXES.iter().find_map(|prefix| Self::of_columns(record, prefix)))
    }

    /// Returns the choices of a record with a field for each.
    fn of_columns(record: &Map<String, Value>, prefix: &str) -> Option<Self> {
        let mut choices = Self { fields: Vec::new(), labels: Vec::new(), texts: Vec::new() };
        for letter in LETTERS.chars() {
            let wanted = format!("{prefix}{letter}");
            let Some((name, Value::String(text))) =
                record.iter().find(|(name, _)| canonical(name) == wanted)
            else {
                break;
            };
            choices.fields.push(name.clone());
            choices.labels.push(letter.to_string());
            choices.texts.push(text.clone());
        }
        // Two fields that are called A and B may be anything.
        let least = if prefix.is_empty() { 3 } else { 2 };
        (choices.texts.len() >= least).then_some(choices)
    }

    /// Returns `true` if the field holds choices.
    pub(super) fn is_made_of(&self, field: &str) -> bool {
        self.fields.iter().any(|name| name == field)
    }

    /// Returns the answers, with the texts of the choices that they name.
    pub(super) fn resolve_all(&self, leaves: &[Leaf]) -> Result<Vec<String>, String> {
        let mut answers = Vec::new();
        let mut named: Option<(usize, &str)> = None;
        let mut unresolved = None;
        for leaf in leaves {
            if let Some(choice) = self.resolve(leaf)? {
                let (first, field) = *named.get_or_insert((choice, &leaf.field));
                if first != choice && field != leaf.field {
                    return Err(format!(
                        "\"{field}\" names the choice {:?}, but \"{}\" names {:?}",
                        self.texts[first], leaf.field, self.texts[choice]
                    ));
                }
                answers.push(self.texts[choice].trim().to_owned());
                continue;
            }
            if leaf.role != Role::Alias {
                unresolved = unresolved.or(Some(leaf));
            }
            if leaf.role != Role::Key {
                answers.extend(leaf.texts());
            }
        }
        match (named, unresolved) {
            (None, Some(leaf)) => Err(self.refusal(leaf, "names none of")),
            _ => Ok(answers),
        }
    }

    /// Returns the choice that an answer names.
    fn resolve(&self, leaf: &Leaf) -> Result<Option<usize>, String> {
        match &leaf.value {
            Value::Number(number) => {
                let text = number_text(number);
                let position = text.parse().ok().filter(|position| *position < self.texts.len());
                let has_numbers = self.labels.iter().all(|label| label.parse::<u64>().is_ok());
                let position = position.filter(|_| self.labels.is_empty() || !has_numbers);
                let by_label = self.labelled(&text);
                let place = by_label.or(position);
                let by_text = if leaf.role == Role::Key { None } else { self.with_text(&text) };
                match (place, by_text) {
                    (Some(place), Some(by_text)) if place != by_text => {
                        Err(self.refusal(leaf, "may be a position or a text of"))
                    }
                    (None, None) => Err(self.refusal(leaf, "is no position of")),
                    (place, by_text) => Ok(place.or(by_text)),
                }
            }
            Value::String(text) => self.resolve_text(leaf, text.trim()),
            Value::Bool(_) => Ok(leaf.texts().iter().find_map(|text| self.with_text(text))),
            Value::Null | Value::Array(_) | Value::Object(_) => Ok(None),
        }
    }

    fn resolve_text(&self, leaf: &Leaf, text: &str) -> Result<Option<usize>, String> {
        let label = text.trim_start_matches('(').trim_end_matches([')', '.', ':']).trim();
        let by_label = if self.labels.is_empty() {
            let mut letters = label.chars();
            let letter = letters.next().filter(|_| letters.next().is_none());
            letter
                .and_then(|letter| LETTERS.find(letter.to_ascii_lowercase()))
                .filter(|position| *position < self.texts.len())
        } else {
            self.labelled(label)
        };
        // A key names a label where there are labels, even if a choice reads the same.
        let is_label = leaf.role == Role::Key && !self.labels.is_empty() && by_label.is_some();
        let by_text = if is_label { None } else { self.with_text(text) };
        match (by_text, by_label) {
            (Some(by_text), Some(by_label)) if by_text != by_label => {
                Err(self.refusal(leaf, "may be a label or a text of"))
            }
            (None, None) => match label.parse::<usize>() {
                // 0 exists only if positions count from 0, and the number of choices only if they count from 1.
                Ok(0) => Ok(Some(0)),
                Ok(last) if last == self.texts.len() => Ok(Some(last - 1)),
                Ok(position) if position < self.texts.len() => {
                    Err(self.refusal(leaf, "may count from 0 or from 1 among"))
                }
                _ => Ok(None),
            },
            (by_text, by_label) => Ok(by_text.or(by_label)),
        }
    }

    fn labelled(&self, label: &str) -> Option<usize> {
        self.labels.iter().position(|known| known.trim().eq_ignore_ascii_case(label))
    }

    fn with_text(&self, text: &str) -> Option<usize> {
        let same = self.texts.iter().position(|choice| choice.trim() == text);
        let normalized = normalize(text);
        same.or_else(|| {
            let is_same = |choice: &String| normalize(choice) == normalized;
            self.texts.iter().position(is_same).filter(|_| !normalized.is_empty())
        })
    }

    fn refusal(&self, leaf: &Leaf, why: &str) -> String {
        let count = self.texts.len();
        format!("\"{}\" is {}, which {why} the {count} choices", leaf.field, shown(&leaf.value))
    }
}

/// Returns the labels, which may be none, and the texts of choices.
fn read(value: &Value) -> Option<(Vec<String>, Vec<String>)> {
    match value {
        Value::Array(items) => {
            if let Some(texts) = items.iter().map(text).collect() {
                return Some((Vec::new(), texts));
            }
            // Objects with a label and a text each.
            let pair = |item: &Value| Some((key(item, &LABEL_KEYS)?, key(item, &TEXT_KEYS)?));
            let pairs: Option<Vec<(String, String)>> = items.iter().map(pair).collect();
            pairs.map(|pairs| pairs.into_iter().unzip())
        }
        Value::Object(fields) => {
            let list = |names: &[&str]| {
                let (_, list) =
                    fields.iter().find(|(name, _)| names.contains(&canonical(name).as_str()))?;
                list.as_array()?.iter().map(text).collect::<Option<Vec<String>>>()
            };
            if let Some(texts) = list(&TEXT_KEYS) {
                let labels = list(&LABEL_KEYS).unwrap_or_default();
                return (labels.is_empty() || labels.len() == texts.len())
                    .then_some((labels, texts));
            }
            // A column that lacks this choice is null in parquet.
            let present = fields.iter().filter(|(_, choice)| !choice.is_null());
            present.map(|(label, choice)| Some((label.clone(), text(choice)?))).collect()
        }
        _ => None,
    }
}

const LABEL_KEYS: [&str; 5] = ["label", "labels", "key", "id", "letter"];
const TEXT_KEYS: [&str; 5] = ["text", "texts", "content", "value", "choice"];

fn key(item: &Value, names: &[&str]) -> Option<String> {
    let fields = item.as_object()?;
    fields
        .iter()
        .find(|(name, _)| names.contains(&canonical(name).as_str()))
        .and_then(|(_, value)| text(value))
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number_text(number)),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}
