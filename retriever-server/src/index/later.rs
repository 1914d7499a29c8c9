//! Checks of digests that wait until the index is in use. Reading every byte of an index of millions of passages
//! takes longer than opening it.
//!
//! Files are opened when they are noted, so that an index that is replaced meanwhile is not compared with the
//! manifest of the old one.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use shared::contract::digest::Digest;

use super::manifest::FileEntry;
use super::{IndexError, corpus_match, io_error};

/// The files whose digests are still to be checked.
#[derive(Debug)]
pub struct LaterChecks {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The number of bytes that may still be checked at once.
    at_once: u64,
    files: Vec<LaterCheck>,
}

#[derive(Debug)]
struct LaterCheck {
    path: PathBuf,
    file: File,
    entry: FileEntry,
    /// `true` for a file of the corpus. An index is whole without it, so one that cannot be read is not a fault.
    is_corpus: bool,
}

/// The result of the checks.
#[derive(Debug)]
pub enum Checked {
    /// Every file has its digest.
    Whole {
        /// The number of bytes that were read.
        bytes: u64,
    },
    /// A file differs. The text names it.
    Damaged(String),
    /// Nobody needs the result any more.
    Abandoned,
}

impl LaterChecks {
    /// Makes an empty list. Files of up to `at_once` bytes together are checked when they would be noted.
    pub fn new(at_once: u64) -> Self {
        Self { state: Mutex::new(State { at_once, files: Vec::new() }) }
    }

    /// Checks a file of the index or notes it.
    pub(super) fn index_file(&self, path: &Path, entry: &FileEntry) -> Result<(), IndexError> {
        match self.note(path, entry, false).map_err(io_error(path))? {
            None => Ok(()),
            Some(digest) => entry.check_digest(path, digest),
        }
    }

    /// Checks a file of the corpus or notes it. Describes the difference, if there is one.
    pub(super) fn corpus_file(&self, path: &Path, entry: &FileEntry) -> io::Result<Option<String>> {
        let digest = self.note(path, entry, true)?;
        Ok(digest.and_then(|digest| corpus_match::other_digest(path, entry, digest)))
    }

    /// Returns the digest of a file that may be read at once, or notes the file.
    fn note(&self, path: &Path, entry: &FileEntry, is_corpus: bool) -> io::Result<Option<Digest>> {
        let file = File::open(path)?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.at_once > 0 && entry.bytes <= state.at_once {
            state.at_once -= entry.bytes;
            drop(state);
            return Digest::of_reader(file).map(Some);
        }
        let check = LaterCheck { path: path.to_owned(), file, entry: entry.clone(), is_corpus };
        state.files.push(check);
        Ok(None)
    }

    /// Returns `true` if no file was noted.
    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).files.is_empty()
    }

    /// Reads the noted files, in order, and compares their digests. Stops early once `is_wanted` returns `false`.
    pub fn run(self, is_wanted: impl Fn() -> bool) -> Checked {
        let mut bytes = 0;
        let mut files = self.state.into_inner().unwrap_or_else(PoisonError::into_inner).files;
        // Files of the index matter more than the corpus that they were made from.
        files.sort_by_key(|check| check.is_corpus);
        for LaterCheck { path, file, entry, is_corpus } in files {
            let digest = Digest::of_reader(WhileWanted { file, is_wanted: &is_wanted });
            if !is_wanted() {
                return Checked::Abandoned;
            }
            let fault = match digest {
                Ok(digest) if is_corpus => corpus_match::other_digest(&path, &entry, digest),
                Ok(digest) => {
                    entry.check_digest(&path, digest).err().map(|fault| fault.to_string())
                }
                Err(_) if is_corpus => None,
                Err(error) => Some(io_error(&path)(error).to_string()),
            };
            if let Some(fault) = fault {
                return Checked::Damaged(fault);
            }
            bytes += entry.bytes;
        }
        Checked::Whole { bytes }
    }
}

/// A file that ends early once nobody needs its content.
struct WhileWanted<'a, F> {
    file: File,
    is_wanted: &'a F,
}

impl<F: Fn() -> bool> Read for WhileWanted<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if (self.is_wanted)() { self.file.read(buffer) } else { Ok(0) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::index::manifest::Verification;

    /// Notes two files, the second of which belongs to the corpus, and writes `now` over one of them.
    fn run(changed: usize, now: &str) -> Checked {
        let folder = tempfile::tempdir().unwrap();
        let checks = LaterChecks::new(0);
        let paths = ["index", "corpus"].map(|name| folder.path().join(name));
        for path in &paths {
            fs::write(path, "Oslo").unwrap();
        }
        let entries = paths.each_ref().map(|path| FileEntry::of_file(path).unwrap());
        entries[0].check(&paths[0], Verification::Later(&checks)).unwrap();
        assert_eq!(checks.corpus_file(&paths[1], &entries[1]).unwrap(), None);
        fs::write(&paths[changed], now).unwrap();
        checks.run(|| true)
    }

    #[test]
    fn a_changed_byte_is_found_with_the_name_of_its_file() {
        for (changed, name) in [(0, "index is corrupt"), (1, "corpus: SHA-256")] {
            match run(changed, "Osle") {
                Checked::Damaged(text) => assert!(text.contains(name), "{text}"),
                other => panic!("{other:?}"),
            }
            assert!(matches!(run(changed, "Oslo"), Checked::Whole { bytes: 8 }));
        }
    }

    #[test]
    fn a_file_that_is_replaced_meanwhile_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("index"), folder.path().join("new"));
        fs::write(&path, "Oslo").unwrap();
        let checks = LaterChecks::new(0);
        let entry = FileEntry::of_file(&path).unwrap();
        entry.check(&path, Verification::Later(&checks)).unwrap();
        fs::write(&other, "Rome").unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(matches!(checks.run(|| true), Checked::Whole { bytes: 4 }));
    }

    #[test]
    fn small_files_are_checked_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index");
        fs::write(&path, "Oslo").unwrap();
        let entry = FileEntry::of_file(&path).unwrap();
        fs::write(&path, "Rome").unwrap();
        for (at_once, is_checked) in [(3, false), (5, true)] {
            let checks = LaterChecks::new(at_once);
            assert_eq!(entry.check(&path, Verification::Later(&checks)).is_err(), is_checked);
            assert_eq!(checks.corpus_file(&path, &entry).unwrap(), None, "one byte is left");
            assert!(!checks.is_empty());
        }
        let checks = LaterChecks::new(4);
        assert!(checks.corpus_file(&path, &entry).unwrap().unwrap().contains("SHA-256"));
        assert!(checks.is_empty());
    }

    #[test]
    fn checks_that_nobody_needs_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index");
        fs::write(&path, "Oslo").unwrap();
        let checks = LaterChecks::new(0);
        let entry = FileEntry { bytes: 4, ..FileEntry::of_file(&path).unwrap() };
        entry.check(&path, Verification::Later(&checks)).unwrap();
        fs::write(&path, "Rome").unwrap();
        assert!(matches!(checks.run(|| false), Checked::Abandoned));
    }
}
