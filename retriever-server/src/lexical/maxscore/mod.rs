//! The best k passages for a weighted set of terms, by MaxScore over windows of documents: the
//! postings of terms that can lift a passage into the best k are added up, a window at a time, in
//! an array; the other terms are looked up only for passages that those have made hopeful, judged
//! by what the other terms add at most to a passage of its range.
//! References: H. Turtle and J. Flood, "Query evaluation: strategies and optimizations",
//! Information Processing & Management 31(6), 1995; T. Strohman, H. Turtle and W. B. Croft,
//! "Optimization strategies for complex queries", SIGIR 2005, for bounds by the lists themselves.
//!
//! The result equals that of scoring every passage, ties included: contributions are rounded to
//! whole units first, so that a sum does not depend on its order and a bound needs no margin, and
//! equal sums go to the lower row.

mod best;
mod sums;
mod units;

use super::bm25::LengthNorms;
use super::ranges::{LengthClasses, Peak, RANGE_LENGTH};
use best::Best;
pub use best::ScoredRow;
use sums::{Sums, WINDOW};
use units::Units;

/// A cursor's document once its list has ended. Equals tantivy's `TERMINATED`.
const END: u32 = i32::MAX as u32;

/// Most postings in a block.
pub const BLOCK_LENGTH: usize = 128;

/// The first window, which has no threshold yet. Each is twice as long as the one before.
const FIRST_WINDOW: u32 = 128;

/// The first look takes terms that have together at most this share of a posting a document.
const FIRST_LOOK_SHARE: usize = 1024;

/// Postings that are scored between two looks at the clock, beside one window.
const POSTINGS_PER_CHECK: usize = 1 << 16;

/// A list of the documents that hold a term, which comes in blocks of at most [`BLOCK_LENGTH`].
pub trait PostingBlocks: Clone {
    /// Documents of the current block, ascending; none once the list has ended.
    fn documents(&self) -> &[u32];
    /// How often the term occurs in each of them.
    fn frequencies(&self) -> &[u32];
    /// Goes to the next block.
    fn advance(&mut self);
    /// Goes to the block with the first document at or after `target`, never backwards, and says
    /// where in it that document is. At the end of the list, that is behind the last one.
    fn seek(&mut self, target: u32) -> usize;
}

/// A term of the query with its posting list.
#[derive(Debug)]
pub struct WeightedTerm<'a, B> {
    /// The term's idf times its count in the query.
    pub weight: f32,
    /// Number of its documents.
    pub document_frequency: u32,
    /// Frequency and length of the documents among which the one is that the term adds most to;
    /// none if they are not known.
    pub peaks: Vec<Peak>,
    /// A code of [`crate::lexical::ranges`] for every range of documents; none if they are not known.
    pub ranges: &'a [u8],
    /// Its documents.
    pub blocks: B,
}

/// What scoring must know of the documents.
pub trait Documents {
    /// The length of each document, as one byte.
    fn length_ids(&self) -> &[u8];
    /// The row of the passage that a document stands for.
    fn row(&self, document: u32) -> u32;
    /// Classes of lengths that the codes of ranges use.
    fn classes(&self) -> LengthClasses;
}

/// The search was given up because `stop` said so.
#[derive(Debug, PartialEq, Eq)]
pub struct Stopped;

/// The best `k` passages, best first. `stop` is asked from time to time whether to give up.
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
    let mut search = Search {
        terms: Vec::new(),
        bounds: Vec::new(),
        essential: 0,
        units: &units,
        documents,
        found: Best::new(k),
        sums: Sums::take(),
        hopeful: Vec::new(),
    };
    search.run(rarest, stop)?;
    let threshold = search.found.threshold();
    search.found = Best::from_threshold(k, threshold);
    search.run(terms, stop)?;
    search.sums.give_back();
    Ok(search.found.into_sorted(|sum| units.score(sum)))
}

fn cursors<'a, B>(
    terms: Vec<WeightedTerm<'a, B>>,
    units: &Units<'_>,
    classes: LengthClasses,
) -> Vec<Cursor<'a, B>> {
    let cursor = |WeightedTerm { weight, document_frequency, peaks, ranges, blocks }| {
        let bound = units.bound(weight, &peaks);
        let range_bounds = match ranges {
            [] => Vec::new(),
            _ => units.range_bounds(weight, bound, &classes),
        };
        Cursor { blocks, position: 0, weight, document_frequency, bound, ranges, range_bounds }
    };
    terms.into_iter().map(cursor).collect()
}

/// Copies of the terms with the highest bounds, as many as have few postings together. What a
/// passage gets from them alone is at most its score, so that their threshold holds for all terms.
fn rarest<'a, B: PostingBlocks>(terms: &[Cursor<'a, B>], documents: usize) -> Vec<Cursor<'a, B>> {
    let mut budget = (documents / FIRST_LOOK_SHARE) as u32;
    let affordable = |term: &&Cursor<'a, B>| {
        let rest = budget.checked_sub(term.document_frequency);
        budget = rest.unwrap_or(budget);
        rest.is_some()
    };
    let mut rarest: Vec<_> = terms.iter().rev().take_while(affordable).cloned().collect();
    rarest.reverse();
    rarest
}

