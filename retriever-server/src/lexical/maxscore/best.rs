//! The best passages so far in a search.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A passage and its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoredRow {
    /// The row of the passage in the corpus.
    pub row: u32,
    /// The BM25 score, always finite.
    pub score: f32,
}

/// A passage's sum and row, ordered so that the better passage is the greater value: a higher sum is
/// better, and of equal sums the one with the lower row.
type RankedSum = (u32, Reverse<u32>);

/// The best passages so far, with the worst of them on top of the heap.
pub(super) struct BestRows {
    heap: BinaryHeap<Reverse<RankedSum>>,
    k: usize,
    threshold: u32,
}

impl BestRows {
    pub(super) fn new(k: usize) -> Self {
        Self::from_threshold(k, 0)
    }

    /// Starts with a sum that at least `k` passages are known to reach.
    pub(super) fn from_threshold(k: usize, threshold: u32) -> Self {
        Self { heap: BinaryHeap::new(), k, threshold }
    }

    /// Returns the lowest sum with which a passage can still enter.
    #[inline]
    pub(super) fn threshold(&self) -> u32 {
        self.threshold
    }

    /// Adds the passage if it is good enough. `row` is called only if the sum is.
    pub(super) fn offer(&mut self, sum: u32, row: impl FnOnce() -> u32) {
        if sum < self.threshold {
            return;
        }
        let candidate = (sum, Reverse(row()));
        if self.heap.len() < self.k {
            self.heap.push(Reverse(candidate));
        } else if let Some(mut worst) = self.heap.peek_mut()
            && candidate > worst.0
        {
            *worst = Reverse(candidate);
        }
        if self.heap.len() == self.k {
            let Reverse((worst, _)) =
                self.heap.peek().expect("k is at least 1, so it is not empty");
            self.threshold = self.threshold.max(*worst);
        }
    }

    /// Returns the passages, best first; `score` converts a sum to a score.
    pub(super) fn into_sorted(self, score: impl Fn(u32) -> f32) -> Vec<ScoredRow> {
        let sorted = self.heap.into_sorted_vec().into_iter();
        sorted.map(|Reverse((sum, Reverse(row)))| ScoredRow { row, score: score(sum) }).collect()
    }
}
