//! The vectors of an index's passages, in a folder inside the index folder. The dense back end
//! searches them.
//!
//! ```text
//! dense/manifest.json   passages, encoder, dimension, and the size and SHA-256 of every other file
//! dense/vectors.f32     a row of little-endian 32-bit floats per passage, in corpus order
//! dense/vectors.f16     the same rows in fewer bits, if requested; also .i8
//! dense/vectors.hnsw    a graph over the rows, if requested
//! dense/vectors.f32.usearch  a graph of the library usearch with rows of its own; also f16 and i8
//! ```
//!
//! The folder is complete or absent. The vectors of a killed build stay under another name, and the
//! next build with the same source resumes there. Files derived from the vectors are added later, one
//! by one, and count only once they are in the manifest.

pub mod ann;
pub mod build;
pub mod formats;

#[cfg(test)]
pub(super) mod fixture;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shared::contract::digest::Digest;
use shared::machine::atomic_file::{self, AtomicError};
use tantivy::directory::OwnedBytes;

pub use ann::GraphEntry;
pub use formats::FormatEntry;

use super::manifest::{FileEntry, Manifest, Verification};
use super::{IndexError, io_error};
use crate::encode::Encoder;
use crate::encode::settings::EncoderSettings;
use crate::processor::mapped;
use crate::vector::{RowFormat, Rows};

/// The name of the folder of the vectors inside an index.
pub const DENSE_FOLDER: &str = "dense";
const MANIFEST_FILE: &str = "manifest.json";
const VECTORS_FILE: &str = "vectors.f32";
/// The version of the folder's layout. Raise it with every change that old readers would misread.
const FORMAT: u32 = 1;

/// The origin of vectors: an index and an encoder. A build resumes another, and queries search
/// vectors, only if the origins are equal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorSource {
    /// The version of the layout.
    pub format: u32,
    /// The digest of the index with the passages.
    pub index: Digest,
    /// The number of passages, which is the number of rows.
    pub passage_count: u64,
    /// The digest of the encoder's model, tokenizer and settings.
    pub encoder: Digest,
    /// The number of components of a row.
    pub dimension: u64,
}

impl VectorSource {
    /// Returns the source of the vectors that `encoder` makes of the index's passages.
    pub fn new(index: &Manifest, encoder: &Encoder) -> Result<Self, IndexError> {
        let digest = encoder_digest(encoder.settings())?;
        Ok(Self::from_parts(index, digest, encoder.dimension()))
    }

    fn from_parts(index: &Manifest, encoder: Digest, dimension: usize) -> Self {
        Self {
            format: FORMAT,
            index: index.digest,
            passage_count: index.passage_count,
            encoder,
            dimension: dimension as u64,
        }
    }
}

/// Returns the digest of everything that determines a passage's vector. Settings for queries do not
/// count: they may change without new vectors.
pub(crate) fn encoder_digest(settings: &EncoderSettings) -> Result<Digest, IndexError> {
    let digest = |path: &Path| Digest::of_file(path).map_err(io_error(path));
    let (model, tokenizer) = (digest(&settings.model)?, digest(&settings.tokenizer.path)?);
    let mut parts = vec![model.to_string(), tokenizer.to_string()];
    parts.extend(settings.passage_parts());
    for path in settings.other_files() {
        parts.push(digest(&path)?.to_string());
    }
    Ok(Digest::of_bytes(parts.join("\n").as_bytes()))
}

/// The description of the folder of vectors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DenseManifest {
    /// The origin of the vectors.
    #[serde(flatten)]
    pub source: VectorSource,
    /// The program that wrote them, and its version.
    pub writer: String,
    /// The path of the encoder's folder as the user gave it.
    pub model: PathBuf,
    /// The file of the vectors.
    pub vectors: FileEntry,
    /// The files of the vectors in other formats.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub formats: Vec<FormatEntry>,
    /// The graphs over the vectors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub graphs: Vec<GraphEntry>,
}

impl DenseManifest {
    /// Loads the manifest of the vectors in the index folder `index`; returns `None` if there are none.
    pub fn load(index: &Path) -> Result<Option<Self>, IndexError> {
        let folder = index.join(DENSE_FOLDER);
        let path = folder.join(MANIFEST_FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return if atomic_file::recover(&folder)? { Self::load(index) } else { Ok(None) };
            }
            Err(error) => return Err(io_error(&path)(error)),
        };
        let manifest: Self = serde_json::from_slice(&bytes).map_err(|error| {
            IndexError::Corrupt { path: path.clone(), reason: error.to_string() }
        })?;
        if manifest.source.format != FORMAT {
            return Err(IndexError::Incompatible {
                path,
                property: "format",
                found: manifest.source.format.to_string(),
                expected: FORMAT.to_string(),
            });
        }
        Ok(Some(manifest))
    }

    /// Writes the manifest to the index folder `index`.
    fn save(&self, index: &Path) -> Result<(), IndexError> {
        let path = index.join(DENSE_FOLDER).join(MANIFEST_FILE);
        let text =
            serde_json::to_vec_pretty(self).map_err(|error| io_error(&path)(error.into()))?;
        Ok(atomic_file::write(&path, &text)?)
    }

    /// Loads the manifest and checks that its vectors come from `source`.
    fn load_for(index: &Path, source: &VectorSource) -> Result<Self, IndexError> {
        let manifest = Self::load(index)?.ok_or_else(|| IndexError::NoVectors(index.to_owned()))?;
        if manifest.source == *source {
            Ok(manifest)
        } else {
            let folder = index.join(DENSE_FOLDER);
            Err(IndexError::OtherVectors { folder, model: manifest.model })
        }
    }
}

