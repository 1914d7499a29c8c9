//! The conversion of other projects' question files into the project's own JSON Lines.
//!
//! Owns ids that are unique, the question mark, and the template of the prompts. [`shared::contract::dataset`] reads.

use std::collections::HashSet;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};
use shared::contract::dataset::{DatasetError, QaReader, QaRow};

/// Faulty rows that a message names.
const NAMED_FAULTS: usize = 10;
/// Fields that are kept beside id, question and answers: those that the trainer and the retriever read.
const KEPT_FIELDS: [&str; 4] = ["data_source", "hops", "gold_ids", "gold_passage_ids"];
/// Marks that end a question.
const END_MARKS: [char; 4] = ['?', '？', '؟', '!'];

/// A question file that cannot be converted.
#[derive(Debug, thiserror::Error)]
pub enum ConversionError {
    /// The file is not usable.
    #[error(transparent)]
    File(#[from] DatasetError),
    /// Rows have no certain question or no answer.
    #[error(
        "{}{} cannot be converted:\n  {}",
        if *has_more { "more than " } else { "" },
        crate::data::conversion::rows(faults.len()),
        faults.join("\n  ")
    )]
    Rows { faults: Vec<String>, has_more: bool },
}

/// Converted questions.
#[derive(Debug)]
pub struct Converted {
    /// One line for each question.
    pub lines: Vec<u8>,
    /// Number of questions.
    pub count: usize,
    /// The prompt of the file with `{question}` in place of the question, if all rows have the same.
    pub template: Template,
    /// Doubts about the file.
    pub warnings: Vec<String>,
}

/// The prompts of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Template {
    /// No row has a prompt that contains its question.
    Absent,
    /// All rows have this one.
    Same(String),
    /// The rows have different ones.
    Different,
}

#[derive(Serialize)]
struct Line<'r> {
    id: String,
    question: String,
    golden_answers: &'r [String],
    #[serde(flatten)]
    kept: Map<String, Value>,
}

/// Converts a file or a folder of parts.
///
/// # Errors
/// A file that cannot be read; rows without a certain question or without an answer, by their numbers.
pub fn convert(input: &Path) -> Result<Converted, ConversionError> {
    let mut reader = QaReader::open(input)?;
    let (mut rows, mut faults) = (Vec::new(), Vec::new());
    loop {
        match reader.next_row() {
            Ok(Some(row)) => rows.push(row),
            Ok(None) => break,
            Err(fault) if faults.len() < NAMED_FAULTS => faults.push(fault.to_string()),
            Err(_) => return Err(ConversionError::Rows { faults, has_more: true }),
        }
    }
    if !faults.is_empty() {
        return Err(ConversionError::Rows { faults, has_more: false });
    }
    if rows.is_empty() {
        return Err(DatasetError::Empty { path: input.to_path_buf() }.into());
    }
    let mut seen = HashSet::new();
    let keeps_ids = rows.iter().all(|row| row.has_id && seen.insert(&row.record.id));
    let mut lines = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let line = line(row, index + 1, keeps_ids);
        serde_json::to_writer(&mut lines, &line).expect("texts always have a JSON form");
        lines.push(b'\n');
    }
    let (count, template) = (rows.len(), template(&rows));
    Ok(Converted { lines, count, template, warnings: reader.warnings() })
}

fn line(row: &QaRow, number: usize, keeps_ids: bool) -> Line<'_> {
    let record = &row.record;
    let kept =
        |name: &&str| record.extra.get(*name).map(|value| ((*name).to_owned(), value.clone()));
    let kept: Map<String, Value> = KEPT_FIELDS.iter().filter_map(kept).collect();
    let source = kept.get("data_source").and_then(Value::as_str).unwrap_or("row");
    let id = if keeps_ids { record.id.clone() } else { format!("{source}-{number}") };
    let question = with_question_mark(&record.question);
    Line { id, question, golden_answers: &record.golden_answers, kept }
}

/// Adds the mark that Search-R1's preparation adds. Its questions come without one from Natural Questions.
fn with_question_mark(question: &str) -> String {
    let mark = if question.ends_with(END_MARKS) || question.ends_with('.') { "" } else { "?" };
    format!("{question}{mark}")
}

/// Returns the prompt that all rows share.
fn template(rows: &[QaRow]) -> Template {
    let mut shared = None;
    for row in rows {
        let Some(prompt) = &row.prompt else { continue };
        let Some((before, after)) = prompt.rsplit_once(&row.record.question) else { continue };
        // A mark after the question is part of the question now.
        let text = format!("{before}{{question}}{}", after.strip_prefix('?').unwrap_or(after));
        match &shared {
            None => shared = Some(text),
            Some(first) if *first == text => {}
            Some(_) => return Template::Different,
        }
    }
    shared.map_or(Template::Absent, Template::Same)
}

