//! Passages on disk: a file of JSON lines and a file of the offset of every line. Both are
//! memory-mapped, so that opening takes no time, memory is the page cache's, and a passage costs
//! one look at each file. The map is tantivy's, which keeps this crate free of unsafe code.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use shared::jsonl;
use shared::passage::Passage;
use tantivy::directory::error::{OpenDirectoryError, OpenReadError};
use tantivy::directory::{Directory, MmapDirectory, OwnedBytes};
use thiserror::Error;

/// The passages, one JSON object a line.
pub const PASSAGES_FILE: &str = "passages.jsonl";
/// Where each line starts, and where the last one ends: little-endian 64-bit integers.
pub const OFFSETS_FILE: &str = "passages.offsets";

const OFFSET_BYTES: usize = size_of::<u64>();

/// Passages could not be opened or read.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The folder cannot be mapped.
    #[error("cannot open {}: {source}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        source: OpenDirectoryError,
    },
    /// A file cannot be mapped.
    #[error("cannot open a passage file: {0}")]
    Open(#[from] OpenReadError),
    /// A file cannot be read.
    #[error("cannot read a passage file: {0}")]
    Io(#[from] io::Error),
    /// The files contradict each other.
    #[error("{OFFSETS_FILE} is corrupt: {0}")]
    Offsets(String),
    /// A row beyond the last.
    #[error("no passage has row {0}")]
    NoSuchRow(u32),
    /// A line is not the passage that was written.
    #[error("{PASSAGES_FILE} is corrupt at byte {offset}: {reason}")]
    Corrupt {
        /// Start of the line.
        offset: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// Writes passages in row order.
#[derive(Debug)]
pub struct PassageWriter {
    passages: BufWriter<File>,
    offsets: BufWriter<File>,
    line: Vec<u8>,
    offset: u64,
}

impl PassageWriter {
    /// Creates both files in `folder`.
    pub fn create(folder: &Path) -> io::Result<Self> {
        let passages = File::create(folder.join(PASSAGES_FILE))?;
        let mut offsets = BufWriter::new(File::create(folder.join(OFFSETS_FILE))?);
        offsets.write_all(&0u64.to_le_bytes())?;
        Ok(Self {
            passages: BufWriter::with_capacity(1 << 18, passages),
            offsets,
            line: Vec::new(),
            offset: 0,
        })
    }

    /// Appends a passage; its row is the number of those before it.
    pub fn add(&mut self, passage: &Passage) -> io::Result<()> {
        self.line.clear();
        jsonl::write_record(&mut self.line, passage)?;
        self.passages.write_all(&self.line)?;
        self.offset += self.line.len() as u64;
        self.offsets.write_all(&self.offset.to_le_bytes())
    }

    /// Writes what is still buffered.
    pub fn finish(mut self) -> io::Result<()> {
        self.passages.flush()?;
        self.offsets.flush()
    }
}

/// Reads passages by row.
#[derive(Debug)]
pub struct PassageStore {
    passages: OwnedBytes,
    offsets: OwnedBytes,
}

impl PassageStore {
    /// Maps both files in `folder` and checks that they fit each other.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let directory = MmapDirectory::open(folder)
            .map_err(|source| StoreError::Folder { folder: folder.to_owned(), source })?;
        let map = |name: &str| -> Result<OwnedBytes, StoreError> {
            Ok(directory.open_read(Path::new(name))?.read_bytes()?)
        };
        let store = Self { passages: map(PASSAGES_FILE)?, offsets: map(OFFSETS_FILE)? };
        let length = store.offsets.len();
        if length < OFFSET_BYTES || !length.is_multiple_of(OFFSET_BYTES) {
            let reason = format!("{length} bytes long, expected a multiple of {OFFSET_BYTES}");
            return Err(StoreError::Offsets(reason));
        }
        let size = store.passages.len();
        let end = store.offset(length / OFFSET_BYTES - 1).unwrap_or(usize::MAX);
        if end != size {
            let reason = format!("ends at byte {end}, but {PASSAGES_FILE} has {size} bytes");
            return Err(StoreError::Offsets(reason));
        }
        Ok(store)
    }

    /// Number of passages.
    pub fn len(&self) -> usize {
        self.offsets.len() / OFFSET_BYTES - 1
    }

    /// Whether there is no passage at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The passage at `row`.
    pub fn get(&self, row: u32) -> Result<Passage, StoreError> {
        let index = row as usize;
        let (Some(start), Some(end)) = (self.offset(index), self.offset(index + 1)) else {
            return Err(StoreError::NoSuchRow(row));
        };
        let line = self.passages.get(start..end).ok_or_else(|| {
            StoreError::Offsets(format!("row {row} spans bytes {start} to {end}"))
        })?;
        serde_json::from_slice(line)
            .map_err(|error| StoreError::Corrupt { offset: start, reason: error.to_string() })
    }

    fn offset(&self, index: usize) -> Option<usize> {
        let start = index.checked_mul(OFFSET_BYTES)?;
        let bytes = self.offsets.get(start..start + OFFSET_BYTES)?;
        usize::try_from(u64::from_le_bytes(bytes.try_into().ok()?)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passage(id: &str, contents: &str) -> Passage {
        Passage { id: id.to_owned(), contents: contents.to_owned(), ..Passage::default() }
    }

    fn written(passages: &[Passage]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = PassageWriter::create(folder.path()).unwrap();
        for passage in passages {
            writer.add(passage).unwrap();
        }
        writer.finish().unwrap();
        folder
    }

    #[test]
    fn passages_come_back_by_row() {
        let passages =
            [passage("a", "one\ntwo"), passage("b", ""), passage("c", "東京 \u{0} \"x\"")];
        let folder = written(&passages);
        let store = PassageStore::open(folder.path()).unwrap();
        assert_eq!(store.len(), 3);
        for (row, passage) in passages.iter().enumerate() {
            assert_eq!(&store.get(row as u32).unwrap(), passage);
        }
        assert!(matches!(store.get(3), Err(StoreError::NoSuchRow(3))));
        assert!(matches!(store.get(u32::MAX), Err(StoreError::NoSuchRow(_))));
    }

    #[test]
    fn torn_and_corrupt_files_are_refused_with_their_place() {
        let folder = written(&[passage("a", "one"), passage("b", "two")]);
        let path = folder.path().join(PASSAGES_FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[28] = b'!';
        std::fs::write(&path, &bytes).unwrap();
        let error = PassageStore::open(folder.path()).unwrap().get(1).unwrap_err().to_string();
        assert!(error.starts_with("passages.jsonl is corrupt at byte 28"), "{error}");
        std::fs::write(&path, &bytes[..40]).unwrap();
        let error = PassageStore::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("ends at byte 56, but passages.jsonl has 40 bytes"), "{error}");
    }
}
