//! The aliases of 2WikiMultihopQA, which are in a file of their own beside the questions: `id_aliases.json`, a line for
//! each entity of Wikidata with `Q_id`, `aliases` and `demonyms`. Its own evaluation accepts both of the entity that a
//! question names as `answer_id`.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use super::{QaRecord, Row, Rows, RowsError};

/// Name of the file.
const FILE: &str = "id_aliases.json";
/// Field of a question with the entity of its answer.
const ANSWER_ID: &str = "answer_id";

/// Other names of entities by their ids.
#[derive(Debug, Default)]
pub(super) struct Aliases(HashMap<String, Vec<String>>);

impl Aliases {
    /// Reads the file that is beside `questions`, if there is one.
    pub(super) fn beside(questions: &Path) -> Result<Self, RowsError> {
        let folder = if questions.is_dir() { Some(questions) } else { questions.parent() };
        let path = folder.map(|folder| folder.join(FILE)).filter(|path| path.is_file());
        let Some(path) = path.filter(|path| path != questions) else { return Ok(Self::default()) };
        let mut aliases = HashMap::new();
        for row in Rows::open(&path, |_| None)? {
            let row = row?;
            let id = row.fields.get("Q_id").and_then(Value::as_str).map(str::to_owned);
            let id = id.ok_or_else(|| row.fault("\"Q_id\" is missing; accepted is a text"))?;
            let names = [texts(&row, "aliases")?, texts(&row, "demonyms")?].concat();
            aliases.insert(id, names);
        }
        Ok(Self(aliases))
    }

    /// Adds the other names of the answer's entity to the answers of a record.
    pub(super) fn add_to(&self, record: &mut QaRecord) {
        let id = record.extra.get(ANSWER_ID).and_then(Value::as_str);
        for name in id.and_then(|id| self.0.get(id)).into_iter().flatten() {
            if !name.trim().is_empty() && !record.golden_answers.contains(name) {
                record.golden_answers.push(name.clone());
            }
        }
    }
}

fn texts(row: &Row, name: &str) -> Result<Vec<String>, RowsError> {
    let refuse = |value: &Value| {
        row.fault(format!("\"{name}\" is {value}; accepted is a list of texts, or no \"{name}\""))
    };
    match row.fields.get(name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(list @ Value::Array(items)) => {
            let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
            texts.collect::<Option<Vec<_>>>().ok_or_else(|| refuse(list))
        }
        Some(other) => Err(refuse(other)),
    }
}
