//! Weights of questions by their ids: how often each is asked, and which are left out.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;
use shared::contract::rows::{RowFault, Rows, RowsError};

/// Largest weight. A larger one is a mistake, such as a percentage.
const WEIGHT_MAX: f64 = 64.0;

/// Weights from 0, which leaves a question out, to 64.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuestionWeights(HashMap<String, f64>);

impl QuestionWeights {
    /// Reads rows of `id` and `weight`: JSON Lines, a JSON list or parquet.
    ///
    /// # Errors
    /// A file that cannot be read or has no rows; a row without an id or a weight, or with another weight for an id.
    pub fn read(path: &Path) -> Result<Self, RowsError> {
        let mut weights = HashMap::new();
        for row in Rows::open(path, |_| None)? {
            let row = row?;
            let id = match row.fields.get("id") {
                Some(Value::String(id)) => id.clone(),
                Some(Value::Number(id)) => id.to_string(),
                other => {
                    let shown = other.map_or("missing".to_owned(), |value| format!("is {value}"));
                    return Err(
                        row.fault(format!("\"id\" {shown}; accepted is a text or a number"))
                    );
                }
            };
            let weight = row.fields.get("weight").and_then(|weight| match weight {
                Value::String(text) => text.trim().parse().ok(),
                other => other.as_f64(),
            });
            let weight =
                weight.filter(|weight| (0.0..=WEIGHT_MAX).contains(weight)).ok_or_else(|| {
                    let shown = row.fields.get("weight").unwrap_or(&Value::Null);
                    row.fault(format!(
                        "\"weight\" is {shown}; accepted is a number from 0 to {WEIGHT_MAX}"
                    ))
                })?;
            if weights.insert(id.clone(), weight).is_some_and(|it| it.to_bits() != weight.to_bits())
            {
                return Err(row.fault(format!("\"id\" {id:?} had another weight before")));
            }
        }
        if weights.is_empty() {
            let reason = "has no weights; a line is {\"id\": …, \"weight\": …}".to_owned();
            return Err(RowsError::file(path, RowFault::Record(reason)));
        }
        Ok(Self(weights))
    }

    /// Returns the weight of a question: 1 if the file does not name it.
    pub fn of(&self, id: &str) -> f64 {
        self.0.get(id).copied().unwrap_or(1.0)
    }

    /// Returns `true` if the file names a question.
    pub fn names(&self, id: &str) -> bool {
        self.0.contains_key(id)
    }

    /// Returns the number of questions that the file names.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<QuestionWeights, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.jsonl");
        std::fs::write(&path, text).unwrap();
        QuestionWeights::read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn weights_are_read_from_lines_and_lists() {
        for text in [
            "{\"id\": \"a\", \"weight\": 0}\n{\"id\": 7, \"weight\": 0.5, \"class\": \"found\"}\n",
            "[{\"id\": \"a\", \"weight\": 0}, {\"id\": \"7\", \"weight\": \"0.5\"}]",
        ] {
            let weights = read(text).unwrap();
            assert_eq!(["a", "7", "b"].map(|id| weights.of(id).to_string()), ["0", "0.5", "1"]);
            assert_eq!((weights.count(), weights.names("b")), (2, false));
        }
    }

    #[test]
    fn wrong_weights_are_named_with_their_row() {
        for (text, fault) in [
            ("{\"weight\": 1}", "weights.jsonl:1: \"id\" missing; accepted is"),
            (
                "{\"id\": \"a\"}",
                "weights.jsonl:1: \"weight\" is null; accepted is a number from 0 to 64",
            ),
            ("{\"id\": \"a\", \"weight\": -1}", "\"weight\" is -1"),
            (
                "{\"id\": \"a\", \"weight\": 1}\n{\"id\": \"a\", \"weight\": 2}",
                ":2: \"id\" \"a\" had another",
            ),
            ("\n", "has no weights"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(fault), "{fault:?} is not in {error:?}");
        }
    }
}
