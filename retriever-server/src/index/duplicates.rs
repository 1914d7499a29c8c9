//! Finds an identifier that two passages share, in 16 bytes of memory a passage: hashes are
//! sorted, and only equal hashes are looked up.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

use super::IndexError;
use crate::corpus::store::PassageStore;

/// Hashes of all identifiers seen, by row.
#[derive(Debug, Default)]
pub(crate) struct Identifiers {
    hashes: Vec<(u64, u32)>,
    /// Where each file's rows begin, with the file.
    files: Vec<(u32, PathBuf)>,
    /// Line of every row whose line is not simply one after the row before it.
    jumps: Vec<(u32, u64)>,
    next_line: u64,
}

impl Identifiers {
    /// The rows that follow come from this file.
    pub(crate) fn start_file(&mut self, path: PathBuf) {
        self.files.push((self.hashes.len() as u32, path));
        self.next_line = 0;
    }

    /// The next row has this identifier and stands on this line.
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

    /// Fails with the first two lines that share an identifier.
    pub(crate) fn check(mut self, passages: &PassageStore) -> Result<(), IndexError> {
        self.hashes.sort_unstable();
        let mut earliest: Option<(u32, u32, String)> = None;
        for equal in self.hashes.chunk_by(|one, other| one.0 == other.0) {
            if let Some(found) = first_repetition(equal, passages)?
                && earliest.as_ref().is_none_or(|before| found.0 < before.0)
            {
                earliest = Some(found);
            }
        }
        let Some((row, first_row, id)) = earliest else { return Ok(()) };
        let (path, line) = self.place(row);
        let (first_path, first_line) = self.place(first_row);
        Err(IndexError::DuplicateId { path, line, id, first_path, first_line })
    }

    /// File and line of a row.
    fn place(&self, row: u32) -> (PathBuf, u64) {
        let file = self.files.partition_point(|(start, _)| *start <= row);
        let path = file.checked_sub(1).map(|index| self.files[index].1.clone());
        let jump = self.jumps.partition_point(|(start, _)| *start <= row);
        let line = jump.checked_sub(1).map_or(0, |index| {
            let (start, line) = self.jumps[index];
            line + u64::from(row - start)
        });
        (path.unwrap_or_default(), line)
    }
}

/// Among rows of equal hash, in order: the first whose identifier was used before, the row that
/// used it, and the identifier. Ends at the first, so that a corpus of one identifier costs little.
fn first_repetition(
    equal: &[(u64, u32)],
    passages: &PassageStore,
) -> Result<Option<(u32, u32, String)>, IndexError> {
    let mut seen: Vec<(String, u32)> = Vec::new();
    if equal.len() < 2 {
        return Ok(None);
    }
    for &(_, row) in equal {
        let id = passages.get(row)?.id;
        if let Some((id, before)) = seen.iter().find(|(other, _)| *other == id) {
            return Ok(Some((row, *before, id.clone())));
        }
        seen.push((id, row));
    }
    Ok(None)
}
