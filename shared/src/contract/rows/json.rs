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
    match object_on_line(line.text) {
        Ok(fields) => Ok(Some((line.number, fields))),
        Err(fault) => Err(line.fault(fault).into()),
    }
}

/// Parses the object on a line.
pub(super) fn object_on_line(line: &str) -> Result<Map<String, Value>, LineFault> {
    object(line).map_err(|fault| {
        if !is_spread(line) {
            return fault;
        }
        let reason = "an object ends on another line, expected one object on each line, or one \
                      list of all objects";
        LineFault::Record(reason.to_owned())
    })
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

/// Keys of the list of rows in a file that is one object: SQuAD (`data`), TriviaQA (`Data`), WebQSP and FreebaseQA
/// (`Questions`), and those that exports write.
const LIST_KEYS: [&str; 6] = ["data", "questions", "examples", "instances", "records", "rows"];

/// Returns the offset of the list of rows if the text begins with an object that has one behind nothing but texts,
/// numbers and the like.
pub(super) fn list_in_object(head: &[u8]) -> Option<usize> {
    let skip_space = |from: usize| {
        let blank = head[from..].iter().position(|byte| !byte.is_ascii_whitespace())?;
        Some(from + blank)
    };
    let mark = |at: usize, mark: u8| (*head.get(at)? == mark).then_some(at + 1);
    let text = |from: usize| {
        let start = mark(from, b'"')?;
        let length = head[start..].iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        let end = mark(start + length, b'"')?;
        Some((str::from_utf8(&head[start..end - 1]).ok()?, end))
    };
    let mut at = skip_space(mark(skip_space(0)?, b'{')?)?;
    loop {
        let (key, after) = text(at)?;
        let value = skip_space(mark(skip_space(after)?, b':')?)?;
        if head[value] == b'[' {
            let is_rows = LIST_KEYS.contains(&key.to_ascii_lowercase().as_str())
                && head[skip_space(value + 1)?] == b'{';
            return is_rows.then_some(value);
        }
        let end = match head[value] {
            b'"' => text(value)?.1,
            b'{' => return None,
            _ => value + head[value..].iter().position(|byte| matches!(byte, b',' | b'}'))?,
        };
        at = skip_space(mark(skip_space(end)?, b',')?)?;
    }
}

/// Reads the objects of one JSON list, one at a time.
#[derive(Debug)]
pub(super) struct ListReader {
    reader: TextReader,
    row: u64,
    state: ListState,
    /// `true` if the list is a part of an object, which goes on behind it.
    is_part: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListState {
    Start,
    Inside,
    Ended,
}

impl ListReader {
    pub(super) fn new(reader: TextReader) -> Self {
        Self { reader, row: 0, state: ListState::Start, is_part: false }
    }

    /// Reads the list that begins `offset` bytes further within an object.
    pub(super) fn within(mut reader: TextReader, offset: usize) -> Self {
        reader.consume(offset);
        Self { is_part: true, ..Self::new(reader) }
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
            if self.is_part && !self.skip_object().map_err(io)? {
                return fault(self.row, "is followed by an object that does not end");
            }
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

    /// Skips the rest of the object that the list is a part of. Returns `false` if it does not end.
    fn skip_object(&mut self) -> std::io::Result<bool> {
        let mut depth = Depth { open: 1, ..Depth::default() };
        loop {
            let buffer = self.reader.fill_buf()?;
            let (count, end) = (buffer.len(), buffer.iter().position(|byte| depth.ends(*byte)));
            self.reader.consume(end.map_or(count, |end| end + 1));
            if end.is_some() || count == 0 {
                return Ok(end.is_some());
            }
        }
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
        let mut depth = Depth::default();
        loop {
            let buffer = self.reader.fill_buf().map_err(|error| RowsError::io(path, error))?;
            let count = buffer.len();
            let end = buffer.iter().position(|byte| {
                let is_end = depth.is_outside() && matches!(byte, b',' | b']');
                depth.ends(*byte);
                is_end
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

/// Follows the brackets of JSON.
#[derive(Debug, Default)]
struct Depth {
    /// Open brackets.
    open: u32,
    in_string: bool,
    is_escaped: bool,
}

impl Depth {
    fn is_outside(&self) -> bool {
        self.open == 0 && !self.in_string
    }

    /// Takes the next byte. Returns `true` if it closes the last open bracket.
    fn ends(&mut self, byte: u8) -> bool {
        match byte {
            _ if self.is_escaped => self.is_escaped = false,
            b'\\' if self.in_string => self.is_escaped = true,
            b'"' => self.in_string = !self.in_string,
            _ if self.in_string => {}
            b'{' | b'[' => self.open += 1,
            b'}' | b']' if self.open > 0 => {
                self.open -= 1;
                return self.open == 0;
            }
            _ => {}
        }
        false
    }
}
