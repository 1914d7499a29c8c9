//! The file of bounds, which `bounds_writer` puts next to tantivy's postings. Every term with more
//! than one block of postings has its peaks: a few pairs of frequency and length, one of which gives
//! the term's highest contribution. Frequent terms also have a byte for every range of documents
//! ([`super::ranges`]). Neither depends on the BM25 constants, which may change at every start.
//!
//! All numbers are little-endian.
//!
//! ```text
//! ranges   one byte per range, term by term
//! terms    u64 start of the term's postings in tantivy's file, ascending; u32 index of its first
//!          peak; u32 its index among the terms with ranges, or all bits set
//! peaks    u32: frequency in the upper 24 bits, length in the lower 8
//! footer   the shortest length of each class, u32 passages, u32 terms with ranges, u32 terms,
//!          u32 peaks, 8 bytes of magic
//! ```

use std::path::Path;

use tantivy::directory::OwnedBytes;
use tantivy::postings::TermInfo;

use super::LexicalError;
use super::ranges::{LENGTH_CLASSES, LengthClasses, Peak, range_count};
use crate::processor::mapped;

/// The name of the file in the folder of the postings.
pub(crate) const BOUNDS_FILE: &str = "bounds";

pub(super) const MAGIC: [u8; 8] = *b"bm25bnd1";
pub(super) const FOOTER_BYTES: usize = LENGTH_CLASSES + 4 * 4 + MAGIC.len();
pub(super) const TERM_BYTES: usize = 16;
pub(super) const PEAK_BYTES: usize = 4;
pub(super) const NO_RANGES: u32 = u32::MAX;

/// The open file of bounds.
pub(crate) struct BoundsFile {
    terms: OwnedBytes,
    peaks: OwnedBytes,
    ranges: OwnedBytes,
    range_count: usize,
    classes: LengthClasses,
}

/// The bounds of one term.
#[derive(Default)]
pub(crate) struct TermBounds<'a> {
    /// The peaks of all its documents; empty if unknown.
    pub(crate) peaks: Vec<Peak>,
    /// A code for every range; empty if unknown.
    pub(crate) ranges: &'a [u8],
}

impl BoundsFile {
    /// Maps the file in `folder` into memory; returns `None` if it is missing, which is so for
    /// indexes of early versions.
    pub(crate) fn open(folder: &Path, documents: u32) -> Result<Option<Self>, LexicalError> {
        let path = folder.join(BOUNDS_FILE);
        if !path.try_exists()? {
            return Ok(None);
        }
        Self::from_bytes(mapped::map(&path)?, documents).map(Some).map_err(|reason| {
            LexicalError::Malformed(format!("{BOUNDS_FILE} is corrupt: {reason}"))
        })
    }

    fn from_bytes(bytes: OwnedBytes, documents: u32) -> Result<Self, String> {
        let length = bytes.len();
        let body =
            length.checked_sub(FOOTER_BYTES).ok_or_else(|| format!("{length} bytes long"))?;
        let (body, footer) = bytes.split(body);
        let (shortest, numbers) = footer.split_at(LENGTH_CLASSES);
        let [counted, with_ranges, terms, peaks] = [0, 1, 2, 3].map(|index| u32_at(numbers, index));
        if !footer.ends_with(&MAGIC) || counted != documents {
            return Err(format!("not the bounds of {documents} passages"));
        }
        let classes = LengthClasses(std::array::from_fn(|class| shortest[class]));
        let range_count = range_count(documents as usize);
        let (terms, peaks) = (terms as usize * TERM_BYTES, peaks as usize * PEAK_BYTES);
        let ranges = with_ranges as usize * range_count;
        if body.len() != ranges + terms + peaks || classes.0[0] != 0 || !classes.0.is_sorted() {
            let expected = ranges + terms + peaks + FOOTER_BYTES;
            return Err(format!("{length} bytes long, expected {expected}"));
        }
        let (ranges, rest) = body.split(ranges);
        let (terms, peaks) = rest.split(terms);
        Ok(Self { terms, peaks, ranges, range_count, classes })
    }

    /// Returns the classes of lengths in the codes of ranges.
    pub(crate) fn classes(&self) -> LengthClasses {
        self.classes
    }

    /// Returns the bounds of a term, as far as the file has them.
    pub(crate) fn term(&self, info: &TermInfo) -> TermBounds<'_> {
        let terms = self.terms.as_chunks::<TERM_BYTES>().0;
        let key = info.postings_range.start as u64;
        let start =
            |term: &[u8; TERM_BYTES]| u64::from(u32_at(term, 1)) << 32 | u64::from(u32_at(term, 0));
        let Ok(index) = terms.binary_search_by_key(&key, start) else {
            return TermBounds::default();
        };
        let peaks = self.peaks.as_chunks::<PEAK_BYTES>().0;
        let first = u32_at(&terms[index], 2) as usize;
        let end = terms.get(index + 1).map_or(peaks.len(), |next| u32_at(next, 2) as usize);
        let peak = |bytes: &[u8; PEAK_BYTES]| {
            let packed = u32::from_le_bytes(*bytes);
            Peak { frequency: packed >> 8, length_id: packed as u8 }
        };
        // `NO_RANGES` leads behind the end of all ranges, and so to none.
        let with_ranges = u32_at(&terms[index], 3) as usize;
        let ranges = with_ranges.saturating_mul(self.range_count);
        let ranges = ranges..ranges.saturating_add(self.range_count);
        TermBounds {
            peaks: peaks.get(first..end).unwrap_or_default().iter().map(peak).collect(),
            ranges: self.ranges.get(ranges).unwrap_or_default(),
        }
    }
}

/// Returns the number at `index`, which must be within `bytes`.
fn u32_at(bytes: &[u8], index: usize) -> u32 {
    u32::from_le_bytes(bytes.as_chunks::<4>().0[index])
}

#[cfg(test)]
mod tests;
