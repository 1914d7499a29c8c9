//! The best of many scored rows.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::query::Hit;

/// A hit with an order: the better hit is greater.
#[derive(Clone, Copy, Debug)]
pub(super) struct RankedHit(pub(super) Hit);

impl Ord for RankedHit {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.score.total_cmp(&other.0.score).then(other.0.row.cmp(&self.0.row))
    }
}

impl PartialOrd for RankedHit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for RankedHit {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for RankedHit {}

/// A heap of at most `capacity` hits, with the worst on top.
#[derive(Clone, Debug)]
pub(super) struct BestHits {
    heap: BinaryHeap<Reverse<RankedHit>>,
    capacity: usize,
}

impl BestHits {
    pub(super) fn new(capacity: usize) -> Self {
        Self { heap: BinaryHeap::new(), capacity }
    }

    /// Returns the threshold for later rows: a row with a score at or below it, and a higher number
    /// than all rows offered before, is not among the best.
    pub(super) fn threshold(&self) -> f32 {
        if self.capacity == 0 {
            return f32::INFINITY;
        }
        match self.heap.peek() {
            Some(Reverse(worst)) if self.heap.len() == self.capacity => worst.0.score,
            _ => f32::NEG_INFINITY,
        }
    }

    /// Inserts the hit if it is among the best. A hit whose score is not finite never is.
    pub(super) fn offer(&mut self, hit: Hit) {
        if !hit.score.is_finite() {
            return;
        }
        // -0 becomes 0, because their order would differ.
        let hit = RankedHit(Hit { score: hit.score + 0.0, ..hit });
        if self.heap.len() < self.capacity {
            self.heap.push(Reverse(hit));
        } else if let Some(mut worst) = self.heap.peek_mut()
            && hit > worst.0
        {
            *worst = Reverse(hit);
        }
    }

    /// Offers all hits of `other`.
    pub(super) fn absorb(&mut self, other: Self) {
        for Reverse(RankedHit(hit)) in other.heap {
            self.offer(hit);
        }
    }

    /// Returns the hits, best first.
    pub(super) fn into_sorted(self) -> Vec<Hit> {
        self.heap.into_sorted_vec().into_iter().map(|Reverse(RankedHit(hit))| hit).collect()
    }
}
