//! Question-answering records: JSON Lines of `{"id"?, "question", "golden_answers": [..]}`.
//!
//! Owns reading and checking. A record that cannot be scored is refused with its line when the file is read, not
//! in the middle of a training run.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// A question with its correct answers.
#[derive(Clone, Debug, PartialEq)]
pub struct QaRecord {
    /// Identifier, unique in its file; `line-N` if the record has none.
    pub id: String,
    /// The question, not blank.
    pub question: String,
    /// At least one answer, none of them blank.
    pub golden_answers: Vec<String>,
    /// All other fields, unchanged.
    pub extra: Map<String, Value>,
}

/// A dataset file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The file cannot be read.
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    /// A line (counted from 1) is not a usable record.
    #[error("{}, line {line}: {reason}", path.display())]
    Line { path: PathBuf, line: usize, reason: String },
    /// The file holds no record.
    #[error("{}: no records; a line is {{\"question\": …, \"golden_answers\": […]}}", path.display())]
    Empty { path: PathBuf },
}

/// Fields that may hold the answers, in order of precedence: the name in Search-R1 and FlashRAG first, then those of
/// other question-answering sets.
const ANSWER_FIELDS: [&str; 4] = ["golden_answers", "answers", "answer", "target"];

/// Longest part of a wrong value that an error shows.
const SHOWN_CHARS: usize = 80;

/// Reads and checks the file at `path`. Blank lines are skipped.
///
/// # Errors
/// A file that cannot be read or is empty, or the first line that is not a usable record.
pub fn read_qa_records(path: &Path) -> Result<Vec<QaRecord>, DatasetError> {
    let bytes = std::fs::read(path).map_err(|error| DatasetError::File {
        path: path.to_path_buf(),
        reason: error.to_string(),
    })?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let mut records = Vec::new();
    let mut line_of_id: HashMap<String, usize> = HashMap::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let number = index + 1;
        let failed = |reason| DatasetError::Line { path: path.to_path_buf(), line: number, reason };
        if line.trim_ascii().is_empty() {
            continue;
        }
        let record = parse_line(line, number).map_err(failed)?;
        if let Some(earlier) = line_of_id.insert(record.id.clone(), number) {
            let reason = format!(
                "\"id\" {} is already used in line {earlier}; ids must differ",
                show_text(&record.id)
            );
            return Err(failed(reason));
        }
        records.push(record);
    }
    if records.is_empty() {
        return Err(DatasetError::Empty { path: path.to_path_buf() });
    }
    Ok(records)
}

fn parse_line(line: &[u8], number: usize) -> Result<QaRecord, String> {
    let text = str::from_utf8(line)
        .map_err(|error| format!("invalid UTF-8 at byte {} of the line", error.valid_up_to()))?;
    let mut fields = match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => fields,
        Ok(other) => return Err(format!("{} is not a JSON object", show(&other))),
        Err(error) => return Err(format!("bad JSON: {error}")),
    };
    let id = take_id(&mut fields, number)?;
    let question = match fields.remove("question") {
        Some(Value::String(question)) if !question.trim().is_empty() => question,
        Some(other) => {
            return Err(format!(
                "\"question\" is {}; accepted is a text that is not blank",
                show(&other)
            ));
        }
        None => {
            return Err("\"question\" is missing; accepted is a text that is not blank".to_owned());
        }
    };
    let golden_answers = take_answers(&mut fields)?;
    Ok(QaRecord { id, question, golden_answers, extra: fields })
}

fn take_id(fields: &mut Map<String, Value>, number: usize) -> Result<String, String> {
    match fields.remove("id") {
        None | Some(Value::Null) => Ok(format!("line-{number}")),
        Some(Value::String(id)) if !id.trim().is_empty() => Ok(id),
        Some(Value::Number(id)) => Ok(id.to_string()),
        Some(other) => Err(format!(
            "\"id\" is {}; accepted is a number, a text that is not blank, or no \"id\" at all",
            show(&other)
        )),
    }
}

fn take_answers(fields: &mut Map<String, Value>) -> Result<Vec<String>, String> {
    const ACCEPTED: &str = "accepted is a text, or a list of at least one text, none of them blank";
    let entry = ANSWER_FIELDS
        .iter()
        .find_map(|&field| fields.remove(field).map(|value| (field, value)))
        // The field in the reference's prepared files: reward_model.ground_truth.target.
        .or_else(|| {
            let target = fields.get("reward_model")?.get("ground_truth")?.get("target")?;
            Some(("reward_model.ground_truth.target", target.clone()))
        });
    let Some((field, value)) = entry else {
        return Err(format!("\"golden_answers\" is missing; {ACCEPTED}"));
    };
    // In FlashRAG and Search-R1, the "target" field is an object that contains the list.
    let listed = value.get("target").unwrap_or(&value);
    let answers: Option<Vec<String>> = match listed {
        Value::String(answer) => Some(vec![answer.clone()]),
        Value::Array(answers) => answers
            .iter()
            .map(|answer| match answer {
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            })
            .collect(),
        Value::Number(answer) => Some(vec![answer.to_string()]),
        _ => None,
    };
    answers
        .filter(|answers| !answers.is_empty() && answers.iter().all(|a| !a.trim().is_empty()))
        .ok_or_else(|| format!("\"{field}\" is {}; {ACCEPTED}", show(&value)))
}

