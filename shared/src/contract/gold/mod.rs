//! The gold answers of a record: one reader for the trainer's rewards and the retriever's evaluation.
//!
//! Question-answering sets store answers in many forms. All fields that this module knows count together: every
//! spelling that one of them lists is a right answer. A position in a list of choices becomes the text at that
//! position. A field that looks like answers and is not read is named, because the answers that it holds would
//! otherwise count as wrong without a word.

mod choices;
mod names;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use self::choices::Choices;
use self::names::{Role, canonical, role};
use self::values::Leaf;
use crate::contract::answer::normalize;

/// Fields with objects that hold the answers under the same names: those of veRL and SkyRL.
const REWARD_FIELDS: [&str; 2] = ["rewardmodel", "rewardspec"];
/// Fields that are searched if no other has an answer: those of veRL's and SkyRL's tools.
const EXTRA_FIELDS: [&str; 4] = ["extrainfo", "toolskwargs", "search", "createkwargs"];

/// The answers of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gold {
    /// The answers, all different. If no answer can match, these are the ones that cannot.
    pub answers: Vec<String>,
    /// Answers of which normalisation leaves nothing, such as "A" and "The The". They match no text.
    pub unmatchable: Vec<String>,
    /// Fields that look like answers and were not read.
    pub unread: BTreeSet<String>,
}

/// Removes the fields with answers and returns their content; no field means no answer.
///
/// # Errors
/// A field of a form that is not known, or an answer that names none of the choices.
pub fn take(fields: &mut Map<String, Value>) -> Result<Gold, String> {
    let choices = Choices::find(fields)?;
    let mut found = Found::default();
    let mut read = Vec::new();
    for (name, value) in fields.iter() {
        let canonical = canonical(name);
        if choices.as_ref().is_some_and(|choices| choices.is_made_of(name)) {
            continue;
        }
        match role(&canonical) {
            Some(Role::Ignored) => {}
            Some(Role::Key) if choices.is_none() => found.note_unread(name, value),
            Some(role) => {
                found.leaves(name, role, value)?;
                read.push(name.clone());
            }
            None if REWARD_FIELDS.contains(&canonical.as_str()) => {
                found.nested(name, value, false)?;
            }
            None if canonical == "annotations" || canonical == "parses" => {
                found.annotations(name, value)?;
            }
            None if canonical == "output" => found.kilt(name, value)?,
            None => found.note_unread(name, value),
        }
    }
    if found.leaves.is_empty() {
        for (name, value) in fields.iter() {
            if EXTRA_FIELDS.contains(&canonical(name).as_str()) {
                found.nested(name, value, true)?;
            }
        }
    }
    for name in read {
        fields.remove(&name);
    }
    // The answer itself comes first: it is the one that demonstrations give.
    found.leaves.sort_by_key(|leaf| leaf.role == Role::Alias);
    let answers = match choices {
        Some(choices) => choices.resolve_all(&found.leaves)?,
        None => found.leaves.iter().flat_map(Leaf::texts).collect(),
    };
    Ok(gold(answers, found.unread))
}

/// Removes repetitions, and separates the answers that can match.
fn gold(answers: Vec<String>, unread: BTreeSet<String>) -> Gold {
    let mut seen = BTreeSet::new();
    let distinct = answers.into_iter().filter(|answer| seen.insert(answer.clone()));
    let (mut answers, unmatchable): (Vec<String>, Vec<String>) =
        distinct.partition(|answer| !normalize(answer).is_empty());
    if answers.is_empty() {
        answers = unmatchable.iter().filter(|answer| !answer.trim().is_empty()).cloned().collect();
    }
    Gold { answers, unmatchable, unread }
}

/// The answers found so far.
#[derive(Debug, Default)]
struct Found {
    leaves: Vec<Leaf>,
    unread: BTreeSet<String>,
}

impl Found {
    fn leaves(&mut self, field: &str, role: Role, value: &Value) -> Result<(), String> {
        values::leaves(field, role, value, self)
    }

    /// Notes a field that nobody reads, if its name looks like answers and it holds something.
    fn note_unread(&mut self, path: &str, value: &Value) {
        let name = path.rsplit('.').next().unwrap_or(path);
        if names::looks_like_answers(&canonical(name)) && !is_blank(value) {
            self.unread.insert(path.to_owned());
        }
    }

    /// Reads the answers within an object, and within the objects in it if `is_deep`.
    fn nested(&mut self, path: &str, value: &Value, is_deep: bool) -> Result<(), String> {
        let parsed = values::parsed(value);
        let Some(Value::Object(fields)) = parsed.as_ref().or(Some(value)) else { return Ok(()) };
        for (name, value) in fields {
            let (canonical, path) = (canonical(name), format!("{path}.{name}"));
            match role(&canonical) {
                Some(role @ (Role::Answer | Role::Alias)) => self.leaves(&path, role, value)?,
                Some(Role::Ignored) => {}
                None if is_deep && EXTRA_FIELDS.contains(&canonical.as_str()) => {
                    self.nested(&path, value, true)?;
                }
                Some(Role::Key) | None => self.note_unread(&path, value),
            }
        }
        Ok(())
    }

    /// Reads the annotations of Natural Questions and AmbigQA, and the parses of WebQSP and FreebaseQA: answers under several keys and depths.
    fn annotations(&mut self, path: &str, value: &Value) -> Result<(), String> {
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| self.annotations(path, item)),
            Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
                let path = format!("{path}.{name}");
                match canonical(name).as_str() {
                    "answer" | "answers" | "text" => self.leaves(&path, Role::Answer, value),
                    "shortanswers" | "qapairs" => self.annotations(&path, value),
                    "yesnoanswer" => self.verdict(&path, value),
                    _ => Ok(()),
                }
            }),
            _ => Ok(()),
        }
    }

    /// Reads the yes or no of Natural Questions: a text, or 1, 0 and -1 for none; a list has one per annotator.
    fn verdict(&mut self, path: &str, value: &Value) -> Result<(), String> {
        let verdict = match value {
            Value::Array(items) => {
                return items.iter().try_for_each(|item| self.verdict(path, item));
            }
            Value::String(text) if text.eq_ignore_ascii_case("yes") => true,
            Value::String(text) if text.eq_ignore_ascii_case("no") => false,
            Value::Number(number) if number.as_i64() == Some(1) => true,
            Value::Number(number) if number.as_i64() == Some(0) => false,
            _ => return Ok(()),
        };
        self.leaves(path, Role::Answer, &Value::Bool(verdict))
    }

    /// Reads the form of KILT: a list of objects, some with an answer. Other outputs are not answers.
    fn kilt(&mut self, path: &str, value: &Value) -> Result<(), String> {
        let items = value.as_array().map_or(&[][..], Vec::as_slice);
        items
            .iter()
            .filter_map(|item| item.get("answer"))
            .try_for_each(|answer| self.leaves(&format!("{path}.answer"), Role::Answer, answer))
    }
}

/// Returns `true` for a value without content.
fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(items) => items.iter().all(is_blank),
        Value::Object(fields) => fields.values().all(is_blank),
        Value::Bool(_) | Value::Number(_) => false,
    }
}
