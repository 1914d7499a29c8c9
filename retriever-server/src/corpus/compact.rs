//! Compressed passages. Each line is a separate zstd frame (RFC 8878) with a checksum, so a row can
//! still be read alone. All frames use one dictionary, which is trained on some of the passages.

use std::fmt;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use shared::contract::jsonl::LINE_LIMIT_BYTES;
use tantivy::directory::OwnedBytes;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, get_frame_content_size};

use super::store::{OFFSETS_FILE, PASSAGES_FILE, PassageStore, StoreError};

/// The name of the file of frames.
pub const COMPACT_FILE: &str = "passages.zst";
/// The name of the file of the dictionary. It is empty if there were too few passages to train one.
pub const DICTIONARY_FILE: &str = "passages.dictionary";

/// The compression level, which is zstd's default.
const LEVEL: i32 = 3;
/// The size of the dictionary, which is the default of zstd's own tool.
pub(crate) const DICTIONARY_BYTES: usize = 110 * 1024;
/// The size of the training samples. zstd's documentation advises about a hundred times the
/// dictionary's size.
const SAMPLE_BYTES: usize = 100 * DICTIONARY_BYTES;
/// The longest line in a frame: the longest line of a corpus with every character escaped.
const FRAME_LIMIT_BYTES: u64 = 8 * LINE_LIMIT_BYTES as u64;

/// Compresses the passages in `folder` and removes the file of JSON lines.
pub fn compress(folder: &Path) -> Result<(), StoreError> {
    let store = PassageStore::open(folder)?;
    let dictionary = train(&store)?;
    fs::write(folder.join(DICTIONARY_FILE), &dictionary)?;
    let mut compressor = Compressor::with_dictionary(LEVEL, &dictionary)?;
    compressor.set_parameter(CParameter::ChecksumFlag(true))?;
    let mut frames = BufWriter::with_capacity(1 << 18, File::create(folder.join(COMPACT_FILE))?);
    // The new offsets get another name, because the old ones stay mapped until all lines are read.
    let new_offsets = folder.join("passages.offsets.new");
    let mut offsets = BufWriter::new(File::create(&new_offsets)?);
    let mut offset = 0u64;
    offsets.write_all(&offset.to_le_bytes())?;
    for row in 0..store.len() as u32 {
        let frame = compressor.compress(store.stored(row)?.1)?;
        frames.write_all(&frame)?;
        offset += frame.len() as u64;
        offsets.write_all(&offset.to_le_bytes())?;
    }
    frames.flush()?;
    offsets.flush()?;
    fs::rename(&new_offsets, folder.join(OFFSETS_FILE))?;
    fs::remove_file(folder.join(PASSAGES_FILE))?;
    Ok(())
}

/// Compares every compressed line with its original. The error gives the row and the offset of the
/// first difference.
pub(crate) fn compare(lines: &PassageStore, frames: &PassageStore) -> Result<(), StoreError> {
    for row in 0..lines.len() as u32 {
        let (offset, line) = frames.line(row)?;
        if *line != *lines.line(row)?.1 {
            let reason = format!("row {row} differs from the line that was compressed");
            return Err(StoreError::Corrupt { file: COMPACT_FILE, offset, reason });
        }
    }
    Ok(())
}

/// Trains a dictionary on lines at equal distances. The result is empty if there are too few lines.
fn train(store: &PassageStore) -> Result<Vec<u8>, StoreError> {
    let rows = store.len();
    let (mut samples, mut sizes) = (Vec::new(), Vec::new());
    // The average length of about a thousand lines gives the number of samples.
    let measured = (0..rows as u32).step_by(rows.div_ceil(1000).max(1));
    let mut average = 1;
    for row in measured.clone() {
        average += store.stored(row)?.1.len() / measured.len();
    }
    let count = (SAMPLE_BYTES / average).clamp(1, rows.max(1));
    for row in (0..rows as u32).step_by(rows.div_ceil(count).max(1)) {
        let line = store.stored(row)?.1;
        if samples.len() + line.len() > 2 * SAMPLE_BYTES {
            break;
        }
        samples.extend_from_slice(line);
        sizes.push(line.len());
    }
    // zstd fails if there are too few samples. The frames then have no dictionary.
    Ok(zstd::dict::from_continuous(&samples, &sizes, DICTIONARY_BYTES).unwrap_or_default())
}

/// A pool of decompressors, which turn frames back into lines. It grows to the number of concurrent
/// readers; each decompressor takes about 300 KiB.
pub(crate) struct Decompressors {
    dictionary: OwnedBytes,
    spare: Mutex<Vec<Decompressor<'static>>>,
}

impl fmt::Debug for Decompressors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Decompressors").finish_non_exhaustive()
    }
}

impl Decompressors {
    pub(crate) fn new(dictionary: OwnedBytes) -> Self {
        Self { dictionary, spare: Mutex::default() }
    }

    /// Returns the line in a frame. The error describes the fault of the frame.
    pub(crate) fn line(&self, frame: &[u8]) -> Result<Vec<u8>, String> {
        let size = match get_frame_content_size(frame) {
            Ok(Some(size)) if size <= FRAME_LIMIT_BYTES => size as usize,
            Ok(Some(size)) => {
                return Err(format!(
                    "a line of {size} bytes, expected at most {FRAME_LIMIT_BYTES}"
                ));
            }
            Ok(None) | Err(_) => return Err("not a zstd frame that states its size".to_owned()),
        };
        let spare = self.spare().pop();
        let mut decompressor = match spare {
            Some(decompressor) => decompressor,
            None => Decompressor::with_dictionary(&self.dictionary)
                .map_err(|error| error.to_string())?,
        };
        let line = decompressor.decompress(frame, size).map_err(|error| error.to_string());
        self.spare().push(decompressor);
        line
    }

    fn spare(&self) -> std::sync::MutexGuard<'_, Vec<Decompressor<'static>>> {
        // A push or a pop either happens or not, so a panic cannot damage the list.
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