fn show(value: &Value) -> String {
    shorten(&value.to_string())
}

fn show_text(text: &str) -> String {
    shorten(&format!("{text:?}"))
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(contents: &[u8]) -> Result<Vec<QaRecord>, DatasetError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("qa.jsonl");
        std::fs::write(&path, contents).unwrap();
        read_qa_records(&path)
    }

    #[track_caller]
    fn check_error(contents: &[u8], expected: &[&str]) {
        let message = read(contents).unwrap_err().to_string();
        for part in expected.iter().chain(&["qa.jsonl"]) {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
    }

    #[test]
    fn the_forms_of_answers_are_read() {
        let records = read(
            concat!(
                "\u{feff}{\"id\":\"a\",\"question\":\"q?\",\"golden_answers\":[\"x\",\"y\"],\"hops\":2}\n",
                "\r\n",
                "{\"question\":\"q?\",\"answer\":\"x\"}\r\n",
                "{\"id\":7,\"question\":\"q?\",\"target\":[1898]}\n",
                "{\"question\":\"q?\",\"target\":{\"target\":[\"x\"]}}\n",
                "{\"question\":\"q?\",\"reward_model\":{\"ground_truth\":{\"target\":[\"é\"]}}}",
            )
            .as_bytes(),
        )
        .unwrap();
        let read: Vec<(&str, Vec<&str>)> = records
            .iter()
            .map(|r| (r.id.as_str(), r.golden_answers.iter().map(String::as_str).collect()))
            .collect();
        let expected = [
            ("a", vec!["x", "y"]),
            ("line-3", vec!["x"]),
            ("7", vec!["1898"]),
            ("line-5", vec!["x"]),
            ("line-6", vec!["é"]),
        ];
        assert_eq!(read, expected);
        assert_eq!(records[0].extra["hops"], 2);
    }

    #[test]
    fn a_question_without_answers_is_refused() {
        let good = "{\"question\":\"q?\",\"answer\":\"x\"}\n";
        for (bad, value) in [
            ("{\"question\":\"q?\"}", "\"golden_answers\" is missing"),
            ("{\"question\":\"q?\",\"golden_answers\":[]}", "\"golden_answers\" is []"),
            ("{\"question\":\"q?\",\"golden_answers\":[\"x\",\" \"]}", "[\"x\",\" \"]"),
            ("{\"question\":\"q?\",\"golden_answers\":null}", "\"golden_answers\" is null"),
            ("{\"question\":\"q?\",\"answer\":{\"text\":1}}", "\"answer\" is {\"text\":1}"),
        ] {
            check_error(format!("{good}{bad}\n").as_bytes(), &["line 2", value, "accepted is"]);
        }
    }

    #[test]
    fn other_bad_lines_are_refused_with_a_reason() {
        check_error(b"{\"question\":", &["line 1", "bad JSON"]);
        check_error(b"\n[1]\n", &["line 2", "[1] is not a JSON object"]);
        check_error(
            b"{\"question\":\" \",\"answer\":\"x\"}",
            &["\"question\" is \" \"", "accepted"],
        );
        check_error(b"{\"answer\":\"x\"}", &["\"question\" is missing"]);
        check_error(
            b"{\"id\":\"\",\"question\":\"q\",\"answer\":\"x\"}",
            &["\"id\" is \"\"", "accepted"],
        );
        check_error(
            b"{\"question\":\"\xff\",\"answer\":\"x\"}",
            &["line 1", "invalid UTF-8 at byte 13"],
        );
        check_error(
            b"{\"id\":1,\"question\":\"q\",\"answer\":\"x\"}\n{\"id\":\"1\",\"question\":\"q\",\"answer\":\"x\"}",
            &["line 2", "\"id\" \"1\" is already used in line 1"],
        );
        check_error(b"\n \n", &["no records"]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let message = read_qa_records(Path::new("nowhere/qa.jsonl")).unwrap_err().to_string();
        assert!(message.starts_with("nowhere/qa.jsonl: "), "{message}");
    }
}
