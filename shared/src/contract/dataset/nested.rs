//! Questions within other objects, as the original files of some sets keep them.

use serde_json::{Map, Value};

/// The fields of one question each, and the number of questions that were left out.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Unnested {
    pub(super) questions: Vec<Map<String, Value>>,
    /// Questions that the set itself calls unanswerable, and that have no answer.
    pub(super) unanswerable: usize,
}

/// Returns the questions of a row: those of an article of SQuAD (`paragraphs`) or of a passage of MRQA (`qas`), or else
/// the row itself. `None` is a row that has nothing to do with questions: the head of a file of MRQA.
pub(super) fn unnest(mut fields: Map<String, Value>) -> Option<Unnested> {
    if fields.len() == 1 && fields.get("header").is_some_and(Value::is_object) {
        return None;
    }
    let mut found = Unnested::default();
    match fields.get_mut("paragraphs").map(Value::take) {
        Some(Value::Array(paragraphs)) if paragraphs.iter().any(|part| part["qas"].is_array()) => {
            for mut paragraph in paragraphs {
                if let Some(questions) = paragraph.get_mut("qas") {
                    found.take(questions);
                }
            }
            return Some(found);
        }
        Some(other) => {
            fields.insert("paragraphs".to_owned(), other);
        }
        None => {}
    }
    match fields.get_mut("qas") {
        Some(questions) if questions.is_array() => found.take(questions),
        _ => found.add(fields),
    }
    Some(found)
}

impl Unnested {
    fn take(&mut self, questions: &mut Value) {
        let questions = match questions.take() {
            Value::Array(questions) => questions,
            other => vec![other],
        };
        for question in questions {
            // What is no object has no question, which the reader of the record says.
            let Value::Object(fields) = question else {
                self.questions.push(Map::new());
                continue;
            };
            self.add(fields);
        }
    }

    fn add(&mut self, mut fields: Map<String, Value>) {
        let is_empty = fields.get("answers").is_some_and(|answers| match answers {
            Value::Array(answers) => answers.is_empty(),
            Value::Object(answers) => {
                answers.get("text").is_some_and(|texts| texts == &Value::Array(Vec::new()))
            }
            _ => false,
        });
        if is_empty && fields.get("is_impossible") == Some(&Value::Bool(true)) {
            self.unanswerable += 1;
            return;
        }
        lift_stem(&mut fields);
        if let Some(id) = fields.remove("qid") {
            fields.entry("id").or_insert(id);
        }
        self.questions.push(fields);
    }
}

/// Takes the question and its choices out of the object in which the original files of ARC, OpenBookQA and
/// CommonsenseQA keep both.
fn lift_stem(fields: &mut Map<String, Value>) {
    let Some(Value::Object(question)) = fields.get_mut("question") else { return };
    let Some(stem) = question.remove("stem") else { return };
    if let Some(choices) = question.remove("choices") {
        fields.insert("choices".to_owned(), choices);
    }
    fields.insert("question".to_owned(), stem);
}
