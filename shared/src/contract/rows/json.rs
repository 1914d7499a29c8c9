//! Objects in JSON: one on each line, or all in one list.

use std::io::BufRead;
use std::path::Path;

use serde_json::{Map, Value};

use super::NumberedRow;
use super::fault::{Place, RowFault, RowsError};
use super::source::TextReader;
use crate::contract::jsonl::{JsonlReader, LINE_LIMIT_BYTES, LineFault};
use crate::contract::python_json::{self, NotFinite};

/// Reads the object on the next line.
pub(super) fn next_line(lines: &mut JsonlReader<TextReader>) -> Result<NumberedRow, RowsError> {
    let Some(line) = lines.next_line()? else { return Ok(None) };
    let number = line.number;
    match object(line.text) {
        Ok(fields) => Ok(Some((number, fields))),
        Err(_) if is_spread(line.text) => {
            let reason = "an object ends on another line, expected one object on each line, or one \
                          list of all objects";
            Err(line.fault(LineFault::Record(reason.to_owned())).into())
        }
        Err(fault) => Err(line.fault(fault).into()),
    }
}

/// Returns `true` if the line is the beginning of an object that was written over several lines.
fn is_spread(line: &str) -> bool {
    let is_open = matches!(line.trim_end().as_bytes().last(), Some(b'{' | b'[' | b','));
    is_open && serde_json::from_str::<Value>(line).is_err_and(|error| error.is_eof())
}

/// Parses an object.
pub(super) fn object(text: &str) -> Result<Map<String, Value>, LineFault> {
    let value = python_json::parse(text, NotFinite::Null)
        .map_err(|error| LineFault::Record(format!("is not JSON: {error}")))?;
    match value {
        Value::Object(fields) => Ok(fields),
        other => Err(LineFault::Record(format!("is {}, expected an object", kind_of(&other)))),
    }
}

/// Returns the kind of a value, worded to follow "is".
pub fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Reads the objects of one JSON list, one at a time.
#[derive(Debug)]
pub(super) struct ListReader {
    reader: TextReader,
    row: u64,
    state: ListState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListState {
    Start,
    Inside,
    Ended,
}

impl ListReader {
    pub(super) fn new(reader: TextReader) -> Self {
        Self { reader, row: 0, state: ListState::Start }
    }

    /// Reads the next object.
    pub(super) fn next_element(&mut self, path: &Path) -> Result<NumberedRow, RowsError> {
        let fault = |row: u64, reason: &str| {
            Err(RowsError::at(path, Place::Row(row), RowFault::Record(reason.to_owned())))
        };
        let io = |error| RowsError::io(path, error);
        if self.state == ListState::Ended {
            return Ok(None);
        }
        let mut next = self.next_mark().map_err(io)?;
        if self.state == ListState::Start {
            self.reader.consume(1);
            next = self.next_mark().map_err(io)?;
        } else if next == Some(b',') {
            self.reader.consume(1);
            next = self.next_mark().map_err(io)?;
            if next == Some(b']') {
                return fault(self.row + 1, "an object is missing between , and ]");
            }
        } else if next != Some(b']') {
            return fault(self.row, "is not followed by , or ]: the list is not complete");
        }
        self.state = ListState::Inside;
        if next == Some(b']') {
            self.reader.consume(1);
            self.state = ListState::Ended;
            return match self.next_mark().map_err(io)? {
                None => Ok(None),
                Some(_) => fault(self.row, "is followed by more than the end of the list"),
            };
        }
        self.row += 1;
        let bytes = self.element(path)?;
        let place = Place::Row(self.row);
        let text = str::from_utf8(&bytes).map_err(|error| {
            let offset = error.valid_up_to();
            let reason = format!("invalid UTF-8 at byte {offset} of the object");
            RowsError::at(path, place, RowFault::Record(reason))
        })?;
        let fields = object(text).map_err(|fault| RowsError::at(path, place, fault))?;
        Ok(Some((self.row, fields)))
    }

    /// Skips white space and returns the next byte without taking it.
    fn next_mark(&mut self) -> std::io::Result<Option<u8>> {
        loop {
            let buffer = self.reader.fill_buf()?;
            if buffer.is_empty() {
                return Ok(None);
            }
            if let Some(start) = buffer.iter().position(|byte| !byte.is_ascii_whitespace()) {
                let mark = buffer[start];
                self.reader.consume(start);
                return Ok(Some(mark));
            }
            let count = buffer.len();
            self.reader.consume(count);
        }
    }

    /// Takes the bytes of one element.
    fn element(&mut self, path: &Path) -> Result<Vec<u8>, RowsError> {
        let mut bytes = Vec::new();
        let (mut depth, mut in_string, mut is_escaped) = (0u32, false, false);
        loop {
            let buffer = self.reader.fill_buf().map_err(|error| RowsError::io(path, error))?;
            let count = buffer.len();
            let end = buffer.iter().position(|byte| {
                match byte {
                    _ if is_escaped => is_escaped = false,
                    b'\\' if in_string => is_escaped = true,
                    b'"' => in_string = !in_string,
                    _ if in_string => {}
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' if depth > 0 => depth -= 1,
                    b',' | b']' if depth == 0 => return true,
                    _ => {}
                }
                false
            });
            bytes.extend_from_slice(&buffer[..end.unwrap_or(count)]);
            self.reader.consume(end.unwrap_or(count));
            if bytes.len() > LINE_LIMIT_BYTES {
                let reason = format!("is longer than {LINE_LIMIT_BYTES} bytes");
                return Err(RowsError::at(path, Place::Row(self.row), RowFault::Record(reason)));
            }
            // An element at the end of the file is cut: the parser says so.
            if end.is_some() || count == 0 {
                return Ok(bytes);
            }
        }
    }
}
