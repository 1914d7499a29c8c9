//! Comparison of MaxScore with an exhaustive scorer on random collections.

use proptest::prelude::*;

use super::*;
use crate::lexical::bm25::{Bm25Parameters, CollectionStatistics};
use crate::lexical::ranges::{ABSENT, join, range_count};

/// Postings per block; few, so that lists have many blocks.
const LIST_BLOCK: usize = 4;

/// A posting list in memory.
#[derive(Clone, Debug)]
struct ListBlocks {
    documents: Vec<u32>,
    frequencies: Vec<u32>,
    block: usize,
}

impl ListBlocks {
    fn part<'a>(&self, list: &'a [u32]) -> &'a [u32] {
        list.chunks(LIST_BLOCK).nth(self.block).unwrap_or_default()
    }

    fn frequency(&self, document: u32) -> Option<u32> {
        let position = self.documents.binary_search(&document).ok()?;
        Some(self.frequencies[position])
    }
}

impl PostingBlocks for ListBlocks {
    fn documents(&self) -> &[u32] {
        self.part(&self.documents)
    }

    fn frequencies(&self) -> &[u32] {
        self.part(&self.frequencies)
    }

    fn advance(&mut self) {
        assert!(!self.documents().is_empty(), "advanced past the end");
        self.block += 1;
    }

    fn seek(&mut self, target: u32) -> usize {
        while self.documents().last().is_some_and(|&last| last < target) {
            self.block += 1;
        }
        self.documents().partition_point(|&document| document < target)
    }
}

/// A collection in memory. Rows are in the opposite order of documents, which reveals a tie that was
/// broken by document instead of by row.
#[derive(Clone, Debug)]
struct Collection {
    length_ids: Vec<u8>,
    terms: Vec<(f32, ListBlocks)>,
    /// `true` if the search gets the terms' peaks.
    with_peaks: bool,
    /// The codes of each term's ranges, or an empty list.
    ranges: Vec<Vec<u8>>,
}

impl Documents for Collection {
    fn length_ids(&self) -> &[u8] {
        &self.length_ids
    }

    fn row(&self, document: u32) -> u32 {
        self.length_ids.len() as u32 - 1 - document
    }

    fn classes(&self) -> LengthClasses {
        LengthClasses::new(&self.length_ids)
    }
}

impl Collection {
    /// Computes the codes of a term's ranges.
    fn codes(&self, list: &ListBlocks) -> Vec<u8> {
        let classes = self.classes();
        let mut codes = vec![ABSENT; range_count(self.length_ids.len())];
        for (&document, &frequency) in list.documents.iter().zip(&list.frequencies) {
            let length_id = self.length_ids[document as usize];
            let code = &mut codes[document as usize / RANGE_LENGTH];
            *code = join(*code, classes.code(frequency, length_id));
        }
        codes
    }

    fn weighted_terms(&self) -> Vec<WeightedTerm<'_, ListBlocks>> {
        let peaks = |blocks: &ListBlocks| {
            let pairs = blocks.documents.iter().zip(&blocks.frequencies);
            let peak = |(&document, &frequency): (&u32, &u32)| Peak {
                frequency,
                length_id: self.length_ids[document as usize],
            };
            pairs.map(peak).filter(|_| self.with_peaks).collect()
        };
        let terms = self.terms.iter().zip(&self.ranges);
        terms
            .map(|((weight, blocks), ranges)| WeightedTerm {
                weight: *weight,
                document_frequency: blocks.documents.len() as u32,
                peaks: peaks(blocks),
                ranges,
                blocks: blocks.clone(),
            })
            .collect()
    }

    /// Scores every document that contains a term, from the last to the first, as the oracle.
    /// Returns the best, and with each the sum of its contributions in double precision.
    fn exhaustive(&self, norms: &LengthNorms, k: usize) -> Vec<(ScoredRow, f64)> {
        let units = Units::new(norms, self.terms.iter().map(|term| term.0));
        let mut scored = Vec::new();
        for (document, &length_id) in self.length_ids.iter().enumerate().rev() {
            let (mut sum, mut precise, mut matches) = (0, 0.0, false);
            for (weight, list) in &self.terms {
                let Some(frequency) = list.frequency(document as u32) else { continue };
                sum += units.contribution(*weight, frequency, length_id);
                precise += f64::from(norms.contribution(*weight, frequency, length_id));
                matches = true;
            }
            if matches {
                scored.push((sum, self.row(document as u32), precise));
            }
        }
        scored.sort_by_key(|&(sum, row, _)| (std::cmp::Reverse(sum), row));
        scored.truncate(k);
        let named = |(sum, row, precise)| (ScoredRow { row, score: units.score(sum) }, precise);
        scored.into_iter().map(named).collect()
    }
}

