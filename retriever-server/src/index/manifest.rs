//! `manifest.json`: the description of an index, with its corpus and the digests of its files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shared::contract::digest::Digest;
use shared::machine::atomic_file::{self, AtomicError};

use super::later::LaterChecks;
use super::{IndexError, io_error};
use crate::lexical::analyzer::ANALYZER;

/// The name of the manifest in the index folder.
pub const MANIFEST_FILE: &str = "manifest.json";

/// The version of the folder's layout. Raise it with every change that old readers would misread.
pub const FORMAT: u32 = 1;

/// The thoroughness with which files are compared with the manifest when an index is opened.
#[derive(Clone, Copy, Debug)]
pub enum Verification<'a> {
    /// Checks that every file exists and has its size.
    Sizes,
    /// Also checks every file's digest, which reads the whole index once.
    Digests,
    /// Checks sizes, and notes the files whose digests are to be checked once the index is in use.
    Later(&'a LaterChecks),
}

/// The description of an index. Unknown keys are refused: otherwise a damaged name of the key `seal`
/// would remove the seal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of the layout.
    pub format: u32,
    /// The program that wrote the index, and its version.
    pub writer: String,
    /// The name of the analysis of passages and queries.
    pub analyzer: String,
    /// The number of passages in the index.
    pub passage_count: u64,
    /// The number of passages with at least one term.
    pub scored_passage_count: u64,
    /// The number of terms in all passages.
    pub token_count: u64,
    /// The digest of format, analysis and passages. Builds from equal corpora have equal digests.
    pub digest: Digest,
    /// The corpus files, in order.
    pub corpus: Vec<FileEntry>,
    /// The files of the index.
    pub files: Vec<FileEntry>,
    /// The SHA-256 of the manifest's own text, computed with zeros in this field. Indexes of early
    /// versions have no seal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<Digest>,
}

/// A file, with the size and the digest that identify its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// The path of a corpus file as the user gave it, or of an index file relative to its folder.
    pub path: PathBuf,
    /// The size in bytes.
    pub bytes: u64,
    /// The SHA-256 of the content.
    pub sha256: Digest,
}

impl FileEntry {
    /// Reads a file and returns its entry.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        let bytes = fs::metadata(path)?.len();
        Ok(Self { path: path.to_owned(), bytes, sha256: Digest::of_file(path)? })
    }

    /// Compares the file at `path` with this entry.
    pub fn check(&self, path: &Path, verification: Verification<'_>) -> Result<(), IndexError> {
        let corrupt = |reason| Err(IndexError::Corrupt { path: path.to_owned(), reason });
        let bytes = fs::metadata(path).map_err(io_error(path))?.len();
        if bytes != self.bytes {
            return corrupt(format!("{bytes} bytes, expected {}", self.bytes));
        }
        match verification {
            Verification::Sizes => Ok(()),
            Verification::Later(checks) => checks.index_file(path, self),
            Verification::Digests => {
                self.check_digest(path, Digest::of_file(path).map_err(io_error(path))?)
            }
        }
    }

    /// Compares the digest of the file at `path` with this entry.
    pub(super) fn check_digest(&self, path: &Path, digest: Digest) -> Result<(), IndexError> {
        if digest == self.sha256 {
            return Ok(());
        }
        let reason = format!("SHA-256 {digest}, expected {}", self.sha256);
        Err(IndexError::Corrupt { path: path.to_owned(), reason })
    }
}

impl Manifest {
    /// Loads the manifest of the index in `folder` and checks that this version can read it.
    pub fn load(folder: &Path) -> Result<Self, IndexError> {
        let path = folder.join(MANIFEST_FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if is_absence(&error) => {
                return if is_occupied(folder) {
                    Err(IndexError::NotAnIndex(folder.to_owned()))
                } else if recover(folder)? {
                    Self::load(folder)
                } else {
                    Err(IndexError::Missing(folder.to_owned()))
                };
            }
            Err(error) => return Err(io_error(&path)(error)),
        };
        Self::read(path, &bytes)
    }

