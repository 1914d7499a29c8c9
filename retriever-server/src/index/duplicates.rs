//! Finds identifiers that two passages share, with 16 bytes of memory per passage. It sorts hashes
//! and reads the identifiers of equal hashes only.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

use super::IndexError;
use crate::corpus::store::PassageStore;

/// The hashes of all identifiers so far.
#[derive(Debug, Default)]
pub(crate) struct Identifiers {
    /// Each hash with its row.
    hashes: Vec<(u64, u32)>,
    /// The first row of each file, with the file.
    files: Vec<(u32, PathBuf)>,
    /// The rows that do not directly follow the line of the previous row, with their lines.
    jumps: Vec<(u32, u64)>,
    next_line: u64,
}

impl Identifiers {
    /// Starts a file: the rows that follow come from it.
    pub(crate) fn start_file(&mut self, path: PathBuf) {
        self.files.push((self.hashes.len() as u32, path));
        self.next_line = 0;
    }

    /// Adds the next row, by its identifier and its line.
    pub(crate) fn add(&mut self, id: &str, line: u64) {
        let row = self.hashes.len() as u32;
        if line != self.next_line {
            self.jumps.push((row, line));
        }
        self.next_line = line + 1;
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        self.hashes.push((hasher.finish(), row));
    }

    /// Checks that no two passages share an identifier. The error names the earliest repetition.
    pub(crate) fn check(mut self, passages: &PassageStore) -> Result<(), IndexError> {
        self.hashes.sort_unstable();
        let mut earliest: Option<Repetition> = None;
        for equal in self.hashes.chunk_by(|left, right| left.0 == right.0) {
            if let Some(repetition) = first_repetition(equal, passages)?
                && earliest.as_ref().is_none_or(|before| repetition.row < before.row)
            {
                earliest = Some(repetition);
            }
        }
        let Some(Repetition { row, first_row, id }) = earliest else { return Ok(()) };
        let (path, line) = self.origin(row);
        let (first_path, first_line) = self.origin(first_row);
        Err(IndexError::DuplicateId { path, line, id, first_path, first_line })
    }

    /// Returns the file and the line of a row.
    fn origin(&self, row: u32) -> (PathBuf, u64) {
        let files_before = self.files.partition_point(|(start, _)| *start <= row);
        let jumps_before = self.jumps.partition_point(|(start, _)| *start <= row);
        // Row 0 starts a file, and no line has the number 0, so row 0 is a jump.
        let (_, path) = &self.files[files_before - 1];
        let (start, line) = self.jumps[jumps_before - 1];
        (path.clone(), line + u64::from(row - start))
    }
}

/// A passage whose identifier an earlier passage has.
struct Repetition {
    row: u32,
    first_row: u32,
    id: String,
}

/// Returns the first repetition among the rows of one hash, which are in ascending order. It reads no
/// further, so a corpus in which all identifiers are equal costs little.
fn first_repetition(
    equal: &[(u64, u32)],
    passages: &PassageStore,
) -> Result<Option<Repetition>, IndexError> {
    let mut seen: Vec<(String, u32)> = Vec::new();
    if equal.len() < 2 {
        return Ok(None);
    }
    for &(_, row) in equal {
        let id = passages.get(row)?.id;
        if let Some(&(_, first_row)) = seen.iter().find(|(other, _)| *other == id) {
            return Ok(Some(Repetition { row, first_row, id }));
        }
        seen.push((id, row));
    }
    Ok(None)
}
