//! JSON Lines, read and written one line of bounded length at a time. Every error names the file, the line and the
//! fault. The caller decides what a record must contain.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Maximum length of a line, in bytes. A file without line breaks must not fill the memory.
pub const LINE_LIMIT_BYTES: usize = 16 * 1024 * 1024;

/// An unusable line of a file.
#[derive(Debug, Error)]
#[error("{}{fault}", place(path, *line, fault))]
pub struct JsonlError {
    /// The file.
    pub path: PathBuf,
    /// The line, counted from 1; 0 for a fault of the whole file.
    pub line: u64,
    /// The fault of the line.
    pub fault: LineFault,
}

/// A fault of a line.
#[derive(Debug, Error)]
pub enum LineFault {
    /// The file could not be opened or read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The line is longer than [`LINE_LIMIT_BYTES`].
    #[error("line is longer than {LINE_LIMIT_BYTES} bytes")]
    TooLong,
    /// The line is not UTF-8.
    #[error("invalid UTF-8 at byte {offset} of the line")]
    NotUtf8 {
        /// First wrong byte, counted from 0.
        offset: usize,
    },
    /// The line is not JSON, or not of the expected form.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// The line is JSON but not a record that the caller accepts.
    #[error("{0}")]
    Record(String),
}

/// Returns the place of a fault, to be followed by the fault.
fn place(path: &Path, line: u64, fault: &LineFault) -> String {
    match (fault, line) {
        // Not a line but the file is at fault, such as one that does not exist.
        (LineFault::Io(_), _) => format!("{} ", path.display()),
        (_, 0) => format!("{}: ", path.display()),
        (_, line) => format!("{}:{line}: ", path.display()),
    }
}

/// A line of text and its position in the file.
#[derive(Debug)]
pub struct Line<'a> {
    /// Number of the line, counted from 1.
    pub number: u64,
    /// The line without its line break.
    pub text: &'a str,
    path: &'a Path,
}

impl Line<'_> {
    /// Reads the line as a record.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, JsonlError> {
        serde_json::from_str(self.text).map_err(|error| self.fault(error.into()))
    }

    /// Makes an error that names this line.
    pub fn fault(&self, fault: LineFault) -> JsonlError {
        JsonlError { path: self.path.to_owned(), line: self.number, fault }
    }
}

/// A reader of lines. Blank lines are counted and skipped.
#[derive(Debug)]
pub struct JsonlReader<R> {
    reader: R,
    path: PathBuf,
    buffer: Vec<u8>,
    line: u64,
    bytes_read: u64,
}

impl JsonlReader<BufReader<File>> {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self, JsonlError> {
        let file = File::open(path).map_err(|error| JsonlError {
            path: path.to_owned(),
            line: 0,
            fault: error.into(),
        })?;
        Ok(Self::new(BufReader::with_capacity(1 << 18, file), path))
    }
}

impl<R: BufRead> JsonlReader<R> {
    /// Reads from `reader`; `path` is its name in errors.
    pub fn new(reader: R, path: &Path) -> Self {
        Self { reader, path: path.to_owned(), buffer: Vec::new(), line: 0, bytes_read: 0 }
    }

    /// Returns the number of bytes read so far, for progress.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Returns the next line that is not blank.
    pub fn next_line(&mut self) -> Result<Option<Line<'_>>, JsonlError> {
        while self.advance()? {
            if !self.buffer.trim_ascii().is_empty() {
                return self.current().map(Some);
            }
        }
        Ok(None)
    }

    /// Returns the next line.
    pub fn next_line_or_blank(&mut self) -> Result<Option<Line<'_>>, JsonlError> {
        if self.advance()? { self.current().map(Some) } else { Ok(None) }
    }

    /// Reads a line into the buffer. Returns `false` at the end of the file.
    fn advance(&mut self) -> Result<bool, JsonlError> {
        self.buffer.clear();
        self.line += 1;
        self.fill().map(|count| count > 0).map_err(|fault| self.error(fault))
    }

    fn current(&self) -> Result<Line<'_>, JsonlError> {
        let (number, path) = (self.line, self.path.as_path());
        match std::str::from_utf8(&self.buffer) {
            Ok(text) => Ok(Line { number, text: text.trim_end_matches(['\r', '\n']), path }),
            Err(error) => Err(JsonlError {
                path: path.to_owned(),
                line: number,
                fault: LineFault::NotUtf8 { offset: error.valid_up_to() },
            }),
        }
    }

    /// Returns the underlying reader, for instance to get its digest.
    pub fn into_inner(self) -> R {
        self.reader
    }

    fn fill(&mut self) -> Result<usize, LineFault> {
        let limit = LINE_LIMIT_BYTES as u64 + 1;
        let count = self.reader.by_ref().take(limit).read_until(b'\n', &mut self.buffer)?;
        self.bytes_read += count as u64;
        if count > LINE_LIMIT_BYTES {
            return Err(LineFault::TooLong);
        }
        Ok(count)
    }

    fn error(&self, fault: LineFault) -> JsonlError {
        JsonlError { path: self.path.clone(), line: self.line, fault }
    }
}

/// Writes a record and its line break in a single write, so that readers of a growing file see whole lines.
pub fn write_record<T: Serialize>(out: &mut impl Write, record: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    out.write_all(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Result<Vec<(u64, String)>, JsonlError> {
        let mut reader = JsonlReader::new(bytes, Path::new("x.jsonl"));
        let mut lines = Vec::new();
        while let Some(line) = reader.next_line()? {
            lines.push((line.number, line.text.to_owned()));
        }
        Ok(lines)
    }

    #[test]
    fn blank_lines_are_counted_and_the_last_line_needs_no_break() {
        let read = lines(b"{\"a\":1}\r\n\n  \n{\"a\":2}").unwrap();
        assert_eq!(read, [(1, "{\"a\":1}".to_owned()), (4, "{\"a\":2}".to_owned())]);
    }

    #[test]
    fn faults_name_file_line_and_offset() {
        let error = lines(b"{}\nab\xffc\n").unwrap_err();
        assert_eq!(error.to_string(), "x.jsonl:2: invalid UTF-8 at byte 2 of the line");
        let mut reader = JsonlReader::new(&b"{}\n{\"a\":\n"[..], Path::new("x.jsonl"));
        reader.next_line().unwrap();
        let line = reader.next_line().unwrap().unwrap();
        let error = line.parse::<serde_json::Value>().unwrap_err();
        assert!(error.to_string().starts_with("x.jsonl:2: EOF while parsing"), "{error}");
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut reader =
            JsonlReader::new(BufReader::new(io::repeat(b'a')), Path::new("endless.jsonl"));
        let error = reader.next_line().unwrap_err();
        assert_eq!(error.to_string(), "endless.jsonl:1: line is longer than 16777216 bytes");
    }

    #[test]
    fn written_records_are_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        let mut file = File::create(&path).unwrap();
        write_record(&mut file, &vec![1, 2]).unwrap();
        write_record(&mut file, &vec![3]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "[1,2]\n[3]\n");
    }
}