    /// Parses the manifest in `bytes`, the content of the file at `path`.
    pub(super) fn read(path: PathBuf, bytes: &[u8]) -> Result<Self, IndexError> {
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|error| unreadable(&path, bytes, &error))?;
        manifest.check_compatible(path.clone())?;
        if !manifest.is_unchanged(bytes) {
            let reason = "its text is not the one that was sealed".to_owned();
            return Err(IndexError::Corrupt { path, reason });
        }
        Ok(manifest)
    }

    /// Seals the manifest, writes it to `folder` and returns it with its seal.
    pub(crate) fn write(mut self, folder: &Path) -> Result<Self, IndexError> {
        let path = folder.join(MANIFEST_FILE);
        let text = |manifest: &Self| {
            serde_json::to_vec_pretty(manifest).map_err(|error| io_error(&path)(error.into()))
        };
        self.seal = Some(Digest::from_bytes([0; 32]));
        self.seal = Some(Digest::of_bytes(&text(&self)?));
        fs::write(&path, text(&self)?).map_err(io_error(&path))?;
        Ok(self)
    }

    /// Returns `true` if the text is the one that was sealed.
    fn is_unchanged(&self, text: &[u8]) -> bool {
        let Some(seal) = self.seal else { return true };
        let (digits, zeros) = (seal.to_string(), Digest::from_bytes([0; 32]).to_string());
        let Some(offset) = text.windows(digits.len()).rposition(|part| part == digits.as_bytes())
        else {
            return false;
        };
        let rest = &text[offset + digits.len()..];
        Digest::of_bytes(&[&text[..offset], zeros.as_bytes(), rest].concat()) == seal
    }

    /// Checks that this version reads the manifest's format and analysis.
    fn check_compatible(&self, path: PathBuf) -> Result<(), IndexError> {
        if self.format != FORMAT {
            return Err(other_format(path, self.format));
        }
        if self.analyzer != ANALYZER {
            return Err(IndexError::Incompatible {
                path,
                property: "analyzer",
                found: self.analyzer.clone(),
                expected: ANALYZER.to_owned(),
            });
        }
        Ok(())
    }

    /// Compares every file of the index with its entry.
    pub fn check_files(
        &self,
        folder: &Path,
        verification: Verification<'_>,
    ) -> Result<(), IndexError> {
        self.files.iter().try_for_each(|entry| entry.check(&folder.join(&entry.path), verification))
    }

    /// Returns `true` if an index of these corpus files would have the same content.
    pub fn is_made_from(&self, corpus: &[FileEntry]) -> bool {
        let digests = |entries: &[FileEntry]| -> Vec<Digest> {
            entries.iter().map(|entry| entry.sha256).collect()
        };
        digests(&self.corpus) == digests(corpus)
    }
}

/// Returns the error for a manifest that does not parse. A manifest of another format may have other
/// keys: it is incompatible, not damaged.
fn unreadable(path: &Path, bytes: &[u8], error: &serde_json::Error) -> IndexError {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let path = path.to_owned();
    match serde_json::from_slice(bytes) {
        Ok(Version { format }) if format != FORMAT => other_format(path, format),
        _ => IndexError::Corrupt { path, reason: error.to_string() },
    }
}

fn other_format(path: PathBuf, format: u32) -> IndexError {
    let (found, expected) = (format.to_string(), FORMAT.to_string());
    IndexError::Incompatible { path, property: "format", found, expected }
}

/// Returns the digest that identifies an index by its content.
pub(crate) fn content_digest(passages: Digest) -> Digest {
    Digest::of_bytes(format!("{FORMAT}\n{ANALYZER}\n{passages}\n").as_bytes())
}

/// Returns `true` if something exists at `folder` that must not be overwritten without a request.
fn is_occupied(folder: &Path) -> bool {
    match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        // A file, or a folder without permission to list it.
        Err(_) => fs::metadata(folder).is_ok(),
    }
}

/// Moves back an index that a killed build had set aside. Returns `true` if there was one.
fn recover(folder: &Path) -> Result<bool, IndexError> {
    match atomic_file::recover(folder) {
        // A path without a name, such as `..`, was never replaced.
        Err(AtomicError::NoName(_)) => Ok(false),
        other => Ok(other?),
    }
}

/// Returns `true` if nothing exists at a path, also because one of its folders is a file.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
