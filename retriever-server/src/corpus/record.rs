//! The passages of a corpus file, in order.

use std::path::Path;

use shared::contract::digest::Digest;
use shared::contract::passage::Passage;
use shared::contract::rows::{Rows, RowsError, passage_columns};

/// A reader of the passages of a corpus file, or of a folder of parts.
#[derive(Debug)]
pub struct Passages {
    rows: Rows,
}

impl Passages {
    /// Opens a file or a folder of parts.
    pub fn open(path: &Path) -> Result<Self, RowsError> {
        Ok(Self { rows: Rows::open(path, passage_columns)? })
    }

    /// Returns the next passage and the number of its row.
    pub fn next_passage(&mut self) -> Result<Option<(u64, Passage)>, RowsError> {
        let Some(row) = self.rows.next().transpose()? else { return Ok(None) };
        Ok(Some((row.number, Passage::from_row(&row)?)))
    }

    /// Returns the number of bytes that were read from the files.
    pub fn bytes_read(&self) -> u64 {
        self.rows.bytes_read()
    }

    /// Reads the rest of the last file and returns the digest of its bytes.
    pub fn into_digest(self) -> Result<Digest, RowsError> {
        self.rows.into_digest()
    }
}

/// Checks that a corpus can be read, by its first passage.
pub fn check_head(path: &Path) -> Result<(), RowsError> {
    Passages::open(path)?.next_passage().map(drop)
}
