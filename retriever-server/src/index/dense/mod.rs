//! The vectors of an index's passages, for the dense back end: a folder inside the index folder.
//!
//! ```text
//! dense/manifest.json   which passages, which encoder, how many numbers, sizes and SHA-256
//! dense/vectors.f32     a row of little-endian 32-bit floats a passage, in corpus order
//! dense/vectors.f16     the same in fewer bits, where asked for; also .i8
//! dense/vectors.hnsw    a graph over them, where asked for
//! dense/vectors.f32.usearch  a graph of the library usearch with its own rows, also f16 and i8
//! ```
//!
//! The folder is complete or absent. What a build that was killed has encoded stays under another
//! name, and the next build of the same goes on from there. What is made of the vectors comes
//! later, file by file: each is in the manifest, or does not count.

pub mod ann;
pub mod build;
pub mod formats;

#[cfg(test)]
pub(super) mod fixture;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shared::atomic_file::{self, AtomicError};
use shared::digest::Digest;
use tantivy::directory::{Directory, MmapDirectory, OwnedBytes};

pub use ann::GraphEntry;
pub use formats::FormatEntry;

use super::manifest::{FileEntry, Manifest, Verification};
use super::{IndexError, io_error};
use crate::encode::Encoder;
use crate::encode::settings::Settings;
use crate::vector::{RowFormat, Rows};

/// Folder of the vectors inside an index.
pub const DENSE_FOLDER: &str = "dense";
const MANIFEST_FILE: &str = "manifest.json";
const VECTORS_FILE: &str = "vectors.f32";
/// Version of the layout. Raise it with every change that old readers misread.
const FORMAT: u32 = 1;

/// What vectors were made from: only equal ones can go on from each other, or be asked together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Version of the layout.
    pub format: u32,
    /// Digest of the index whose passages they are.
    pub index: Digest,
    /// Passages, and so rows.
    pub passage_count: u64,
    /// Digest of the encoder: model, tokenizer and settings.
    pub encoder: Digest,
    /// Numbers a row.
    pub dimension: u64,
}

impl Source {
    /// What vectors of the index's passages by `encoder` are made from.
    pub fn of(index: &Manifest, encoder: &Encoder) -> Result<Self, IndexError> {
        let digest = encoder_digest(encoder.settings())?;
        Ok(Self::new(index, digest, encoder.dimension()))
    }

    fn new(index: &Manifest, encoder: Digest, dimension: usize) -> Self {
        Self {
            format: FORMAT,
            index: index.digest,
            passage_count: index.passage_count,
            encoder,
            dimension: dimension as u64,
        }
    }
}

/// The digest of everything that makes a passage's vector. What concerns queries alone may change
/// without new vectors.
fn encoder_digest(settings: &Settings) -> Result<Digest, IndexError> {
    let Settings { pooling, normalize, passage_prefix, max_passage_tokens, .. } = settings;
    let digest = |path: &Path| Digest::of_file(path).map_err(io_error(path));
    let (model, tokenizer) = (digest(&settings.model)?, digest(&settings.tokenizer)?);
    let text = format!(
        "{model}\n{tokenizer}\n{pooling:?}\n{normalize}\n{max_passage_tokens}\n{passage_prefix}"
    );
    Ok(Digest::of_bytes(text.as_bytes()))
}

/// What the folder says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DenseManifest {
    /// What the vectors were made from.
    #[serde(flatten)]
    pub source: Source,
    /// Program and version that wrote them.
    pub writer: String,
    /// Folder of the encoder as it was given.
    pub model: PathBuf,
    /// The file of the vectors.
    pub vectors: FileEntry,
    /// The vectors in other formats.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub formats: Vec<FormatEntry>,
    /// Graphs over the vectors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub graphs: Vec<GraphEntry>,
}

impl DenseManifest {
    /// The manifest of the vectors in the index folder `index`, if there are any.
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
                what: "format",
                found: manifest.source.format.to_string(),
                expected: FORMAT.to_string(),
            });
        }
        Ok(Some(manifest))
    }

    /// Replaces the manifest in the index folder `index`.
    fn save(&self, index: &Path) -> Result<(), IndexError> {
        let path = index.join(DENSE_FOLDER).join(MANIFEST_FILE);
        let text =
            serde_json::to_vec_pretty(self).map_err(|error| io_error(&path)(error.into()))?;
        Ok(atomic_file::write(&path, &text)?)
    }

    /// The manifest, which must be that of vectors of `source`.
    fn of(index: &Path, source: &Source) -> Result<Self, IndexError> {
        let manifest = Self::load(index)?.ok_or_else(|| IndexError::NoVectors(index.to_owned()))?;
        if manifest.source == *source {
            Ok(manifest)
        } else {
            let folder = index.join(DENSE_FOLDER);
            Err(IndexError::OtherVectors { folder, model: manifest.model })
        }
    }
}

