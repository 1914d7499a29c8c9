//! The best passages that a search has found so far.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A passage with its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoredRow {
    /// Row of the passage in the corpus.
    pub row: u32,
    /// BM25 score, finite.
    pub score: f32,
}

/// The sum of a passage, then its row, of which the lower is better: the better is the greater.
type Ranked = (u32, Reverse<u32>);

/// The best passages so far, worst on top.
pub(super) struct Best {
    heap: BinaryHeap<Reverse<Ranked>>,
    k: usize,
    threshold: u32,
}

impl Best {
    pub(super) fn new(k: usize) -> Self {
        Self::from_threshold(k, 0)
    }

    /// With a sum that `k` passages are known to reach.
    pub(super) fn from_threshold(k: usize, threshold: u32) -> Self {
        Self { heap: BinaryHeap::new(), k, threshold }
    }

    /// A passage with a lower sum than this cannot enter.
    #[inline]
    pub(super) fn threshold(&self) -> u32 {
        self.threshold
    }

    /// Takes the passage in if it is good enough; its row is looked up only then.
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
            let worst = self.heap.peek().map_or(0, |worst| worst.0.0);
            self.threshold = worst.max(self.threshold);
        }
    }

    /// Best first.
    pub(super) fn into_sorted(self, score: impl Fn(u32) -> f32) -> Vec<ScoredRow> {
        let sorted = self.heap.into_sorted_vec().into_iter();
        sorted.map(|Reverse((sum, Reverse(row)))| ScoredRow { row, score: score(sum) }).collect()
    }
}
