//! Passages on disk: a file of JSON lines, and a file with the offset of every line. Both are mapped
//! into memory, so they open fast, use only the page cache, and a passage costs one read of each. The
//! lines may be compressed one by one: see `corpus::compact`.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use shared::contract::jsonl;
use shared::contract::passage::Passage;
use tantivy::directory::OwnedBytes;
use thiserror::Error;

use super::compact::{COMPACT_FILE, DICTIONARY_FILE, Decompressors};
use crate::processor::mapped::{self, MapError};

/// The name of the file of passages, with one JSON object per line.
pub const PASSAGES_FILE: &str = "passages.jsonl";
/// The name of the file with the start of each line and the end of the last one, as little-endian
/// 64-bit integers.
pub const OFFSETS_FILE: &str = "passages.offsets";

const OFFSET_BYTES: usize = size_of::<u64>();

/// Passages could not be opened or read.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A file cannot be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// A file cannot be read.
    #[error("cannot read a passage file: {0}")]
    Io(#[from] io::Error),
    /// The files contradict each other.
    #[error("{OFFSETS_FILE} is corrupt: {0}")]
    Offsets(String),
    /// The row is beyond the last one.
    #[error("no passage has row {0}")]
    NoSuchRow(u32),
    /// A line is not a passage as it was written.
    #[error("{file} is corrupt at byte {offset}: {reason}")]
    Corrupt {
        /// The file.
        file: &'static str,
        /// The offset of the line.
        offset: usize,
        /// The fault of the line.
        reason: String,
    },
}

/// A writer of passages in row order.
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

    /// Appends a passage. Its row is the number of passages before it.
    pub fn add(&mut self, passage: &Passage) -> io::Result<()> {
        self.line.clear();
        jsonl::write_record(&mut self.line, passage)?;
        self.passages.write_all(&self.line)?;
        self.offset += self.line.len() as u64;
        self.offsets.write_all(&self.offset.to_le_bytes())
    }

    /// Writes the rest of the buffers.
    pub fn finish(mut self) -> io::Result<()> {
        self.passages.flush()?;
        self.offsets.flush()
    }
}

/// The stored passages, readable by row.
#[derive(Debug)]
pub struct PassageStore {
    /// The name of the file of passages.
    file: &'static str,
    passages: OwnedBytes,
    offsets: OwnedBytes,
    /// The decompressors, if the passages are compressed.
    decompressors: Option<Decompressors>,
}

impl PassageStore {
    /// Maps the files in `folder` and checks that they fit together.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let map = |name: &str| mapped::map(&folder.join(name));
        let is_compact =
            !folder.join(PASSAGES_FILE).try_exists()? && folder.join(COMPACT_FILE).try_exists()?;
        let file = if is_compact { COMPACT_FILE } else { PASSAGES_FILE };
        let decompressors =
            is_compact.then(|| map(DICTIONARY_FILE).map(Decompressors::new)).transpose()?;
        let store = Self { file, passages: map(file)?, offsets: map(OFFSETS_FILE)?, decompressors };
        store.check_offsets().map_err(StoreError::Offsets)?;
        Ok(store)
    }

    /// Checks that the offsets rise and end at the end of the passages. This reads all of them, 8
    /// bytes per passage.
    fn check_offsets(&self) -> Result<(), String> {
        let length = self.offsets.len();
        let (offsets, rest) = self.offsets.as_chunks::<OFFSET_BYTES>();
        if offsets.is_empty() || !rest.is_empty() {
            return Err(format!("{length} bytes long, expected a multiple of {OFFSET_BYTES}"));
        }
        let mut before = None;
        for (row, bytes) in offsets.iter().enumerate() {
            let offset = u64::from_le_bytes(*bytes);
            if before.map_or(offset != 0, |before| offset <= before) {
                return Err(format!(
                    "row {row} starts at byte {offset}, expected {}",
                    before.map_or("0".to_owned(), |before| format!("more than {before}"))
                ));
            }
            before = Some(offset);
        }
        let end = before.expect("there is at least one offset");
        let size = self.passages.len();
        if end != size as u64 {
            return Err(format!("ends at byte {end}, but {} has {size} bytes", self.file));
        }
        Ok(())
    }

    /// Returns the number of passages.
    pub fn len(&self) -> usize {
        self.offsets.len() / OFFSET_BYTES - 1
    }

    /// Returns `true` if there are no passages.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the passage at `row`.
    pub fn get(&self, row: u32) -> Result<Passage, StoreError> {
        let (offset, line) = self.line(row)?;
        serde_json::from_slice(&line).map_err(|error| StoreError::Corrupt {
            file: self.file,
            offset,
            reason: error.to_string(),
        })
    }

    /// Returns the offset of a row in its file, and its line as it was written.
    pub(crate) fn line(&self, row: u32) -> Result<(usize, Cow<'_, [u8]>), StoreError> {
        let (offset, stored) = self.stored(row)?;
        let line = match &self.decompressors {
            None => Cow::Borrowed(stored),
            Some(decompressors) => {
                let line = decompressors.line(stored);
                let corrupt = |reason| StoreError::Corrupt { file: self.file, offset, reason };
                Cow::Owned(line.map_err(corrupt)?)
            }
        };
        Ok((offset, line))
    }

    /// Returns the offset of a row in its file, and its bytes there, which may be compressed.
    pub(crate) fn stored(&self, row: u32) -> Result<(usize, &[u8]), StoreError> {
        let index = row as usize;
        let (Some(start), Some(end)) = (self.offset(index), self.offset(index + 1)) else {
            return Err(StoreError::NoSuchRow(row));
        };
        let stored = self.passages.get(start..end).ok_or_else(|| {
            StoreError::Offsets(format!("row {row} spans bytes {start} to {end}"))
        })?;
        Ok((start, stored))
    }

    fn offset(&self, index: usize) -> Option<usize> {
        let start = index.checked_mul(OFFSET_BYTES)?;
        let bytes = self.offsets.get(start..start + OFFSET_BYTES)?;
        usize::try_from(u64::from_le_bytes(bytes.try_into().ok()?)).ok()
    }
}

#[cfg(test)]
mod tests;
