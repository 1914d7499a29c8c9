//! Compressed passages: each line is a zstd frame of its own (RFC 8878) with a checksum, made with a
//! dictionary that was trained on some of the passages, so that a row is still found and read by
//! itself.

use std::fmt;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use shared::jsonl::LINE_LIMIT_BYTES;
use tantivy::directory::OwnedBytes;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, get_frame_content_size};

use super::store::{OFFSETS_FILE, PASSAGES_FILE, PassageStore, StoreError};

/// The frames, one after the other.
pub const COMPACT_FILE: &str = "passages.zst";
/// The dictionary of all frames, empty if there were too few passages to train one.
pub const DICTIONARY_FILE: &str = "passages.dictionary";

/// zstd's default level.
const LEVEL: i32 = 3;
/// zstd's own tool makes dictionaries of this size.
pub(crate) const DICTIONARY_BYTES: usize = 110 * 1024;
/// A dictionary is trained on about a hundred times its size, as zstd's documentation advises.
const SAMPLE_BYTES: usize = 100 * DICTIONARY_BYTES;
/// Longest line that a frame may hold: one that was read, with every character escaped.
const FRAME_LIMIT_BYTES: u64 = 8 * LINE_LIMIT_BYTES as u64;

/// Compresses the passages in `folder`, which loses its JSON lines.
pub fn compress(folder: &Path) -> Result<(), StoreError> {
    let store = PassageStore::open(folder)?;
    let dictionary = train(&store)?;
    fs::write(folder.join(DICTIONARY_FILE), &dictionary)?;
    let mut compressor = Compressor::with_dictionary(LEVEL, &dictionary)?;
    compressor.set_parameter(CParameter::ChecksumFlag(true))?;
    let mut frames = BufWriter::with_capacity(1 << 18, File::create(folder.join(COMPACT_FILE))?);
    // The old offsets stay mapped until all lines are read.
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

/// Compares every compressed line with the one that it was made of. The first that differs is named
/// by its place in the compressed file.
pub(crate) fn compare(lines: &PassageStore, frames: &PassageStore) -> Result<(), StoreError> {
    for row in 0..lines.len() as u32 {
        let (place, line) = frames.line(row)?;
        if *line != *lines.line(row)?.1 {
            let reason = format!("row {row} is not the line that was compressed");
            return Err(StoreError::Corrupt { file: COMPACT_FILE, offset: place, reason });
        }
    }
    Ok(())
}

/// A dictionary from lines at equal distances; empty if there are too few to train one.
fn train(store: &PassageStore) -> Result<Vec<u8>, StoreError> {
    let rows = store.len();
    let (mut samples, mut sizes) = (Vec::new(), Vec::new());
    let bytes = (0..rows as u32).step_by(rows.div_ceil(1000).max(1));
    let mut average = 1;
    for row in bytes.clone() {
        average += store.stored(row)?.1.len() / bytes.len();
    }
    let wanted = (SAMPLE_BYTES / average).clamp(1, rows.max(1));
    for row in (0..rows as u32).step_by(rows.div_ceil(wanted).max(1)) {
        let line = store.stored(row)?.1;
        if samples.len() + line.len() > 2 * SAMPLE_BYTES {
            break;
        }
        samples.extend_from_slice(line);
        sizes.push(line.len());
    }
    // zstd refuses what is too little to learn from; frames do without a dictionary then.
    Ok(zstd::dict::from_continuous(&samples, &sizes, DICTIONARY_BYTES).unwrap_or_default())
}

/// Makes lines of frames. Each thread that reads takes a decompressor, of which there are as many
/// as threads have read at once, each of about 300 KiB.
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

    /// The line in a frame, or what is wrong with the frame.
    pub(crate) fn line(&self, frame: &[u8]) -> Result<Vec<u8>, String> {
        let size = match get_frame_content_size(frame) {
            Ok(Some(size)) if size <= FRAME_LIMIT_BYTES => size as usize,
            Ok(Some(size)) => return Err(format!("a line of {size} bytes")),
            Ok(None) | Err(_) => return Err("no zstd frame with its size".to_owned()),
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
        // Taking one out and putting one in cannot leave the list half done.
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
