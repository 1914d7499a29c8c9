//! The vectors of an index's passages, for the dense back end: a folder inside the index folder.
//!
//! ```text
//! dense/manifest.json   which passages, which encoder, how many numbers, size and SHA-256
//! dense/vectors.f32     a row of little-endian 32-bit floats a passage, in corpus order
//! ```
//!
//! The folder is complete or absent. What a build that was killed has encoded stays under another
//! name, and the next build of the same goes on from there.

pub mod build;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shared::digest::Digest;
use tantivy::directory::{Directory, MmapDirectory, OwnedBytes};

use crate::encode::Encoder;
use crate::encode::settings::Settings;
use crate::index::manifest::{FileEntry, Manifest, Verification};
use crate::index::{IndexError, io_error};
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl DenseManifest {
    /// The manifest of the vectors in the index folder `index`, if there are any.
    pub fn load(index: &Path) -> Result<Option<Self>, IndexError> {
        let path = index.join(DENSE_FOLDER).join(MANIFEST_FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
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
}

/// Vectors in memory that is the page cache's.
#[derive(Debug)]
pub struct DenseRows {
    bytes: OwnedBytes,
    dimension: usize,
    path: PathBuf,
}

impl DenseRows {
    /// Maps the vectors in the index folder `index`, which must be those of `source`.
    pub fn open(
        index: &Path,
        source: &Source,
        verification: Verification,
    ) -> Result<Self, IndexError> {
        let manifest =
            DenseManifest::load(index)?.ok_or_else(|| IndexError::NoVectors(index.to_owned()))?;
        let folder = index.join(DENSE_FOLDER);
        if manifest.source != *source {
            return Err(IndexError::OtherVectors { folder, model: manifest.model });
        }
        let path = folder.join(VECTORS_FILE);
        manifest.vectors.check(&path, verification)?;
        let map = MmapDirectory::open(&folder)
            .map_err(|error| io_error(&folder)(io::Error::other(error.to_string())))?;
        let bytes = map
            .open_read(Path::new(VECTORS_FILE))
            .and_then(|file| {
                file.read_bytes().map_err(|error| {
                    tantivy::directory::error::OpenReadError::wrap_io_error(error, path.clone())
                })
            })
            .map_err(|error| io_error(&path)(io::Error::other(error.to_string())))?;
        let rows = Self { bytes, dimension: source.dimension as usize, path };
        let count = rows.rows()?.count() as u64;
        if count != source.passage_count {
            let reason = format!("{count} rows, expected {}", source.passage_count);
            return Err(IndexError::Corrupt { path: rows.path, reason });
        }
        Ok(rows)
    }

    /// The rows, to be searched.
    pub fn rows(&self) -> Result<Rows<'_>, IndexError> {
        Rows::new(&self.bytes, RowFormat::F32, self.dimension).map_err(|error| {
            IndexError::Corrupt { path: self.path.clone(), reason: error.to_string() }
        })
    }

    /// Numbers a row.
    pub fn dimension(&self) -> usize {
        self.dimension
    }
}
