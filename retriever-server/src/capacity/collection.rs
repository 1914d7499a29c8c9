//! The size of a collection of passages, which is stated by the user, counted in corpus files, or read
//! from the manifest of an index.

use std::fs;
use std::path::{Path, PathBuf};

use shared::contract::jsonl;
use shared::contract::rows::{self, RowsError};

use crate::corpus::compact::{COMPACT_FILE, DICTIONARY_FILE};
use crate::corpus::record::Passages;
use crate::corpus::store::PASSAGES_FILE;
use crate::index::dense::DenseManifest;
use crate::index::dense::ann::GraphKind;
use crate::index::manifest::Manifest;
use crate::index::{IndexError, LEXICAL_FOLDER};
use crate::lexical::bounds::BOUNDS_FILE;
use crate::vector::RowFormat;

/// The mean size of a stored passage if nothing is known about the corpus. It is that of Search-R1's dump
/// of Wikipedia, which has 21,015,324 passages of 100 words in 14 GB.
pub const USUAL_PASSAGE_BYTES: u64 = 670;

/// The number of bytes to read of a corpus file. The rest of a larger file is assumed to be similar.
const MAX_SAMPLE_BYTES: u64 = 64 << 20;

/// The size of a collection, and the parts that an existing index has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collection {
    /// The number of passages.
    pub passages: u64,
    /// The size of all passages as uncompressed lines; for an index with compressed passages, their
    /// compressed size.
    pub stored_bytes: u64,
    /// `true` if the number of passages is exact.
    pub is_counted: bool,
    /// `true` if the size of the passages is exact.
    pub is_measured: bool,
    /// The passages and postings of the existing index.
    pub existing: Option<StoredParts>,
    /// The vectors of the existing index.
    pub vectors: Option<StoredVectors>,
}

/// The passages and postings of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredParts {
    /// The size of the passages on disk.
    pub passages_bytes: u64,
    /// `true` if the passages are compressed.
    pub is_compact: bool,
    /// The size of the postings.
    pub postings_bytes: u64,
    /// The size of their bounds, which indexes of early versions lack.
    pub bounds_bytes: u64,
}

/// The vectors of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredVectors {
    /// The number of components of a vector.
    pub dimension: u64,
    /// The formats, with the sizes of their files.
    pub formats: Vec<(RowFormat, u64)>,
    /// The graphs, with the formats of their rows and the sizes of their files.
    pub graphs: Vec<(GraphKind, RowFormat, u64)>,
}

impl Collection {
    /// Returns a collection of this many passages with this mean size.
    pub fn stated(passages: u64, passage_bytes: u64) -> Self {
        let stored_bytes = passages.saturating_mul(passage_bytes);
        Self { passages, stored_bytes, is_counted: true, ..Self::default() }
    }

    /// Reads corpus files, or folders of parts: small files completely, large ones from the beginning.
    pub fn from_corpus(files: &[PathBuf]) -> Result<Self, RowsError> {
        let mut total = Self { is_counted: true, is_measured: true, ..Self::default() };
        let mut parts = Vec::new();
        for path in files {
            parts.extend(rows::parts(path)?);
        }
        for path in parts {
            let file = Self::from_file(&path)?;
            total.passages += file.passages;
            total.stored_bytes += file.stored_bytes;
            total.is_counted &= file.is_counted;
            total.is_measured &= file.is_measured;
        }
        Ok(total)
    }

    fn from_file(path: &Path) -> Result<Self, RowsError> {
        let mut passages = Passages::open(path)?;
        // A file that can be opened has a size. If not, only the sample counts.
        let file_bytes = fs::metadata(path).map_or(0, |metadata| metadata.len());
        let mut sample = Self { is_counted: true, is_measured: true, ..Self::default() };
        let mut stored = Vec::new();
        let mut read_bytes = 0;
        while let Some((_, passage)) = passages.next_passage()? {
            stored.clear();
            jsonl::write_record(&mut stored, &passage).expect("writing to memory cannot fail");
            sample.passages += 1;
            sample.stored_bytes += stored.len() as u64;
            read_bytes = passages.bytes_read();
            if read_bytes >= MAX_SAMPLE_BYTES && read_bytes < file_bytes {
                (sample.is_counted, sample.is_measured) = (false, false);
                break;
            }
        }
        if sample.is_counted {
            return Ok(sample);
        }
        let grow = |part: u64| {
            let grown = u128::from(part) * u128::from(file_bytes) / u128::from(read_bytes.max(1));
            u64::try_from(grown).unwrap_or(u64::MAX)
        };
        let (passages, stored_bytes) = (grow(sample.passages), grow(sample.stored_bytes));
        Ok(Self { passages, stored_bytes, ..sample })
    }

    /// Reads the manifests of an index.
    pub fn from_index(folder: &Path) -> Result<Self, IndexError> {
        let manifest = Manifest::load(folder)?;
        let bytes = |is_counted: &dyn Fn(&Path) -> bool| -> u64 {
            let files = manifest.files.iter().filter(|file| is_counted(&file.path));
            files.map(|file| file.bytes).sum()
        };
        let is_one_of = |path: &Path, names: &[&str]| names.iter().any(|&name| path == name);
        let plain = [PASSAGES_FILE];
        let compact = [COMPACT_FILE, DICTIONARY_FILE];
        let bounds = Path::new(LEXICAL_FOLDER).join(BOUNDS_FILE);
        let is_postings = |path: &Path| path.starts_with(LEXICAL_FOLDER) && path != bounds;
        let is_compact = manifest.files.iter().any(|file| is_one_of(&file.path, &compact));
        let names = if is_compact { &compact[..] } else { &plain };
        let stored_bytes = bytes(&|path| is_one_of(path, names));
        let existing = StoredParts {
            passages_bytes: stored_bytes,
            is_compact,
            postings_bytes: bytes(&is_postings),
            bounds_bytes: bytes(&|path| path == bounds),
        };
        let vectors = DenseManifest::load(folder)?.map(|dense| {
            let others = dense.formats.iter().map(|entry| (entry.format, entry.file.bytes));
            let exact = (RowFormat::F32, dense.vectors.bytes);
            StoredVectors {
                dimension: dense.source.dimension,
                formats: std::iter::once(exact).chain(others).collect(),
                graphs: dense
                    .graphs
                    .iter()
                    .map(|entry| (entry.kind, entry.format, entry.file.bytes))
                    .collect(),
            }
        });
        Ok(Self {
            passages: manifest.passage_count,
            stored_bytes,
            is_counted: true,
            is_measured: true,
            existing: Some(existing),
            vectors,
        })
    }
}
