//! Writes the file of [`super::bounds`] once the postings are complete.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use tantivy::index::InvertedIndexReader;
use tantivy::postings::{BlockSegmentPostings, TermInfo};
use tantivy::schema::IndexRecordOption;

use super::LexicalError;
use super::bounds::{BOUNDS_FILE, MAGIC, NO_RANGES, PEAK_BYTES, TERM_BYTES};
use super::maxscore::BLOCK_LENGTH;
use super::ranges::{ABSENT, LengthClasses, RANGE_LENGTH, join, range_count};

/// A term has ranges if at least one in this many documents contains it. Rarer terms are absent from
/// most ranges, and their postings take less space than ranges would.
const RANGES_FROM_SHARE: u32 = 64;

/// Writes the bounds of all terms to the folder of their postings.
pub(super) fn write(
    folder: &Path,
    postings: &InvertedIndexReader,
    length_ids: &[u8],
) -> Result<(), LexicalError> {
    let file = BufWriter::new(File::create(folder.join(BOUNDS_FILE))?);
    let mut bounds = BoundsWriter::new(file, length_ids);
    let mut terms = postings.terms().stream()?;
    while terms.advance() {
        let info = terms.value();
        if info.doc_freq as usize > BLOCK_LENGTH {
            let blocks =
                postings.read_block_postings_from_terminfo(info, IndexRecordOption::WithFreqs)?;
            bounds.add(info, blocks)?;
        }
    }
    Ok(bounds.finish()?)
}

/// The file as far as it is written, and the sections that follow the ranges.
struct BoundsWriter<'a> {
    file: BufWriter<File>,
    length_ids: &'a [u8],
    classes: LengthClasses,
    /// The codes of the current term, one per range.
    codes: Vec<u8>,
    with_ranges: u32,
    terms: Vec<u8>,
    peaks: Vec<u8>,
}

impl<'a> BoundsWriter<'a> {
    fn new(file: BufWriter<File>, length_ids: &'a [u8]) -> Self {
        Self {
            file,
            length_ids,
            classes: LengthClasses::new(length_ids),
            codes: vec![ABSENT; range_count(length_ids.len())],
            with_ranges: 0,
            terms: Vec::new(),
            peaks: Vec::new(),
        }
    }

    fn add(&mut self, info: &TermInfo, mut blocks: BlockSegmentPostings) -> io::Result<()> {
        let is_frequent = info.doc_freq >= self.length_ids.len() as u32 / RANGES_FROM_SHARE;
        self.codes.fill(ABSENT);
        // The highest frequency for each length.
        let mut highest = [0u32; 256];
        while !blocks.docs().is_empty() {
            for (&document, &frequency) in blocks.docs().iter().zip(blocks.freqs()) {
                let length_id = self.length_ids[document as usize];
                let best = &mut highest[usize::from(length_id)];
                *best = frequency.max(*best);
                if is_frequent {
                    let code = &mut self.codes[document as usize / RANGE_LENGTH];
                    *code = join(*code, self.classes.code(frequency, length_id));
                }
            }
            blocks.advance();
        }
        let mut index_of_ranges = NO_RANGES;
        if is_frequent {
            index_of_ranges = self.with_ranges;
            self.with_ranges += 1;
            self.file.write_all(&self.codes)?;
        }
        self.terms.extend((info.postings_range.start as u64).to_le_bytes());
        self.terms.extend(((self.peaks.len() / PEAK_BYTES) as u32).to_le_bytes());
        self.terms.extend(index_of_ranges.to_le_bytes());
        let mut above = 0;
        for (length_id, &frequency) in highest.iter().enumerate() {
            // A longer document can be a peak only if it has the term more often than all shorter ones.
            if frequency > above {
                above = frequency;
                let packed = frequency.min(u32::MAX >> 8) << 8 | length_id as u32;
                self.peaks.extend(packed.to_le_bytes());
            }
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        self.file.write_all(&self.terms)?;
        self.file.write_all(&self.peaks)?;
        self.file.write_all(&self.classes.0)?;
        let documents = self.length_ids.len() as u32;
        let terms = (self.terms.len() / TERM_BYTES) as u32;
        let peaks = (self.peaks.len() / PEAK_BYTES) as u32;
        for number in [documents, self.with_ranges, terms, peaks] {
            self.file.write_all(&number.to_le_bytes())?;
        }
        self.file.write_all(&MAGIC)?;
        self.file.flush()
    }
}
