//! Rows of files as people keep them: JSON Lines, one JSON list, alone or in an object, tables with tabs or commas, parquet, each plain or
//! compressed with gzip or zstd, in one file or in a folder of parts. The first bytes decide, not the name.
//!
//! Owns the way from a path to objects with keys. It knows no key by its meaning: the caller decides what a row must
//! contain. What is not rows is named for what it is. Every error names the file and the row.
//!
//! JSON is read as Python's `json` reads it, so that a key that nobody needs stops nothing: `NaN`, `Infinity` and
//! numbers beyond a double become null, and a lone surrogate such as `\ud800` becomes U+FFFD.

mod fault;
mod kind;
mod parts;
mod source;
mod json;
mod table;
mod parquet;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::digest::Digest;
use super::jsonl::{JsonlReader, Line};
use json::ListReader;
use parquet::ParquetReader;
use source::{Content, Meter, TextReader};
use table::TableReader;

pub use fault::{Place, RowFault, RowsError};
pub use json::kind_of;
pub use parts::parts;
pub use table::{Headerless, Layout, list_in_text, passage_columns, question_columns};

/// An object with keys, and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The keys with their values.
    pub fields: Map<String, Value>,
    /// Number of the row in its file, counted from 1: the line of JSON Lines and tables (blank lines count), else
    /// the position in the list or in the parquet file.
    pub number: u64,
    /// The file, which is one part if the path is a folder.
    pub path: Arc<Path>,
    /// `true` if `number` is a line.
    is_line: bool,
}

impl Row {
    /// Makes an error that names this row.
    pub fn fault(&self, reason: impl Into<String>) -> RowsError {
        RowsError {
            path: self.path.to_path_buf(),
            place: self.place(),
            fault: RowFault::Record(reason.into()),
        }
    }

    /// Reads the object on a line of JSON Lines, as [`Rows`] does.
    ///
    /// # Errors
    /// A line that is not an object, with its number.
    pub fn of_line(text: &str, number: u64, path: Arc<Path>) -> Result<Self, RowsError> {
        match json::object_on_line(text) {
            Ok(fields) => Ok(Self { fields, number, path, is_line: true }),
            Err(fault) => Err(RowsError::at(&path, Place::Line(number), fault)),
        }
    }

    /// Returns a row at the same place with other keys.
    #[must_use]
    pub fn with_fields(&self, fields: Map<String, Value>) -> Self {
        Self { fields, number: self.number, path: self.path.clone(), is_line: self.is_line }
    }

    /// Returns the place of the row in its file.
    pub fn place(&self) -> Place {
        if self.is_line { Place::Line(self.number) } else { Place::Row(self.number) }
    }
}

/// The number of a row in its file, and its keys; `None` at the end.
type NumberedRow = Option<(u64, Map<String, Value>)>;

/// The rows of a file or of a folder of parts.
#[derive(Debug)]
pub struct Rows {
    waiting: VecDeque<PathBuf>,
    headerless: Headerless,
    part: Part,
    bytes_before: u64,
    has_failed: bool,
}

#[derive(Debug)]
struct Part {
    path: Arc<Path>,
    meter: Meter,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Empty,
    Lines(JsonlReader<TextReader>),
    List(ListReader),
    Table(TableReader),
    Parquet(Box<ParquetReader>),
}

impl Rows {
    /// Opens a file or a folder. `headerless` names the columns of a table without a line of names, by its first line.
    pub fn open(path: &Path, headerless: Headerless) -> Result<Self, RowsError> {
        let mut waiting: VecDeque<PathBuf> = parts(path)?.into();
        let first = waiting.pop_front().expect("a path has at least one part");
        let part = Part::open(&first, headerless)?;
        Ok(Self { waiting, headerless, part, bytes_before: 0, has_failed: false })
    }

    /// Returns the number of bytes that were read from the files, before decompression.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_before + self.part.bytes_read()
    }

    /// Reads what is left of the last file and returns the digest of its bytes.
    pub fn into_digest(self) -> Result<Digest, RowsError> {
        let part = self.part;
        let path = part.path.clone();
        // The readers release the file before its rest is read.
        drop(part.form);
        part.meter.finish().map_err(|error| RowsError::io(&path, error))
    }

    fn next_row(&mut self) -> Result<Option<Row>, RowsError> {
        loop {
            if let Some(row) = self.part.next_row()? {
                return Ok(Some(row));
            }
            let Some(next) = self.waiting.pop_front() else { return Ok(None) };
            self.bytes_before += self.part.bytes_read();
            self.part = Part::open(&next, self.headerless)?;
        }
    }
}

