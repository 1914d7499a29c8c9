//! Which rows a search has seen. One bit a row, kept from search to search: clearing costs only
//! what was set.

const WORD_BITS: usize = u64::BITS as usize;

/// A set of rows.
#[derive(Debug, Default)]
pub(super) struct Visited {
    words: Vec<u64>,
    seen: Vec<u32>,
    count: usize,
}

impl Visited {
    /// For rows below `count`.
    pub(super) fn new(count: usize) -> Self {
        Self { words: vec![0; count.div_ceil(WORD_BITS)], seen: Vec::new(), count }
    }

    /// Whether `row` was new. A row beyond the last never is.
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
