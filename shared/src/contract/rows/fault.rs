//! The errors of reading rows.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::contract::jsonl::{JsonlError, LineFault};

/// A file that cannot be read as rows, or one of its rows.
#[derive(Debug, Error)]
#[error("{}{place}: {fault}", path.display())]
pub struct RowsError {
    /// The file.
    pub path: PathBuf,
    /// The place in the file.
    pub place: Place,
    /// The fault.
    pub fault: RowFault,
}

/// A place in a file. Numbers are counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The file as a whole.
    File,
    /// A line.
    Line(u64),
    /// A row of a list or of a parquet file.
    Row(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => Ok(()),
            Self::Line(line) => write!(formatter, ":{line}"),
            Self::Row(row) => write!(formatter, ", row {row}"),
        }
    }
}

/// A fault of a file or of a row.
#[derive(Debug, Error)]
pub enum RowFault {
    /// A line could not be read.
    #[error(transparent)]
    Line(#[from] LineFault),
    /// The file is of a kind that has no rows.
    #[error("is {0}, expected rows as JSON Lines, a JSON list, a table with tabs, or parquet")]
    NotRows(String),
    /// The file has rows, where lines of text are expected.
    #[error("is {0}, expected lines of text")]
    NotText(&'static str),
    /// The folder has no file with rows, or files of several kinds.
    #[error("{0}")]
    Folder(String),
    /// The bytes contradict their format.
    #[error("the {format} data is damaged: {reason}")]
    Damaged {
        /// The format.
        format: &'static str,
        /// The fault that the decoder found.
        reason: String,
    },
    /// The row is not one that the caller accepts, or has no keys.
    #[error("{0}")]
    Record(String),
}

impl RowsError {
    /// Makes an error about a whole file.
    pub fn file(path: &Path, fault: RowFault) -> Self {
        Self { path: path.to_owned(), place: Place::File, fault }
    }

    /// Makes an error about a file that cannot be opened or read.
    pub fn io(path: &Path, error: io::Error) -> Self {
        Self::file(path, LineFault::Io(error).into())
    }

    pub(super) fn at(path: &Path, place: Place, fault: impl Into<RowFault>) -> Self {
        Self { path: path.to_owned(), place, fault: fault.into() }
    }
}

impl From<JsonlError> for RowsError {
    fn from(error: JsonlError) -> Self {
        let place = if error.line == 0 { Place::File } else { Place::Line(error.line) };
        Self { path: error.path, place, fault: error.fault.into() }
    }
}