impl Iterator for Rows {
    type Item = Result<Row, RowsError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_failed {
            return None;
        }
        let row = self.next_row();
        self.has_failed = row.is_err();
        row.transpose()
    }
}

impl Part {
    fn open(path: &Path, headerless: Headerless) -> Result<Self, RowsError> {
        let (content, meter) = source::open(path)?;
        let path: Arc<Path> = path.into();
        let form = match content {
            Content::Parquet(file) => Form::Parquet(Box::new(ParquetReader::open(file, &path)?)),
            Content::Text(mut text) => {
                let head = text.head(&path)?;
                match head.trim_ascii_start().first() {
                    None => Form::Empty,
                    Some(b'{') => match json::list_in_object(head) {
                        Some(offset) => Form::List(ListReader::within(text, offset)),
                        None => Form::Lines(JsonlReader::new(text, &path)),
                    },
                    Some(b'[') => Form::List(ListReader::new(text)),
                    Some(_) => Form::Table(TableReader::open(text, &path, headerless)?),
                }
            }
        };
        Ok(Self { path, meter, form })
    }

    fn bytes_read(&self) -> u64 {
        match &self.form {
            Form::Parquet(file) => (file.share_read() * file_bytes(&self.path) as f64) as u64,
            _ => self.meter.bytes(),
        }
    }

    fn next_row(&mut self) -> Result<Option<Row>, RowsError> {
        let path = &self.path;
        let (read, is_line) = match &mut self.form {
            Form::Empty => return Ok(None),
            Form::Lines(lines) => (json::next_line(lines)?, true),
            Form::List(list) => (list.next_element(path)?, false),
            Form::Table(table) => (table.next_row()?, true),
            Form::Parquet(file) => (file.next_row(path)?, false),
        };
        Ok(read.map(|(number, fields)| Row { fields, number, path: path.clone(), is_line }))
    }
}

/// Returns the size of a file, for progress only.
fn file_bytes(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Returns `true` if a file holds objects: JSON or parquet, not lines of text.
pub fn holds_objects(path: &Path) -> Result<bool, RowsError> {
    Ok(match source::open(path)?.0 {
        Content::Parquet(_) => true,
        Content::Text(mut text) => {
            matches!(text.head(path)?.trim_ascii_start().first(), Some(b'{' | b'['))
        }
    })
}

/// The lines of a file in JSON Lines, decompressed and not parsed.
#[derive(Debug)]
pub struct JsonLines {
    lines: JsonlReader<TextReader>,
    meter: Meter,
}

impl JsonLines {
    /// Opens a file as lines, to be parsed elsewhere by [`Row::of_line`]. Returns `None` if it is not in JSON Lines.
    ///
    /// # Errors
    /// A file that cannot be read, or is not rows.
    pub fn open(path: &Path) -> Result<Option<Self>, RowsError> {
        let (Content::Text(mut text), meter) = source::open(path)? else { return Ok(None) };
        let head = text.head(path)?;
        let is_lines = head.trim_ascii_start().first() == Some(&b'{');
        let is_lines = is_lines && json::list_in_object(head).is_none();
        Ok(is_lines.then(|| Self { lines: JsonlReader::new(text, path), meter }))
    }

    /// Returns the next line that is not blank.
    ///
    /// # Errors
    /// A line that cannot be read.
    pub fn next_line(&mut self) -> Result<Option<Line<'_>>, RowsError> {
        Ok(self.lines.next_line()?)
    }

    /// Returns the number of bytes that were read from the file, before decompression.
    pub fn bytes_read(&self) -> u64 {
        self.meter.bytes()
    }
}

/// Opens the lines of a text file, which may be compressed. A byte order mark is skipped.
pub fn open_lines(path: &Path) -> Result<JsonlReader<TextReader>, RowsError> {
    match source::open(path)?.0 {
        Content::Text(text) => Ok(JsonlReader::new(text, path)),
        Content::Parquet(_) => Err(RowsError::file(path, RowFault::NotText("a parquet file"))),
    }
}

#[cfg(test)]
mod tests;