/// Generates collections of up to more than two windows, with lists from empty to full. Weights,
/// frequencies and lengths have few distinct values, which makes ties common.
fn collections() -> impl Strategy<Value = Collection> {
    let size = prop_oneof![Just(1usize), 2usize..80, Just(2 * WINDOW + 300)];
    size.prop_flat_map(|size| {
        let weight = prop_oneof![Just(0.0f32), Just(0.5), Just(2.0), 0.001f32..9.0, Just(3e4)];
        let gap = prop_oneof![Just(1usize), 1usize..4, 1usize..200, Just(WINDOW)];
        let term = (weight, gap.prop_flat_map(move |gap| list(size, gap)));
        let terms = proptest::collection::vec(term, 0..9);
        let length_ids = prop_oneof![
            proptest::collection::vec(5u8..8, size),
            Just(vec![30u8; size]),
            proptest::collection::vec(1u8..=255, size),
        ];
        let with_ranges = proptest::collection::vec(any::<bool>(), 9);
        (length_ids, terms, any::<bool>(), with_ranges).prop_map(
            |(length_ids, terms, with_peaks, with_ranges)| {
                let mut collection =
                    Collection { length_ids, terms, with_peaks, ranges: Vec::new() };
                let lists = collection.terms.iter().zip(with_ranges);
                let codes = |((_, list), has_ranges): (&(f32, ListBlocks), bool)| {
                    if has_ranges { collection.codes(list) } else { Vec::new() }
                };
                collection.ranges = lists.map(codes).collect();
                collection
            },
        )
    })
}

/// Generates a list of documents at random distances of at most `2 * gap - 1`.
fn list(size: usize, gap: usize) -> impl Strategy<Value = ListBlocks> {
    let steps = proptest::collection::vec((1..2 * gap, 1u32..4), 0..=size.div_ceil(gap));
    steps.prop_map(move |steps| {
        let mut next = 0;
        let mut list = ListBlocks { documents: Vec::new(), frequencies: Vec::new(), block: 0 };
        for (step, frequency) in steps {
            next += step;
            if next <= size {
                list.documents.push(next as u32 - 1);
                list.frequencies.push(frequency);
            }
        }
        list
    })
}

fn norms(k1: f32, b: f32) -> LengthNorms {
    let statistics = CollectionStatistics { passage_count: 60, token_count: 900 };
    LengthNorms::new(Bm25Parameters::new(k1, b).unwrap(), statistics)
}

fn constants() -> impl Strategy<Value = (f32, f32)> {
    prop_oneof![Just((0.9, 0.4)), Just((0.0, 0.0)), Just((1e30, 1.0)), (0.0f32..3.0, 0.0f32..=1.0)]
}

proptest! {
    #[test]
    fn equals_the_exhaustive_scorer(
        collection in collections(),
        constants in constants(),
        k in prop_oneof![0usize..20, Just(100_000)],
    ) {
        let norms = norms(constants.0, constants.1);
        let expected = collection.exhaustive(&norms, k);
        let ranked = best(collection.weighted_terms(), &norms, &collection, k, &|| false).unwrap();
        let weight: f64 = collection.terms.iter().map(|term| f64::from(term.0)).sum();
        prop_assert_eq!(ranked.len(), expected.len());
        for (passage, (expected, precise)) in ranked.iter().zip(&expected) {
            prop_assert_eq!(passage, expected);
            let error = (f64::from(passage.score) - precise).abs();
            prop_assert!(error <= 1e-6 * weight + 1e-15, "{} {}", passage.score, precise);
        }
    }
}

#[test]
fn a_stop_ends_the_search() {
    let blocks = ListBlocks { documents: vec![0], frequencies: vec![1], block: 0 };
    let collection = Collection {
        length_ids: vec![5],
        terms: vec![(1.0, blocks)],
        with_peaks: false,
        ranges: vec![Vec::new()],
    };
    let stopped = best(collection.weighted_terms(), &norms(0.9, 0.4), &collection, 3, &|| true);
    assert_eq!(stopped, Err(Stopped));
}
