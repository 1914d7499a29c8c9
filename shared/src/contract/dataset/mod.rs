//! Question-answering records: rows with a question and its gold answers, in any form that [`super::rows`],
//! [`super::question`] and [`super::gold`] read.
//!
//! Owns reading and checking. A record that cannot be scored is refused with its row when the file is read, not
//! in the middle of a training run. What is doubtful about a file is collected as warnings.

mod aliases;
mod ids;
mod nested;
#[cfg(test)]
mod originals;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::gold::{self, Gold};
use super::question::{self, CarriedPrompt};
use super::rows::{Place, Row, Rows, RowsError, question_columns};
use aliases::Aliases;
pub use ids::Ids;

/// A question with its correct answers.
#[derive(Clone, Debug, PartialEq)]
pub struct QaRecord {
    /// Identifier, unique among the records read together; `line-N` or `row-N` if the record has none.
    pub id: String,
    /// The question, not blank.
    pub question: String,
    /// At least one answer, none of them blank.
    pub golden_answers: Vec<String>,
    /// The prompt that the row carries, if it was asked for.
    pub prompt: Option<CarriedPrompt>,
    /// All other fields, unchanged.
    pub extra: Map<String, Value>,
}

/// A dataset file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The file, or one of its rows, is not usable.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// The file holds no record.
    #[error("{}: no records; a line is {{\"question\": …, \"golden_answers\": […]}}", path.display())]
    Empty { path: PathBuf },
}

/// Longest part of a wrong value that an error shows.
const SHOWN_CHARS: usize = 80;
/// Rows that a warning names.
const NAMED_ROWS: usize = 5;
/// Accepted fields, for messages.
const ACCEPTED: &str = "accepted are \"golden_answers\", \"answers\", \"answer\", \"target\", \"ground_truth\" and their \
                        aliases, with at least one text that is not blank";
/// Fields that are read and kept nowhere: prompts are long, and the trainer makes its own.
const DROPPED_FIELDS: [&str; 3] = ["question", "prompt", "messages"];

/// The choice of what to read of each row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QaOptions {
    /// Reads the prompt that each row carries; a row without one is an error.
    pub prompts: bool,
    /// Puts the name of the file before numbers in ids, for records of several files.
    pub names_files: bool,
}

/// Reads and checks the file at `path`, and logs what is doubtful about it.
///
/// # Errors
/// A file that cannot be read or is empty, or the first row that is not a usable record.
pub fn read_qa_records(path: &Path) -> Result<Vec<QaRecord>, DatasetError> {
    let mut ids = Ids::default();
    let records = read_qa_file(path, QaOptions::default(), &mut ids)?;
    if let Some(warning) = ids.warning() {
        tracing::warn!("{}: {warning}", path.display());
    }
    Ok(records)
}

/// Reads and checks one of several files whose records need different ids, and logs what is doubtful about it.
///
/// # Errors
/// Those of [`read_qa_records`], and a row without a prompt if prompts are asked for.
pub fn read_qa_file(
    path: &Path,
    options: QaOptions,
    ids: &mut Ids,
) -> Result<Vec<QaRecord>, DatasetError> {
    let mut reader = QaReader::open_with(path, options)?;
    let mut records = Vec::new();
    while let Some(mut row) = reader.next_row()? {
        row.record.id = ids.assign(row.record.id, &row.place_id);
        records.push(row.record);
    }
    if records.is_empty() {
        return Err(DatasetError::Empty { path: path.to_path_buf() });
    }
    for warning in reader.warnings() {
        tracing::warn!("{warning}");
    }
    Ok(records)
}

/// A record with its row.
#[derive(Clone, Debug)]
pub struct QaRow {
    /// The record.
    pub record: QaRecord,
    /// `true` if the id is the record's own.
    pub has_id: bool,
    /// An id of the row's place, such as `row-7`.
    pub place_id: String,
    /// The user's message that contains the question, if the row has a prompt.
    pub prompt: Option<String>,
    /// The row, without its fields.
    pub row: Row,
}

/// A reader of records, row by row. Equal ids are the caller's matter.
#[derive(Debug)]
pub struct QaReader {
    path: PathBuf,
    options: QaOptions,
    aliases: Aliases,
    rows: Rows,
    /// Questions of the last row that are not read yet, with their numbers within it if it has several.
    waiting: VecDeque<(Row, Option<usize>)>,
    /// Questions that the file calls unanswerable.
    unanswerable: usize,
    /// Fields that look like answers and are not read, with their first row.
    unread: BTreeMap<String, Place>,
    /// The first answers that match no text, with their rows.
    unmatchable: Vec<(String, Place)>,
    rows_with_unmatchable: usize,
    rows_without_matchable: usize,
}

impl QaReader {
    /// Opens a file or a folder of parts.
    ///
    /// # Errors
    /// A file that is not there, or that has no rows by its form.
    pub fn open(path: &Path) -> Result<Self, DatasetError> {
        Self::open_with(path, QaOptions::default())
    }