/// Returns a number of rows in words.
pub(crate) fn rows(count: usize) -> String {
    if count == 1 { "1 row".to_owned() } else { format!("{count} rows") }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;
    use crate::golden;

    fn values(converted: &Converted) -> Vec<Value> {
        let text = str::from_utf8(&converted.lines).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn written(name: &str, contents: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, contents).unwrap();
        (folder, path)
    }

    /// Rows that `scripts/golden/record_questions.py` writes: overlapping ids, a question with the mark in it.
    #[test]
    fn the_files_of_search_r1_verl_and_skyrl_are_converted() {
        for (name, source) in [("search_r1", ""), ("verl", "searchR1_"), ("skyrl", "searchR1_")] {
            let path = golden::path("questions").join(format!("{name}.parquet"));
            let converted = convert(&path).unwrap();
            let line = |number: usize, set: &str, question: &str, answers: &[&str]| {
                let source = format!("{source}{set}");
                json!({
                    "id": format!("{source}-{number}"), "question": question, "golden_answers": answers,
                    "data_source": source,
                })
            };
            let expected = [
                line(1, "nq", "who wrote Hamlet?", &["Shakespeare", "William Shakespeare"]),
                line(2, "nq", "what is the theme of Question: Time?", &["politics"]),
                line(3, "hotpotqa", "Are Lima and Quito capitals?", &["yes"]),
            ];
            assert_eq!(values(&converted), expected, "{name}");
            let Template::Same(template) = &converted.template else { panic!("{converted:?}") };
            assert!(template.starts_with("Answer the given question."), "{template}");
            let end = template.trim_end();
            assert!(
                end.ends_with("<answer> Beijing </answer>. Question: {question}"),
                "{template}"
            );
            assert!(converted.warnings.is_empty());
        }
    }

    #[test]
    fn own_ids_stay_if_they_differ() {
        let (_folder, path) = written(
            "qa.json",
            r#"[{"id": 7, "question": "capital of Peru", "answer": "Lima", "hops": 1, "x": 2},
                {"id": "b", "question": "Really!", "answer": true}]"#,
        );
        let converted = convert(&path).unwrap();
        let expected = [
            json!({"id": "7", "question": "capital of Peru?", "golden_answers": ["Lima"], "hops": 1}),
            json!({"id": "b", "question": "Really!", "golden_answers": ["yes", "true"]}),
        ];
        assert_eq!(values(&converted), expected);
        assert_eq!((converted.count, converted.template), (2, Template::Absent));
        let (_folder, path) = written("qa.jsonl", "{\"question\": \"a?\", \"answer\": \"x\"}\n");
        assert_eq!(values(&convert(&path).unwrap())[0]["id"], "row-1");
    }

    #[test]
    fn rows_that_are_not_certain_are_refused_by_number() {
        let system = r#"{"prompt": [{"role": "system", "content": "Be kind."}], "answer": "x"}"#;
        let (_folder, path) = written(
            "qa.jsonl",
            &format!(
                "{{\"question\": \"q?\", \"answer\": \"x\"}}\n{system}\n{{\"question\": \"q?\"}}\n"
            ),
        );
        let error = convert(&path).unwrap_err().to_string();
        assert!(error.starts_with("2 rows cannot be converted:\n"), "{error}");
        for part in ["qa.jsonl:2: \"question\" is missing", "qa.jsonl:3: there is no answer"] {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
        let (_folder, path) = written("qa.jsonl", &format!("{system}\n").repeat(30));
        let error = convert(&path).unwrap_err().to_string();
        assert!(error.starts_with("more than 10 rows cannot be converted"), "{error}");
        let (_folder, path) = written("qa.jsonl", "\n");
        assert!(convert(&path).unwrap_err().to_string().contains("no records"));
    }

    #[test]
    fn different_prompts_give_no_template() {
        let row = |before: &str| {
            let prompt = format!("{before} Question: who?");
            json!({"prompt": [{"role": "user", "content": prompt}], "answer": "x"}).to_string()
        };
        let (_folder, path) =
            written("qa.jsonl", &format!("{}\n{}\n", row("Be brief."), row("Search.")));
        assert_eq!(convert(&path).unwrap().template, Template::Different);
    }
}
