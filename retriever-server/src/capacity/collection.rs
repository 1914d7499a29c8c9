//! How large a collection of passages is: as told, counted in corpus files, or read from the
//! manifest of an index.

use std::fs;
use std::path::{Path, PathBuf};

use shared::jsonl::{self, JsonlError, JsonlReader};

use crate::corpus::compact::{COMPACT_FILE, DICTIONARY_FILE};
use crate::corpus::record;
use crate::corpus::store::PASSAGES_FILE;
use crate::index::dense::DenseManifest;
use crate::index::dense::ann::GraphKind;
use crate::index::manifest::Manifest;
use crate::index::{IndexError, LEXICAL_FOLDER};
use crate::lexical::bounds::BOUNDS_FILE;
use crate::vector::RowFormat;

/// Mean size of a stored passage where nothing is known of the corpus: that of the dump of
/// Wikipedia that Search-R1 uses, 14 GB of 21,015,324 passages of 100 words.
pub const USUAL_PASSAGE_BYTES: u64 = 670;

/// Bytes of a corpus file that are read; the rest of a larger one is taken to be like them.
const MAX_SAMPLE_BYTES: u64 = 64 << 20;

/// The size of a collection, and what of it an index has already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collection {
    /// Passages.
    pub passages: u64,
    /// All passages together, as lines that are not compressed; of an index that has them
    /// compressed, what they take there.
    pub stored_bytes: u64,
    /// Whether the number of passages is exact.
    pub is_counted: bool,
    /// Whether their size is.
    pub is_measured: bool,
    /// What of them an index has.
    pub there: Option<Stored>,
    /// The vectors that are there.
    pub vectors: Option<StoredVectors>,
}

/// Passages and postings in an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Size of the passages as they are.
    pub passages_bytes: u64,
    /// Whether they are compressed.
    pub is_compact: bool,
    /// Size of the postings.
    pub postings_bytes: u64,
    /// Size of the bounds beside them, which old indexes do not have.
    pub bounds_bytes: u64,
}

/// Vectors in an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredVectors {
    /// Numbers a vector.
    pub dimension: u64,
    /// Formats with the sizes of their files.
    pub formats: Vec<(RowFormat, u64)>,
    /// Graphs over them, with the format of their rows and the sizes of their files.
    pub graphs: Vec<(GraphKind, RowFormat, u64)>,
}

impl Collection {
    /// So many passages, of a mean size.
    pub fn told(passages: u64, passage_bytes: u64) -> Self {
        let stored_bytes = passages.saturating_mul(passage_bytes);
        Self { passages, stored_bytes, is_counted: true, ..Self::default() }
    }

    /// Reads corpus files: small ones in whole, the beginning of large ones.
    pub fn of_corpus(files: &[PathBuf]) -> Result<Self, JsonlError> {
        let mut whole = Self { is_counted: true, is_measured: true, ..Self::default() };
        for path in files {
            let one = Self::of_file(path)?;
            whole.passages += one.passages;
            whole.stored_bytes += one.stored_bytes;
            whole.is_counted &= one.is_counted;
            whole.is_measured &= one.is_measured;
        }
        Ok(whole)
    }

    fn of_file(path: &Path) -> Result<Self, JsonlError> {
        let mut lines = JsonlReader::open(path)?;
        // A file that could be opened has a size; without one the sample counts alone.
        let file_bytes = fs::metadata(path).map_or(0, |found| found.len());
        let mut sample = Self { is_counted: true, is_measured: true, ..Self::default() };
        let mut stored = Vec::new();
        let mut read_bytes = 0;
        while let Some(line) = lines.next_line()? {
            let passage = record::passage(&line)?;
            stored.clear();
            // Writing to memory cannot fail.
            let _ = jsonl::write_record(&mut stored, &passage);
            sample.passages += 1;
            sample.stored_bytes += stored.len() as u64;
            read_bytes = lines.bytes_read();
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
    pub fn of_index(folder: &Path) -> Result<Self, IndexError> {
        let manifest = Manifest::load(folder)?;
        let bytes = |is_wanted: &dyn Fn(&Path) -> bool| -> u64 {
            let wanted = manifest.files.iter().filter(|file| is_wanted(&file.path));
            wanted.map(|file| file.bytes).sum()
        };
        let is_one_of = |path: &Path, names: &[&str]| names.iter().any(|&name| path == name);
        let plain = [PASSAGES_FILE];
        let compact = [COMPACT_FILE, DICTIONARY_FILE];
        let bounds = Path::new(LEXICAL_FOLDER).join(BOUNDS_FILE);
        let is_postings = |path: &Path| path.starts_with(LEXICAL_FOLDER) && path != bounds;
        let is_compact = manifest.files.iter().any(|file| is_one_of(&file.path, &compact));
        let names = if is_compact { &compact[..] } else { &plain };
        let stored_bytes = bytes(&|path| is_one_of(path, names));
        let there = Stored {
            passages_bytes: stored_bytes,
            is_compact,
            postings_bytes: bytes(&is_postings),
            bounds_bytes: bytes(&|path| path == bounds),
        };
        let vectors = DenseManifest::load(folder)?.map(|dense| {
            let others = dense.formats.iter().map(|one| (one.format, one.file.bytes));
            let exact = (RowFormat::F32, dense.vectors.bytes);
            StoredVectors {
                dimension: dense.source.dimension,
                formats: std::iter::once(exact).chain(others).collect(),
                graphs: dense
                    .graphs
                    .iter()
                    .map(|one| (one.kind, one.format, one.file.bytes))
                    .collect(),
            }
        });
        Ok(Self {
            passages: manifest.passage_count,
            stored_bytes,
            is_counted: true,
            is_measured: true,
            there: Some(there),
            vectors,
        })
    }
}
