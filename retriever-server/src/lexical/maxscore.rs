//! The best k passages for a weighted set of terms, by MaxScore: terms whose bounds together
//! cannot lift a passage into the best k are looked up only for passages that other terms found.
//! Reference: H. Turtle and J. Flood, "Query evaluation: strategies and optimizations",
//! Information Processing & Management 31(6), 1995.
//!
//! The result equals that of scoring every passage, ties included: scores are summed in one order
//! whatever was pruned, bounds carry a margin for rounding, and equal scores go to the lower row.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::lexical::bm25::LengthNorms;

/// A cursor's document once its list has ended. Equals tantivy's `TERMINATED`.
pub const END: u32 = i32::MAX as u32;

/// Rounding a sum to single precision moves it by at most 2⁻²⁴ of itself, so that a bound is
/// compared with this margin.
const MARGIN: f64 = 1.0 + 1e-7;

/// Passages that are scored between two looks at the clock.
const PASSAGES_PER_CHECK: u32 = 1024;

/// A position in the sorted list of documents that hold a term.
pub trait PostingCursor {
    /// The current document, or [`END`].
    fn document(&self) -> u32;
    /// How often the term occurs in the current document.
    fn frequency(&self) -> u32;
    /// Goes to the next document. Must not be called at [`END`].
    fn advance(&mut self);
    /// Goes to the first document at or after `target`; never backwards.
    fn seek(&mut self, target: u32);
}

/// A term of the query with its posting list.
#[derive(Debug)]
pub struct WeightedTerm<C> {
    /// Upper bound of what the term adds: its idf times its count in the query.
    pub weight: f32,
    /// Its documents.
    pub cursor: C,
}

/// What scoring must know of a document.
pub trait Documents {
    /// The length of a document, as one byte.
    fn length_id(&self, document: u32) -> u8;
    /// The row of the passage that a document stands for.
    fn row(&self, document: u32) -> u32;
}

/// A passage with its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoredRow {
    /// Row of the passage in the corpus.
    pub row: u32,
    /// BM25 score, finite.
    pub score: f32,
}

impl Eq for ScoredRow {}

impl Ord for ScoredRow {
    /// Better is greater.
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.row.cmp(&self.row))
    }
}

impl PartialOrd for ScoredRow {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The search was given up because `stop` said so.
#[derive(Debug, PartialEq, Eq)]
pub struct Stopped;

/// The best `k` passages, best first. `stop` is asked from time to time whether to give up.
pub fn best<C: PostingCursor>(
    mut terms: Vec<WeightedTerm<C>>,
    norms: &LengthNorms,
    documents: &impl Documents,
    k: usize,
    stop: &dyn Fn() -> bool,
) -> Result<Vec<ScoredRow>, Stopped> {
    if k == 0 {
        return Ok(Vec::new());
    }
    // Stable, so that terms of equal weight keep the caller's order and sums are reproducible.
    terms.sort_by(|one, other| one.weight.total_cmp(&other.weight));
    let bounds = prefix_sums(&terms);
    let mut contributions = vec![0f32; terms.len()];
    let mut found = Best::new(k);
    // Terms before this position cannot together beat the worst passage found.
    let mut essential = 0;
    let mut scored: u32 = 0;
    while let Some(document) = next_document(&terms[essential..]) {
        if scored.is_multiple_of(PASSAGES_PER_CHECK) && stop() {
            return Err(Stopped);
        }
        scored = scored.wrapping_add(1);
        let length_id = documents.length_id(document);
        contributions.fill(0.0);
        let mut sum = 0f64;
        for (term, contribution) in
            terms[essential..].iter_mut().zip(&mut contributions[essential..])
        {
            if term.cursor.document() == document {
                *contribution = norms.contribution(term.weight, term.cursor.frequency(), length_id);
                sum += f64::from(*contribution);
                term.cursor.advance();
            }
        }
        let mut hopeless = false;
        for position in (0..essential).rev() {
            if found.is_out_of_reach(sum + bounds[position]) {
                hopeless = true;
                break;
            }
            let term = &mut terms[position];
            term.cursor.seek(document);
            if term.cursor.document() == document {
                let contribution =
                    norms.contribution(term.weight, term.cursor.frequency(), length_id);
                contributions[position] = contribution;
                sum += f64::from(contribution);
            }
        }
        if hopeless {
            continue;
        }
        let score = contributions.iter().map(|&part| f64::from(part)).sum::<f64>() as f32;
        found.offer(score, || documents.row(document));
        while essential < terms.len() && found.is_out_of_reach(bounds[essential]) {
            essential += 1;
        }
    }
    Ok(found.into_sorted())
}

/// `bounds[i]` is the most that terms 0 to i add together.
fn prefix_sums<C>(terms: &[WeightedTerm<C>]) -> Vec<f64> {
    terms
        .iter()
        .scan(0f64, |sum, term| {
            *sum += f64::from(term.weight);
            Some(*sum)
        })
        .collect()
}

fn next_document<C: PostingCursor>(terms: &[WeightedTerm<C>]) -> Option<u32> {
    terms.iter().map(|term| term.cursor.document()).min().filter(|&document| document != END)
}

/// The best passages so far, worst on top.
struct Best {
    heap: BinaryHeap<Reverse<ScoredRow>>,
    k: usize,
}

impl Best {
    fn new(k: usize) -> Self {
        Self { heap: BinaryHeap::new(), k }
    }

    /// Whether no passage with at most this sum can enter.
    fn is_out_of_reach(&self, bound: f64) -> bool {
        self.heap.len() == self.k
            && self.heap.peek().is_some_and(|worst| bound * MARGIN < f64::from(worst.0.score))
    }

    /// Takes the passage in if it is good enough; its row is looked up only then.
    fn offer(&mut self, score: f32, row: impl FnOnce() -> u32) {
        if self.heap.len() < self.k {
            self.heap.push(Reverse(ScoredRow { row: row(), score }));
            return;
        }
        if let Some(mut worst) = self.heap.peek_mut()
            && score >= worst.0.score
        {
            let candidate = ScoredRow { row: row(), score };
            if candidate > worst.0 {
                *worst = Reverse(candidate);
            }
        }
    }

    fn into_sorted(self) -> Vec<ScoredRow> {
        self.heap.into_sorted_vec().into_iter().map(|Reverse(scored)| scored).collect()
    }
}

#[cfg(test)]
mod tests;