/// The vectors of an index, mapped into memory.
#[derive(Debug)]
pub struct DenseRows {
    exact: MappedRows,
    /// The rows in another format. If there are any, searches read these, and the hits are scored
    /// again by `exact`.
    coarse: Option<MappedRows>,
}

impl DenseRows {
    /// Maps the vectors in the index folder `index`, which must come from `source`.
    pub fn open(
        index: &Path,
        source: &VectorSource,
        verification: Verification<'_>,
    ) -> Result<Self, IndexError> {
        let manifest = DenseManifest::load_for(index, source)?;
        let exact =
            MappedRows::open(index, source, RowFormat::F32, &manifest.vectors, verification)?;
        Ok(Self { exact, coarse: None })
    }

    /// Also maps the vectors in `format`, which searches then read.
    pub fn with_format(
        mut self,
        index: &Path,
        source: &VectorSource,
        format: RowFormat,
        verification: Verification<'_>,
    ) -> Result<Self, IndexError> {
        if format != RowFormat::F32 {
            let manifest = DenseManifest::load_for(index, source)?;
            let entry = manifest.formats.iter().find(|entry| entry.format == format);
            let entry = entry.ok_or_else(|| IndexError::NoFormat {
                index: index.to_owned(),
                format: format.name(),
            })?;
            let coarse = MappedRows::open(index, source, format, &entry.file, verification)?;
            self.coarse = Some(coarse);
        }
        Ok(self)
    }

    /// Returns the rows as the encoder made them.
    pub fn rows(&self) -> Result<Rows<'_>, IndexError> {
        self.exact.rows()
    }

    /// Returns `true` if searches read rows in another format.
    pub fn has_coarse(&self) -> bool {
        self.coarse.is_some()
    }

    /// Returns the rows that searches read: those of [`DenseRows::with_format`], or the exact ones.
    pub fn searched(&self) -> Result<Rows<'_>, IndexError> {
        self.coarse.as_ref().unwrap_or(&self.exact).rows()
    }

    /// Returns the format of the rows that searches read.
    pub fn searched_format(&self) -> RowFormat {
        self.coarse.as_ref().unwrap_or(&self.exact).format
    }

    /// Returns the number of components of a row.
    pub fn dimension(&self) -> usize {
        self.exact.dimension
    }
}

/// The rows in one format.
#[derive(Debug)]
struct MappedRows {
    bytes: OwnedBytes,
    format: RowFormat,
    dimension: usize,
    path: PathBuf,
}

impl MappedRows {
    fn open(
        index: &Path,
        source: &VectorSource,
        format: RowFormat,
        entry: &FileEntry,
        verification: Verification<'_>,
    ) -> Result<Self, IndexError> {
        let path = index.join(DENSE_FOLDER).join(rows_file(format));
        entry.check(&path, verification)?;
        let bytes = mapped::map(&path)?;
        let rows = Self { bytes, format, dimension: source.dimension as usize, path };
        let count = rows.rows()?.count() as u64;
        if count != source.passage_count {
            let reason = format!("{count} rows, expected {}", source.passage_count);
            return Err(IndexError::Corrupt { path: rows.path, reason });
        }
        Ok(rows)
    }

    fn rows(&self) -> Result<Rows<'_>, IndexError> {
        Rows::new(&self.bytes, self.format, self.dimension).map_err(|error| IndexError::Corrupt {
            path: self.path.clone(),
            reason: error.to_string(),
        })
    }
}

/// Returns the name of the file of rows in a format.
fn rows_file(format: RowFormat) -> String {
    format!("vectors.{}", format.name())
}

/// Locks the vectors of `index`. Nobody else can add files to them until the result is closed.
fn lock(index: &Path) -> Result<File, IndexError> {
    lock_folder(&index.join(DENSE_FOLDER), index)
}

/// Locks the vectors of `index`, complete or not. Nobody else can write any until the result is closed.
pub(super) fn lock_all(index: &Path) -> Result<Vec<File>, IndexError> {
    let folders = [DENSE_FOLDER, build::PARTIAL_FOLDER].map(|name| index.join(name));
    let existing = folders.iter().filter(|folder| folder.is_dir());
    existing.map(|folder| lock_folder(folder, index)).collect()
}

/// Locks a folder of vectors of `index`, complete or not.
fn lock_folder(folder: &Path, index: &Path) -> Result<File, IndexError> {
    let lock = File::open(folder).map_err(io_error(folder))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(AtomicError::Busy(index.join(DENSE_FOLDER)).into()),
        Err(TryLockError::Error(error)) => Err(io_error(folder)(error)),
    }
}

/// Turns the error of removing a file that does not exist into success.
fn ignore_missing(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
