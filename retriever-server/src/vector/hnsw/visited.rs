//! The set of rows that a search has seen. It has one bit for each row and is reused by the next search:
//! clearing it resets only the bits that were set.

const WORD_BITS: usize = u64::BITS as usize;

/// A set of rows.
#[derive(Debug, Default)]
pub(super) struct Visited {
    words: Vec<u64>,
    seen: Vec<u32>,
    count: usize,
}

impl Visited {
    /// Makes an empty set for rows below `count`.
    pub(super) fn new(count: usize) -> Self {
        Self { words: vec![0; count.div_ceil(WORD_BITS)], seen: Vec::new(), count }
    }

    /// Inserts `row`. Returns `true` if it was new; a row of `count` or more never is.
    pub(super) fn insert(&mut self, row: u32) -> bool {
        if row as usize >= self.count {
            return false;
        }
        let bit = 1 << (row as usize % WORD_BITS);
        match self.words.get_mut(row as usize / WORD_BITS) {
            Some(word) if *word & bit == 0 => {
                *word |= bit;
                self.seen.push(row);
                true
            }
            _ => false,
        }
    }

    pub(super) fn clear(&mut self) {
        for row in self.seen.drain(..) {
            self.words[row as usize / WORD_BITS] = 0;
        }
    }
}
