//! Which rows a search has seen. One bit a row, kept from search to search: clearing costs only
//! what was set.

use std::sync::{Mutex, PoisonError};

const WORD_BITS: usize = u64::BITS as usize;

/// A set of rows.
#[derive(Debug, Default)]
pub(super) struct Visited {
    words: Vec<u64>,
    seen: Vec<u32>,
}

impl Visited {
    /// Whether `row` was new. A row beyond the last never is.
    pub(super) fn insert(&mut self, row: u32) -> bool {
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

    fn clear(&mut self) {
        for row in self.seen.drain(..) {
            self.words[row as usize / WORD_BITS] = 0;
        }
    }
}

/// Empty sets for rows below `count`, as many as there were searches at once.
#[derive(Debug)]
pub(super) struct VisitedSets {
    idle: Mutex<Vec<Visited>>,
    count: usize,
}

impl VisitedSets {
    pub(super) fn new(count: usize) -> Self {
        Self { idle: Mutex::default(), count }
    }

    /// Lends an empty set to `search`.
    pub(super) fn lend<T>(&self, search: impl FnOnce(&mut Visited) -> T) -> T {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut visited = idle.unwrap_or_else(|| Visited {
            words: vec![0; self.count.div_ceil(WORD_BITS)],
            seen: Vec::new(),
        });
        let found = search(&mut visited);
        visited.clear();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(visited);
        found
    }
}