/// A search under way.
struct Search<'a, B, D> {
    /// By bound, lowest first.
    terms: Vec<Cursor<'a, B>>,
    /// The most that the terms up to and with this one add together.
    bounds: Vec<u32>,
    /// Terms before this position cannot together lift a passage into the best.
    essential: usize,
    units: &'a Units<'a>,
    documents: &'a D,
    found: Best,
    sums: Sums,
    /// Documents of the window that may be among the best, with their sums over essential terms.
    hopeful: Vec<(u32, u32)>,
}

/// A position in the list of a term.
#[derive(Clone)]
struct Cursor<'a, B> {
    blocks: B,
    position: usize,
    weight: f32,
    document_frequency: u32,
    bound: u32,
    ranges: &'a [u8],
    /// The most that the term adds to a document of a range, by the code of the range.
    range_bounds: Vec<u32>,
}

impl<'a, B: PostingBlocks, D: Documents> Search<'a, B, D> {
    /// Scores all documents that may be among the best. Terms come by bound, lowest first.
    fn run(&mut self, terms: Vec<Cursor<'a, B>>, stop: &dyn Fn() -> bool) -> Result<(), Stopped> {
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

    /// Takes terms out of the essential ones that have become hopeless by themselves.
    fn drop_hopeless(&mut self) {
        let threshold = self.found.threshold();
        while self.essential < self.terms.len() && self.bounds[self.essential] < threshold {
            self.essential += 1;
        }
    }

    /// The first document that is not scored and has an essential term.
    fn next_document(&self) -> Option<u32> {
        let documents = self.terms[self.essential..].iter().map(Cursor::document);
        documents.min().filter(|&document| document != END)
    }

    /// Scores the documents from `start` up to before `end`; returns how many postings there were.
    fn score_window(&mut self, start: u32, end: u32) -> usize {
        let (others, essential) = self.terms.split_at_mut(self.essential);
        let most = self.essential.checked_sub(1).map_or(0, |last| self.bounds[last]);
        let threshold = self.found.threshold();
        let needed = threshold.saturating_sub(most);
        let hopeful = &mut self.hopeful;
        let mut consider = |document: u32, sum: u32| {
            if sum >= needed && sum + bound_at(others, document) >= threshold {
                hopeful.push((document, sum));
            }
        };
        let count = if let [only] = essential {
            only.take_until(end, self.units, self.documents, consider)
        } else {
            let mut count = 0;
            for term in essential {
                let add = |document, part| self.sums.add(document - start, part);
                count += term.take_until(end, self.units, self.documents, add);
            }
            self.sums.drain(|place, sum| consider(start + place, sum));
            // Cursors of the other terms only go forward.
            self.hopeful.sort_unstable();
            count
        };
        let hopeful = std::mem::take(&mut self.hopeful);
        for &(document, sum) in &hopeful {
            self.complete(document, sum);
        }
        self.hopeful = hopeful;
        self.hopeful.clear();
        self.drop_hopeless();
        count
    }

    /// Adds what the other terms give, as long as that can make the document one of the best.
    fn complete(&mut self, document: u32, mut sum: u32) {
        let threshold = self.found.threshold();
        let others = &mut self.terms[..self.essential];
        let mut rest = bound_at(others, document);
        for term in others.iter_mut().rev() {
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
                sum += self.units.of(term.weight, frequency, length_id);
            }
        }
        self.found.offer(sum, || self.documents.row(document));
    }
}

/// The most that the terms add to a document together.
#[inline]
fn bound_at<B: PostingBlocks>(terms: &[Cursor<'_, B>], document: u32) -> u32 {
    terms.iter().fold(0, |sum: u32, term| sum.wrapping_add(term.bound_at(document)))
}

impl<B: PostingBlocks> Cursor<'_, B> {
    /// The current document, or [`END`].
    fn document(&self) -> u32 {
        self.blocks.documents().get(self.position).copied().unwrap_or(END)
    }

    /// The most that the term adds to a document, by its range; 0 if it does not have the term.
    #[inline]
    fn bound_at(&self, document: u32) -> u32 {
        match self.ranges.get(document as usize / RANGE_LENGTH) {
            Some(&code) => self.range_bounds.get(usize::from(code)).copied().unwrap_or(self.bound),
            None => self.bound,
        }
    }

    /// Goes to the first document at or after `target`; never backwards.
    fn seek(&mut self, target: u32) {
        if self.document() < target {
            self.position = self.blocks.seek(target);
        }
    }

    /// Gives `take` every document before `end` with what the term adds to it, and goes past them.
    /// Returns how many there were.
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
        loop {
            let rest = self.blocks.documents().get(self.position..).unwrap_or_default();
            let Some(&last) = rest.last() else { break };
            let count =
                if last < end { rest.len() } else { rest.partition_point(|&one| one < end) };
            let frequencies = &self.blocks.frequencies()[self.position..];
            let (rest, whole) = (&rest[..count], count == rest.len());
            units.of_all(self.weight, rest, frequencies, documents.length_ids(), &mut parts);
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