/// Vectors in memory that is the page cache's.
#[derive(Debug)]
pub struct DenseRows {
    exact: MappedRows,
    /// What is searched instead, and the hits of which are scored again by `exact`.
    coarse: Option<MappedRows>,
}

impl DenseRows {
    /// Maps the vectors in the index folder `index`, which must be those of `source`.
    pub fn open(
        index: &Path,
        source: &Source,
        verification: Verification,
    ) -> Result<Self, IndexError> {
        let manifest = DenseManifest::of(index, source)?;
        let exact =
            MappedRows::open(index, source, (RowFormat::F32, &manifest.vectors), verification)?;
        Ok(Self { exact, coarse: None })
    }

    /// Also maps the vectors in `format`, to be searched instead.
    pub fn with_format(
        mut self,
        index: &Path,
        source: &Source,
        format: RowFormat,
        verification: Verification,
    ) -> Result<Self, IndexError> {
        if format != RowFormat::F32 {
            let manifest = DenseManifest::of(index, source)?;
            let entry = manifest.formats.iter().find(|one| one.format == format);
            let entry = entry.ok_or_else(|| IndexError::NoFormat {
                index: index.to_owned(),
                format: format.name(),
            })?;
            let rows = (format, &entry.file);
            self.coarse = Some(MappedRows::open(index, source, rows, verification)?);
        }
        Ok(self)
    }

    /// The rows as they were made.
    pub fn rows(&self) -> Result<Rows<'_>, IndexError> {
        self.exact.rows()
    }

    /// Whether other rows are searched than those that were made.
    pub fn has_coarse(&self) -> bool {
        self.coarse.is_some()
    }

    /// The rows that are searched: those of [`DenseRows::with_format`], else the same.
    pub fn searched(&self) -> Result<Rows<'_>, IndexError> {
        self.coarse.as_ref().unwrap_or(&self.exact).rows()
    }

    /// The format of the rows that are searched.
    pub fn searched_format(&self) -> RowFormat {
        self.coarse.as_ref().unwrap_or(&self.exact).format
    }

    /// Numbers a row.
    pub fn dimension(&self) -> usize {
        self.exact.dimension
    }
}

/// Rows of one format.
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
        source: &Source,
        (format, entry): (RowFormat, &FileEntry),
        verification: Verification,
    ) -> Result<Self, IndexError> {
        let path = index.join(DENSE_FOLDER).join(rows_file(format));
        entry.check(&path, verification)?;
        let bytes = map(&path)?;
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

/// Name of the file of rows in a format.
fn rows_file(format: RowFormat) -> String {
    format!("vectors.{}", format.name())
}

fn map(path: &Path) -> Result<OwnedBytes, IndexError> {
    let failed = |error: String| io_error(path)(io::Error::other(error));
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().map_or(path, Path::new);
    let map = MmapDirectory::open(folder).map_err(|error| failed(error.to_string()))?;
    let file = map.open_read(name).map_err(|error| failed(error.to_string()))?;
    file.read_bytes().map_err(io_error(path))
}

/// Keeps others from adding files to the vectors of `index` until it is closed.
fn lock(index: &Path) -> Result<File, IndexError> {
    lock_folder(&index.join(DENSE_FOLDER), index)
}

/// Keeps others from writing vectors of `index`, complete or not, until it is closed.
pub(super) fn lock_all(index: &Path) -> Result<Vec<File>, IndexError> {
    let folders = [DENSE_FOLDER, build::PARTIAL_FOLDER].map(|name| index.join(name));
    let there = folders.iter().filter(|folder| folder.is_dir());
    there.map(|folder| lock_folder(folder, index)).collect()
}

/// Locks a folder in which vectors of `index` are written.
fn lock_folder(folder: &Path, index: &Path) -> Result<File, IndexError> {
    let lock = File::open(folder).map_err(io_error(folder))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(AtomicError::Busy(index.join(DENSE_FOLDER)).into()),
        Err(TryLockError::Error(error)) => Err(io_error(folder)(error)),
    }
}

fn remove_if_there(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
