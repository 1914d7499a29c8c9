//! The best k passages for a weighted set of terms, found by MaxScore over windows of documents.
//!
//! Terms are essential or optional. The optional terms together cannot lift a passage into the best
//! k. The search adds up the postings of the essential terms in an array, one window at a time. A
//! passage is hopeful if its sum, plus the most that the optional terms can add in its range, reaches
//! the threshold. Only for hopeful passages does the search look up the optional terms.
//!
//! References: H. Turtle and J. Flood, "Query evaluation: strategies and optimizations",
//! Information Processing & Management 31(6), 1995; T. Strohman, H. Turtle and W. B. Croft,
//! "Optimization strategies for complex queries", SIGIR 2005, for bounds taken from the lists.
//!
//! The result equals that of scoring every passage, including ties. Contributions are first rounded
//! to whole units (`units.rs`), so a sum does not depend on its order and a bound needs no margin.
//! If sums are equal, the passage with the lower row comes first.

mod best;
mod sums;
mod units;

use super::bm25::LengthNorms;
use super::ranges::{LengthClasses, Peak, RANGE_LENGTH};
use best::BestRows;
pub use best::ScoredRow;
use sums::{Sums, WINDOW};
use units::Units;

/// The document of a cursor after the end of its list. Equal to tantivy's `TERMINATED`.
const END: u32 = i32::MAX as u32;

/// The most postings in a block.
pub const BLOCK_LENGTH: usize = 128;

/// The length of the first window, which has no threshold yet. Each window is twice as long as the
/// previous one, up to [`WINDOW`].
const FIRST_WINDOW: u32 = 128;

/// The terms of the first pass have together at most one posting per this many documents.
const FIRST_PASS_SHARE: usize = 1024;

/// The number of postings to score, rounded up to whole windows, between two calls of `stop`.
const POSTINGS_PER_CHECK: usize = 1 << 16;

/// The posting list of a term, in blocks of at most [`BLOCK_LENGTH`] documents.
pub trait PostingBlocks: Clone {
    /// Returns the documents of the current block in ascending order; empty after the end of the list.
    fn documents(&self) -> &[u32];
    /// Returns the term's frequency in each document of the current block.
    fn frequencies(&self) -> &[u32];
    /// Moves to the next block.
    fn advance(&mut self);
    /// Moves forward to the block with the first document at or after `target`, and returns the
    /// position of that document in it. At the end of the list, the position is behind the last one.
    fn seek(&mut self, target: u32) -> usize;
}

/// A term of the query together with its posting list.
#[derive(Debug)]
pub struct WeightedTerm<'a, B> {
    /// The term's idf times its count in the query.
    pub weight: f32,
    /// The number of documents that contain it.
    pub document_frequency: u32,
    /// Frequencies and lengths, one of which gives the term's highest contribution; empty if unknown.
    pub peaks: Vec<Peak>,
    /// A code of [`super::ranges`] for every range of documents; empty if unknown.
    pub ranges: &'a [u8],
    /// Its posting list.
    pub blocks: B,
}

/// The facts about documents that scoring needs.
pub trait Documents {
    /// Returns the length of each document, encoded in one byte.
    fn length_ids(&self) -> &[u8];
    /// Returns the row of the passage behind a document.
    fn row(&self, document: u32) -> u32;
    /// Returns the classes of lengths in the codes of ranges.
    fn classes(&self) -> LengthClasses;
}

/// The search was cancelled by `stop`.
#[derive(Debug, PartialEq, Eq)]
pub struct Stopped;

/// Returns the best `k` passages, best first. The search calls `stop` from time to time and cancels
/// itself when it returns `true`.
pub fn best<B: PostingBlocks>(
    terms: Vec<WeightedTerm<'_, B>>,
    norms: &LengthNorms,
    documents: &impl Documents,
    k: usize,
    stop: &dyn Fn() -> bool,
) -> Result<Vec<ScoredRow>, Stopped> {
    if k == 0 {
        return Ok(Vec::new());
    }
    let units = Units::new(norms, terms.iter().map(|term| term.weight));
    let mut terms = cursors(terms, &units, documents.classes());
    terms.sort_by_key(|term| term.bound);
    let rarest = rarest(&terms, documents.length_ids().len());
    let mut search = WindowSearch {
        terms: Vec::new(),
        bounds: Vec::new(),
        essential: 0,
        units: &units,
        documents,
        best: BestRows::new(k),
        sums: Sums::take(),
        hopeful: Vec::new(),
    };
    // The first pass finds a threshold by the rarest terms, so the second can skip most postings.
    search.run(rarest, stop)?;
    let threshold = search.best.threshold();
    search.best = BestRows::from_threshold(k, threshold);
    search.run(terms, stop)?;
    search.sums.give_back();
    Ok(search.best.into_sorted(|sum| units.score(sum)))
}

