//! The description of question files: what is in them, and what is doubtful about them.
//!
//! Reads every row, and counts those that cannot be used instead of stopping at the first one.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use shared::contract::dataset::{DatasetError, Ids, QaReader, QaRow};

use super::conversion::rows;
use super::{Overlap, question_words};

/// Faulty rows that are named. A damaged file may have a fault in each.
const NAMED_FAULTS: usize = 10;

/// The least, the middle and the largest of some numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spread {
    pub least: usize,
    pub median: usize,
    pub most: usize,
}

/// What a file of questions holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Description {
    /// Usable rows.
    pub questions: usize,
    /// Questions by `data_source`; "" for rows without one.
    pub sources: BTreeMap<String, usize>,
    /// Words of a question.
    pub question_words: Spread,
    /// Accepted answers of a question.
    pub answers: Spread,
    /// Rows with an id of their own.
    pub own_ids: usize,
    /// Rows whose id an earlier one has.
    pub repeated_ids: usize,
    /// Rows that carry a prompt.
    pub prompts: usize,
    /// Rows whose question stands earlier in the file.
    pub repeated_questions: usize,
    /// Doubts about the file.
    pub warnings: Vec<String>,
    /// The first rows that cannot be used.
    pub faults: Vec<String>,
    /// Rows that cannot be used.
    pub faulty: usize,
    /// Held-out questions that are in the file too, if it was compared.
    #[serde(skip)]
    pub overlap: Option<Overlap>,
}

impl Spread {
    fn of(mut numbers: Vec<usize>) -> Self {
        numbers.sort_unstable();
        let at = |index: usize| numbers.get(index).copied().unwrap_or_default();
        Self {
            least: at(0),
            median: at(numbers.len() / 2),
            most: at(numbers.len().saturating_sub(1)),
        }
    }
}

/// Describes a file or a folder of parts, and compares it with the questions of `held_out`.
///
/// # Errors
/// A file that cannot be read as rows.
pub fn describe(path: &Path, held_out: Option<&Path>) -> Result<Description, DatasetError> {
    let mut description = Description::default();
    let mut reader = QaReader::open(path)?;
    let (mut ids, mut repeated) = (Ids::default(), 0);
    let mut questions: HashMap<String, String> = HashMap::new();
    let (mut lengths, mut answers) = (Vec::new(), Vec::new());
    while let Some(row) = next_usable(&mut reader, &mut description)? {
        let record = row.record;
        let source = record.extra.get("data_source").and_then(Value::as_str).unwrap_or_default();
        *description.sources.entry(source.to_owned()).or_default() += 1;
        description.own_ids += usize::from(row.has_id);
        description.prompts += usize::from(row.prompt.is_some());
        let id = ids.assign(record.id.clone(), &row.place_id);
        repeated += usize::from(id != record.id);
        lengths.push(record.question.split_whitespace().count());
        answers.push(record.golden_answers.len());
        let words = question_words(&record.question);
        if questions.insert(words, id).is_some() {
            description.repeated_questions += 1;
        }
    }
    description.questions = lengths.len();
    description.repeated_ids = repeated;
    description.question_words = Spread::of(lengths);
    description.answers = Spread::of(answers);
    description.warnings = reader.warnings();
    if let Some(held_out) = held_out {
        let records = shared::contract::dataset::read_qa_records(held_out)?;
        let training = questions.iter().map(|(words, id)| (id.as_str(), words.as_str()));
        let held_out = records.iter().map(|record| (record.id.as_str(), record.question.as_str()));
        description.overlap = Some(Overlap::of(training, held_out));
    }
    Ok(description)
}

/// Returns the next row that can be used, and notes the faults before it. A fault of the file itself ends its rows.
fn next_usable(
    reader: &mut QaReader,
    description: &mut Description,
) -> Result<Option<QaRow>, DatasetError> {
    loop {
        match reader.next_row() {
            Ok(row) => return Ok(row),
            Err(fault) => {
                description.faulty += 1;
                if description.faults.len() < NAMED_FAULTS {
                    description.faults.push(fault.to_string());
                }
            }
        }
    }
}

impl Description {
    /// Returns the description in words, one fact a line.
    pub fn in_words(&self, path: &Path) -> String {
        let mut text = format!("{}: {}\n", path.display(), rows(self.questions));
        let spread = |spread: Spread| {
            let Spread { least, median, most } = spread;
            if least == most {
                most.to_string()
            } else {
                format!("{least} to {most}, median {median}")
            }
        };
        let mut line = |name: &str, fact: String| {
            let _ = writeln!(text, "  {name:<20} {fact}");
        };
        let sources = self.sources.iter().map(|(source, count)| {
            let source = if source.is_empty() { "without data_source" } else { source };
            format!("{source} {count}")
        });
        line("sources", sources.collect::<Vec<_>>().join(", "));
        line("words of a question", spread(self.question_words));
        line("answers of each", spread(self.answers));
        line(
            "ids",
            format!("{} of their own, {} of them repeated", self.own_ids, self.repeated_ids),
        );
        line("prompts", format!("{} carried", self.prompts));
        line("repeated questions", self.repeated_questions.to_string());
        if let Some(overlap) = &self.overlap {
            let fact = overlap.warning();
            line(
                "overlap",
                fact.unwrap_or_else(|| format!("none of {} questions", overlap.held_out)),
            );
        }
        for warning in &self.warnings {
            let _ = writeln!(text, "  warning: {warning}");
        }
        for fault in &self.faults {
            let _ = writeln!(text, "  unusable: {fault}");
        }
        if self.faulty > self.faults.len() {
            let _ = writeln!(text, "  unusable: {} in all", rows(self.faulty));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;

    #[test]
    fn a_file_is_described() {
        let path = golden::path("questions").join("search_r1.parquet");
        let folder = tempfile::tempdir().unwrap();
        let held_out = folder.path().join("test.jsonl");
        std::fs::write(&held_out, "{\"question\": \"Who wrote Hamlet\", \"answer\": \"x\"}\n")
            .unwrap();
        let description = describe(&path, Some(&held_out)).unwrap();
        let overlap = description.overlap.as_ref().unwrap();
        assert_eq!((overlap.shared, overlap.held_out), (1, 1));
        assert_eq!((description.questions, description.prompts, description.own_ids), (3, 3, 3));
        assert_eq!((description.repeated_ids, description.repeated_questions), (1, 0));
        assert_eq!(description.question_words, Spread { least: 3, median: 5, most: 7 });
        assert_eq!(description.answers, Spread { least: 1, median: 1, most: 2 });
        let text = description.in_words(&path);
        for part in [
            "search_r1.parquet: 3 rows\n",
            "hotpotqa 1, nq 2",
            "3 to 7, median 5",
            "1 of 1 held-out",
        ] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
    }

    #[test]
    fn unusable_rows_are_counted_and_the_others_described() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("qa.jsonl");
        let good = "{\"question\": \"q?\", \"answer\": \"x\", \"other_answers\": [\"y\"]}\n";
        std::fs::write(&path, format!("{good}{}{good}", "{\"question\": \"q?\"}\n".repeat(12)))
            .unwrap();
        let description = describe(&path, None).unwrap();
        assert_eq!(
            (description.questions, description.faulty, description.faults.len()),
            (2, 12, 10)
        );
        assert_eq!((description.repeated_questions, description.warnings.len()), (1, 1));
        let text = description.in_words(&path);
        for part in
            ["qa.jsonl:2: there is no answer", "unusable: 12 rows in all", "without data_source 2"]
        {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
    }
}