    /// Opens a file or a folder of parts, for a choice of what to read.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub fn open_with(path: &Path, options: QaOptions) -> Result<Self, DatasetError> {
        // Rows of several parts may have the same number.
        let names_files = options.names_files || path.is_dir();
        Ok(Self {
            path: path.to_path_buf(),
            options: QaOptions { names_files, ..options },
            aliases: Aliases::beside(path)?,
            rows: Rows::open(path, question_columns)?,
            waiting: VecDeque::new(),
            unanswerable: 0,
            unread: BTreeMap::new(),
            unmatchable: Vec::new(),
            rows_with_unmatchable: 0,
            rows_without_matchable: 0,
        })
    }

    /// Reads the next record.
    ///
    /// # Errors
    /// A row that is not a usable record.
    pub fn next_row(&mut self) -> Result<Option<QaRow>, DatasetError> {
        while self.waiting.is_empty() {
            let Some(row) = self.rows.next() else { return Ok(None) };
            let mut row = row?;
            let Some(found) = nested::unnest(std::mem::take(&mut row.fields)) else { continue };
            self.unanswerable += found.unanswerable;
            let count = found.questions.len();
            for (index, fields) in found.questions.into_iter().enumerate() {
                let number = (count > 1).then_some(index + 1);
                self.waiting.push_back((row.with_fields(fields), number));
            }
        }
        let Some((mut row, number)) = self.waiting.pop_front() else { return Ok(None) };
        let mut fields = std::mem::take(&mut row.fields);
        let place_id = match number {
            Some(number) => format!("{}-{number}", self.generated_id(&row)),
            None => self.generated_id(&row),
        };
        let (record, prompt, has_id) =
            self.record(&row, &place_id, &mut fields).map_err(|reason| row.fault(reason))?;
        Ok(Some(QaRow { record, has_id, place_id, prompt, row }))
    }

    fn record(
        &mut self,
        row: &Row,
        place_id: &str,
        fields: &mut Map<String, Value>,
    ) -> Result<(QaRecord, Option<String>, bool), String> {
        let own_id = take_id(fields)?;
        let has_id = own_id.is_some();
        let id = own_id.unwrap_or_else(|| place_id.to_owned());
        let question::Question { text: question, prompt } = question::find(fields)?;
        let Gold { answers: golden_answers, unmatchable, unread } = gold::take(fields)?;
        if golden_answers.is_empty() {
            let named: Vec<String> = unread.iter().map(|field| format!("{field:?}")).collect();
            return Err(match &named[..] {
                [] => format!("there is no answer; {ACCEPTED}"),
                _ => format!(
                    "there is no answer in a field that is read ({} {} not); {ACCEPTED}",
                    named.join(", "),
                    if named.len() == 1 { "is" } else { "are" }
                ),
            });
        }
        for field in unread {
            self.unread.entry(field).or_insert(row.place());
        }
        if !unmatchable.is_empty() {
            self.rows_with_unmatchable += 1;
            self.rows_without_matchable += usize::from(unmatchable.contains(&golden_answers[0]));
            let room = NAMED_ROWS.saturating_sub(self.unmatchable.len());
            let named = unmatchable.into_iter().take(room).map(|answer| (answer, row.place()));
            self.unmatchable.extend(named);
        }
        let carried = self.options.prompts.then(|| question::carried_prompt(fields)).transpose()?;
        for name in DROPPED_FIELDS {
            fields.remove(name);
        }
        let extra = std::mem::take(fields);
        let mut record = QaRecord { id, question, golden_answers, prompt: carried, extra };
        self.aliases.add_to(&mut record);
        Ok((record, prompt, has_id))
    }

    fn generated_id(&self, row: &Row) -> String {
        let place = match row.place() {
            Place::Line(line) => format!("line-{line}"),
            Place::Row(number) => format!("row-{number}"),
            Place::File => "row".to_owned(),
        };
        match row.path.file_name() {
            Some(name) if self.options.names_files => format!("{}-{place}", name.to_string_lossy()),
            _ => place,
        }
    }

    /// Returns what is doubtful about the rows that were read.
    pub fn warnings(&self) -> Vec<String> {
        let path = self.path.display();
        let unread = self.unread.iter().map(|(field, place)| {
            format!(
                "{path}: the field {field:?} looks like answers and is not read, first in {}; rename it to \
                 \"answer_aliases\" if its texts are right answers",
                in_words(*place)
            )
        });
        let mut warnings: Vec<String> = unread.collect();
        if self.unanswerable > 0 {
            warnings.push(format!(
                "{path}: {} left out, which the file calls unanswerable (\"is_impossible\")",
                if self.unanswerable == 1 {
                    "1 question is".to_owned()
                } else {
                    format!("{} questions are", self.unanswerable)
                }
            ));
        }
        if self.rows_with_unmatchable > 0 {
            let named = self.unmatchable.iter().map(|(answer, place)| {
                format!("{} in {}", shorten(&format!("{answer:?}")), in_words(*place))
            });
            let named: Vec<String> = named.collect();
            let rest = if self.rows_with_unmatchable > NAMED_ROWS { ", …" } else { "" };
            warnings.push(format!(
                "{path}: {} with a gold answer of which normalisation leaves nothing, so that it matches no answer: \
                 {}{rest}; {} of these {} no other gold answer, and every answer there is wrong",
                rows(self.rows_with_unmatchable),
                named.join(", "),
                self.rows_without_matchable,
                if self.rows_without_matchable == 1 { "has" } else { "have" }
            ));
        }
        warnings
    }
}

fn rows(count: usize) -> String {
    if count == 1 { "1 row".to_owned() } else { format!("{count} rows") }
}

fn in_words(place: Place) -> String {
    match place {
        Place::File => "the file".to_owned(),
        Place::Line(line) => format!("line {line}"),
        Place::Row(row) => format!("row {row}"),
    }
}

fn take_id(fields: &mut Map<String, Value>) -> Result<Option<String>, String> {
    let taken = ["id", "_id"].iter().find_map(|&name| {
        fields.remove(name).filter(|value| !value.is_null()).map(|value| (name, value))
    });
    match taken {
        None => Ok(None),
        Some((_, Value::String(id))) if !id.trim().is_empty() => Ok(Some(id)),
        Some((_, Value::Number(id))) => Ok(Some(id.to_string())),
        Some((name, other)) => Err(format!(
            "\"{name}\" is {}; accepted is a number, a text that is not blank, or no \"{name}\" at all",
            shorten(&other.to_string())
        )),
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