/// Places a cursor at the start of each term's list and computes the term's bounds in units.
fn cursors<'a, B>(
    terms: Vec<WeightedTerm<'a, B>>,
    units: &Units<'_>,
    classes: LengthClasses,
) -> Vec<TermCursor<'a, B>> {
    let cursor = |WeightedTerm { weight, document_frequency, peaks, ranges, blocks }| {
        let bound = units.bound(weight, &peaks);
        let range_bounds = match ranges {
            [] => Vec::new(),
            _ => units.range_bounds(weight, bound, &classes),
        };
        TermCursor { blocks, position: 0, weight, document_frequency, bound, ranges, range_bounds }
    };
    terms.into_iter().map(cursor).collect()
}

/// Copies the terms with the highest bounds, as long as they have few postings together. A passage
/// gets at most its score from these terms alone, so their threshold also holds for all terms.
fn rarest<'a, B: PostingBlocks>(
    terms: &[TermCursor<'a, B>],
    documents: usize,
) -> Vec<TermCursor<'a, B>> {
    let mut budget = (documents / FIRST_PASS_SHARE) as u32;
    let affordable = |term: &&TermCursor<'a, B>| {
        let rest = budget.checked_sub(term.document_frequency);
        budget = rest.unwrap_or(budget);
        rest.is_some()
    };
    let mut rarest: Vec<_> = terms.iter().rev().take_while(affordable).cloned().collect();
    rarest.reverse();
    rarest
}

/// A running search.
struct WindowSearch<'a, B, D> {
    /// The terms, in ascending order of their bounds.
    terms: Vec<TermCursor<'a, B>>,
    /// For each term, the most that it and all terms before it can add together.
    bounds: Vec<u32>,
    /// The index of the first essential term. The terms before it are optional.
    essential: usize,
    units: &'a Units<'a>,
    documents: &'a D,
    best: BestRows,
    sums: Sums,
    /// The hopeful documents of the window, with their sums over the essential terms.
    hopeful: Vec<(u32, u32)>,
}

/// A position in the posting list of a term.
#[derive(Clone)]
struct TermCursor<'a, B> {
    blocks: B,
    position: usize,
    weight: f32,
    document_frequency: u32,
    bound: u32,
    ranges: &'a [u8],
    /// The most that the term can add to a document of a range, by the code of the range.
    range_bounds: Vec<u32>,
}

impl<'a, B: PostingBlocks, D: Documents> WindowSearch<'a, B, D> {
    /// Scores all documents that may be among the best. `terms` are in ascending order of their bounds.
    fn run(
        &mut self,
        terms: Vec<TermCursor<'a, B>>,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), Stopped> {
        let mut sum = 0;
        let bounds = terms.iter().map(|term| {
            sum += term.bound;
            sum
        });
        self.bounds = bounds.collect();
        self.terms = terms;
        self.essential = 0;
        self.drop_hopeless();
        let mut window = FIRST_WINDOW;
        let mut unchecked = POSTINGS_PER_CHECK;
        while let Some(start) = self.next_document() {
            if unchecked >= POSTINGS_PER_CHECK {
                if stop() {
                    return Err(Stopped);
                }
                unchecked = 0;
            }
            unchecked += self.score_window(start, start.saturating_add(window).min(END));
            window = (2 * window).min(WINDOW as u32);
        }
        Ok(())
    }

    /// Makes terms optional, lowest bound first, while all optional terms together stay below the
    /// threshold.
    fn drop_hopeless(&mut self) {
        let threshold = self.best.threshold();
        while self.essential < self.terms.len() && self.bounds[self.essential] < threshold {
            self.essential += 1;
        }
    }

    /// Returns the first document that is not scored yet and contains an essential term.
    fn next_document(&self) -> Option<u32> {
        let documents = self.terms[self.essential..].iter().map(TermCursor::document);
        documents.min().filter(|&document| document != END)
    }

