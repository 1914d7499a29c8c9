//! `manifest.json`: what an index was made from and which bytes belong to it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shared::atomic_file::{self, AtomicError};
use shared::digest::Digest;

use super::{IndexError, io_error};
use crate::lexical::analyzer::ANALYZER;

/// Name of the manifest in the index folder.
pub const MANIFEST_FILE: &str = "manifest.json";

/// Version of the layout of the folder. Raise it with every change that old readers misread.
pub const FORMAT: u32 = 1;

/// How closely files are compared with the manifest when an index is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verification {
    /// Every file must exist and have its size.
    Sizes,
    /// Every file must have its digest: the whole index is read once.
    Digests,
}

/// What an index says of itself. A key that is not known is refused: a seal under another name would
/// not be missed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the layout.
    pub format: u32,
    /// Program and version that wrote the index.
    pub writer: String,
    /// Name of the analysis of passages and queries.
    pub analyzer: String,
    /// Passages in the index.
    pub passage_count: u64,
    /// Passages with at least one term.
    pub scored_passage_count: u64,
    /// Terms in all passages.
    pub token_count: u64,
    /// Digest of format, analysis and passages: equal for two builds from equal corpora.
    pub digest: Digest,
    /// The corpus files, in order.
    pub corpus: Vec<FileEntry>,
    /// The files of the index.
    pub files: Vec<FileEntry>,
    /// SHA-256 of the manifest's own text with zeros for this number. Indexes that were written
    /// before there was one have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<Digest>,
}

/// A file with what identifies its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Path of a corpus file as it was given, or of an index file within the folder.
    pub path: PathBuf,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of the bytes.
    pub sha256: Digest,
}

impl FileEntry {
    /// Reads a file to describe it.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        let bytes = fs::metadata(path)?.len();
        Ok(Self { path: path.to_owned(), bytes, sha256: Digest::of_file(path)? })
    }

    /// Compares the file at `path` with this entry.
    pub fn check(&self, path: &Path, verification: Verification) -> Result<(), IndexError> {
        let corrupt = |reason| Err(IndexError::Corrupt { path: path.to_owned(), reason });
        let bytes = fs::metadata(path).map_err(io_error(path))?.len();
        if bytes != self.bytes {
            return corrupt(format!("{bytes} bytes, expected {}", self.bytes));
        }
        if verification == Verification::Digests {
            let found = Digest::of_file(path).map_err(io_error(path))?;
            if found != self.sha256 {
                return corrupt(format!("SHA-256 {found}, expected {}", self.sha256));
            }
        }
        Ok(())
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
                } else if is_put_back(folder)? {
                    Self::load(folder)
                } else {
                    Err(IndexError::Missing(folder.to_owned()))
                };
            }
            Err(error) => return Err(io_error(&path)(error)),
        };
        Self::read(path, &bytes)
    }

    /// The manifest that stands in these bytes of the file at `path`.
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

    /// Writes the manifest into `folder` under a seal, and returns it with the seal.
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

    /// Whether the text is the one that was sealed.
    fn is_unchanged(&self, text: &[u8]) -> bool {
        let Some(seal) = self.seal else { return true };
        let (digits, zeros) = (seal.to_string(), Digest::from_bytes([0; 32]).to_string());
        let Some(place) = text.windows(digits.len()).rposition(|part| part == digits.as_bytes())
        else {
            return false;
        };
        let rest = &text[place + digits.len()..];
        Digest::of_bytes(&[&text[..place], zeros.as_bytes(), rest].concat()) == seal
    }

    fn check_compatible(&self, path: PathBuf) -> Result<(), IndexError> {
        if self.format != FORMAT {
            return Err(other_format(path, self.format));
        }
        if self.analyzer != ANALYZER {
            return Err(IndexError::Incompatible {
                path,
                what: "analyzer",
                found: self.analyzer.clone(),
                expected: ANALYZER.to_owned(),
            });
        }
        Ok(())
    }

    /// Compares every file of the index with its entry.
    pub fn check_files(&self, folder: &Path, verification: Verification) -> Result<(), IndexError> {
        self.files.iter().try_for_each(|entry| entry.check(&folder.join(&entry.path), verification))
    }

    /// Whether an index of these corpus files would hold the same.
    pub fn is_made_from(&self, corpus: &[FileEntry]) -> bool {
        let bytes = |entries: &[FileEntry]| -> Vec<Digest> {
            entries.iter().map(|entry| entry.sha256).collect()
        };
        bytes(&self.corpus) == bytes(corpus)
    }
}

/// Why a manifest cannot be read. One of another format may have other keys, which is no damage.
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

fn other_format(path: PathBuf, found: u32) -> IndexError {
    let (found, expected) = (found.to_string(), FORMAT.to_string());
    IndexError::Incompatible { path, what: "format", found, expected }
}

/// The digest that identifies an index by its content.
pub(crate) fn content_digest(passages: Digest) -> Digest {
    Digest::of_bytes(format!("{FORMAT}\n{ANALYZER}\n{passages}\n").as_bytes())
}

/// Whether something is at `folder` that must not be overwritten unasked.
fn is_occupied(folder: &Path) -> bool {
    match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        // A file, or a folder that may not be listed.
        Err(_) => fs::metadata(folder).is_ok(),
    }
}

/// Whether a build was killed that had set the index aside, which is now in place again.
fn is_put_back(folder: &Path) -> Result<bool, IndexError> {
    match atomic_file::recover(folder) {
        // What has no name, such as `..`, was never replaced.
        Err(AtomicError::NoName(_)) => Ok(false),
        other => Ok(other?),
    }
}

/// Whether a path leads nowhere, be it that a file stands where a folder should.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
