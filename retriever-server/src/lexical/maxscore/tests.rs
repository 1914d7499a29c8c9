//! MaxScore against the exhaustive scorer, on random collections.

use proptest::prelude::*;

use super::*;
use crate::lexical::bm25::{Bm25Parameters, CollectionStatistics};

/// A posting list in memory.
#[derive(Clone, Debug)]
struct ListCursor {
    postings: Vec<(u32, u32)>,
    position: usize,
}

impl PostingCursor for ListCursor {
    fn document(&self) -> u32 {
        self.postings.get(self.position).map_or(END, |posting| posting.0)
    }

    fn frequency(&self) -> u32 {
        self.postings[self.position].1
    }

    fn advance(&mut self) {
        assert!(self.position < self.postings.len(), "advanced past the end");
        self.position += 1;
    }

    fn seek(&mut self, target: u32) {
        while self.document() < target {
            self.position += 1;
        }
    }
}

/// Lengths by document, and rows in the opposite order of documents, so that a tie that was
/// broken by document and not by row shows.
struct Collection {
    lengths: Vec<u8>,
}

impl Documents for Collection {
    fn length_id(&self, document: u32) -> u8 {
        self.lengths[document as usize]
    }

    fn row(&self, document: u32) -> u32 {
        self.lengths.len() as u32 - 1 - document
    }
}

/// Scores every document that has a term: the oracle.
fn exhaustive(
    mut terms: Vec<WeightedTerm<ListCursor>>,
    norms: &LengthNorms,
    collection: &Collection,
    k: usize,
) -> Vec<ScoredRow> {
    terms.sort_by(|one, other| one.weight.total_cmp(&other.weight));
    let mut scored = Vec::new();
    for document in 0..collection.lengths.len() as u32 {
        let mut sum = 0f64;
        let mut matches = false;
        for term in &terms {
            if let Some(posting) = term.cursor.postings.iter().find(|one| one.0 == document) {
                let length_id = collection.length_id(document);
                sum += f64::from(norms.contribution(term.weight, posting.1, length_id));
                matches = true;
            }
        }
        if matches {
            scored.push(ScoredRow { row: collection.row(document), score: sum as f32 });
        }
    }
    scored.sort_by(|one, other| other.cmp(one));
    scored.truncate(k);
    scored
}

fn norms() -> LengthNorms {
    let statistics = CollectionStatistics { passage_count: 60, token_count: 900 };
    LengthNorms::new(Bm25Parameters::new(0.9, 0.4).unwrap(), statistics)
}

/// Terms with few distinct weights, frequencies and lengths, so that ties are common.
fn terms() -> impl Strategy<Value = Vec<WeightedTerm<ListCursor>>> {
    let postings = proptest::collection::btree_map(0u32..60, 1u32..4, 0..40);
    let weight = prop_oneof![Just(0.0f32), Just(0.5), Just(2.0), 0.001f32..9.0];
    let term = (weight, postings).prop_map(|(weight, postings)| WeightedTerm {
        weight,
        cursor: ListCursor { postings: postings.into_iter().collect(), position: 0 },
    });
    proptest::collection::vec(term, 0..9)
}

proptest! {
    #[test]
    fn equals_the_exhaustive_scorer(
        terms in terms(),
        lengths in proptest::collection::vec(5u8..8, 60),
        k in 0usize..20,
    ) {
        let collection = Collection { lengths };
        let copies = terms
            .iter()
            .map(|term| WeightedTerm { weight: term.weight, cursor: term.cursor.clone() })
            .collect();
        let expected = exhaustive(copies, &norms(), &collection, k);
        let found = best(terms, &norms(), &collection, k, &|| false).unwrap();
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn a_stop_ends_the_search() {
    let cursor = ListCursor { postings: vec![(0, 1)], position: 0 };
    let terms = vec![WeightedTerm { weight: 1.0, cursor }];
    let collection = Collection { lengths: vec![5] };
    assert_eq!(best(terms, &norms(), &collection, 3, &|| true), Err(Stopped));
}