    /// Scores the documents from `start` up to, but not including, `end`, and returns the number of
    /// postings of essential terms among them.
    fn score_window(&mut self, start: u32, end: u32) -> usize {
        let (optional, essential) = self.terms.split_at_mut(self.essential);
        let most = self.essential.checked_sub(1).map_or(0, |last| self.bounds[last]);
        let threshold = self.best.threshold();
        let needed = threshold.saturating_sub(most);
        let hopeful = &mut self.hopeful;
        // The bound of all optional terms is one comparison; that of the document's range needs a
        // look-up per term, so it comes second.
        let mut consider = |document: u32, sum: u32| {
            if sum >= needed && sum + bound_at(optional, document) >= threshold {
                hopeful.push((document, sum));
            }
        };
        let count = if let [only] = essential {
            // The postings of a single essential term already are the sums, in order of documents.
            only.take_until(end, self.units, self.documents, consider)
        } else {
            // Term by term: each list is read in sequence, and the sums of the window stay in cache.
            let mut count = 0;
            for term in essential {
                let add = |document, part| self.sums.add(document - start, part);
                count += term.take_until(end, self.units, self.documents, add);
            }
            self.sums.drain(|offset, sum| consider(start + offset, sum));
            // The cursors of the optional terms can only move forward.
            self.hopeful.sort_unstable();
            count
        };
        // The list leaves `self` during the loop, which borrows all of `self`, and keeps its memory.
        let hopeful = std::mem::take(&mut self.hopeful);
        for &(document, sum) in &hopeful {
            self.complete(document, sum);
        }
        self.hopeful = hopeful;
        self.hopeful.clear();
        self.drop_hopeless();
        count
    }

    /// Adds the contributions of the optional terms, as long as they can make the document one of
    /// the best.
    fn complete(&mut self, document: u32, mut sum: u32) {
        let threshold = self.best.threshold();
        let optional = &mut self.terms[..self.essential];
        let mut rest = bound_at(optional, document);
        // Highest bound first: it lowers the rest fastest, so hopeless documents need few look-ups.
        for term in optional.iter_mut().rev() {
            if sum + rest < threshold {
                return;
            }
            let bound = term.bound_at(document);
            rest -= bound;
            if bound == 0 {
                continue;
            }
            term.seek(document);
            if term.document() == document {
                let length_id = self.documents.length_ids()[document as usize];
                let frequency = term.blocks.frequencies()[term.position];
                sum += self.units.contribution(term.weight, frequency, length_id);
            }
        }
        self.best.offer(sum, || self.documents.row(document));
    }
}

/// Returns the most that the terms together can add to a document.
#[inline]
fn bound_at<B: PostingBlocks>(terms: &[TermCursor<'_, B>], document: u32) -> u32 {
    terms.iter().fold(0, |sum: u32, term| sum.wrapping_add(term.bound_at(document)))
}

impl<B: PostingBlocks> TermCursor<'_, B> {
    /// Returns the current document, or [`END`].
    fn document(&self) -> u32 {
        self.blocks.documents().get(self.position).copied().unwrap_or(END)
    }

    /// Returns the most that the term can add to a document, by the document's range; 0 if no
    /// document of the range contains the term.
    #[inline]
    fn bound_at(&self, document: u32) -> u32 {
        match self.ranges.get(document as usize / RANGE_LENGTH) {
            // The codes come from a file: an unknown one bounds nothing.
            Some(&code) => self.range_bounds.get(usize::from(code)).copied().unwrap_or(self.bound),
            None => self.bound,
        }
    }

    /// Moves forward to the first document at or after `target`.
    fn seek(&mut self, target: u32) {
        if self.document() < target {
            self.position = self.blocks.seek(target);
        }
    }

    /// Calls `take` with every document before `end` and the term's contribution to it, and moves
    /// behind them. Returns their number.
    #[inline]
    fn take_until(
        &mut self,
        end: u32,
        units: &Units<'_>,
        documents: &impl Documents,
        mut take: impl FnMut(u32, u32),
    ) -> usize {
        let mut total = 0;
        let mut parts = [0; BLOCK_LENGTH];
        // Block by block: the contributions of a whole block are computed before any is used, as
        // vector instructions need.
        loop {
            let rest = self.blocks.documents().get(self.position..).unwrap_or_default();
            let Some(&last) = rest.last() else { break };
            let count = if last < end {
                rest.len()
            } else {
                rest.partition_point(|&document| document < end)
            };
            let frequencies = &self.blocks.frequencies()[self.position..];
            let (rest, whole) = (&rest[..count], count == rest.len());
            units.contributions(self.weight, rest, frequencies, documents.length_ids(), &mut parts);
            for (&document, &part) in rest.iter().zip(&parts) {
                take(document, part);
            }
            total += count;
            self.position += count;
            if !whole {
                break;
            }
            self.blocks.advance();
            self.position = 0;
        }
        total
    }
}

#[cfg(test)]
mod tests;
