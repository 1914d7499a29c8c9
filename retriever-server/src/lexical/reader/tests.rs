//! The whole lexical index against a scorer that knows nothing of postings.

use std::collections::HashMap;

use proptest::prelude::*;
use shared::splitmix;
use tantivy::fieldnorm::FieldNormReader;

use super::*;
use crate::lexical::ranges::{ABSENT, RANGE_LENGTH};
use crate::lexical::writer::LexicalWriter;

/// Passages over a small vocabulary in which low numbers are common, one of them empty.
fn passages(count: usize) -> Vec<String> {
    let mut state = 7;
    let mut below = |bound: u64| splitmix::next(&mut state) % bound;
    let mut passages: Vec<String> = (0..count)
        .map(|_| {
            let length = 1 + below(40);
            let words: Vec<String> = (0..length)
                .map(|_| {
                    let bound = 1 + below(300);
                    format!("w{}", below(bound))
                })
                .collect();
            words.join(" ")
        })
        .collect();
    passages[count / 2] = "the".to_owned();
    passages
}

fn scan(passages: &[String], query: &str, k: usize, parameters: Bm25Parameters) -> Vec<ScoredRow> {
    let tokenised: Vec<Vec<String>> = passages.iter().map(|text| analyzer::terms(text)).collect();
    let statistics = CollectionStatistics {
        passage_count: tokenised.iter().filter(|terms| !terms.is_empty()).count() as u64,
        token_count: tokenised.iter().map(|terms| terms.len() as u64).sum(),
    };
    let norms = LengthNorms::new(parameters, statistics);
    let mut weights: HashMap<String, f32> = HashMap::new();
    for term in analyzer::terms(query) {
        let frequency = tokenised.iter().filter(|terms| terms.contains(&term)).count() as u32;
        *weights.entry(term).or_default() += statistics.inverse_document_frequency(frequency);
    }
    let mut scored = Vec::new();
    for (row, terms) in tokenised.iter().enumerate() {
        let length_id = FieldNormReader::fieldnorm_to_id(terms.len() as u32);
        let mut parts: Vec<f64> = weights
            .iter()
            .filter_map(|(term, &weight)| {
                let count = terms.iter().filter(|one| *one == term).count() as u32;
                (count > 0).then(|| f64::from(norms.contribution(weight, count, length_id)))
            })
            .collect();
        // One order, so that equal passages have equal scores.
        parts.sort_by(f64::total_cmp);
        if !parts.is_empty() {
            scored.push(ScoredRow { row: row as u32, score: parts.iter().sum::<f64>() as f32 });
        }
    }
    scored.sort_by(|one, other| other.score.total_cmp(&one.score).then(one.row.cmp(&other.row)));
    scored.truncate(k);
    scored
}

fn indexed(passages: &[String]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = LexicalWriter::create(folder.path(), 3).unwrap();
    for (row, text) in passages.iter().enumerate() {
        writer.add(row as u32, text).unwrap();
    }
    writer.finish().unwrap();
    folder
}

/// The same passages by the same scores, where scores that differ by rounding alone are equal.
fn check_ranking(found: &[ScoredRow], expected: &[ScoredRow], context: &str) {
    assert_eq!(found.len(), expected.len(), "{context}");
    for (position, (one, other)) in found.iter().zip(expected).enumerate() {
        assert!(
            (one.score - other.score).abs() <= 2e-6 * other.score.max(1.0),
            "{context}: {position}"
        );
        let near = |row: &&ScoredRow| (row.score - one.score).abs() <= 4e-6 * one.score.max(1.0);
        let mut candidates = expected.iter().filter(near);
        let is_last = expected.last().is_some_and(|last| near(&last));
        assert!(is_last || candidates.any(|row| row.row == one.row), "{context}: {one:?}");
    }
}

/// More passages than a few blocks, written by several threads, so that block ends, the row
/// column and the merge all take part; with bounds and without, as older indexes are.
#[test]
fn ranking_equals_a_scan_of_the_passages() {
    let passages = passages(700);
    let folder = indexed(&passages);
    for (k1, b) in [(0.9, 0.4), (1.2, 0.75), (0.0, 0.0)] {
        let parameters = Bm25Parameters::new(k1, b).unwrap();
        let mut reader = LexicalReader::open(folder.path(), parameters).unwrap();
        assert_eq!(reader.passage_count(), 700);
        let mut with_bounds = Vec::new();
        for bounded in [true, false] {
            assert_eq!(reader.bounds.is_some(), bounded);
            let mut rankings = Vec::new();
            for query in ["w0", "w0 w1 w2 w250", "w5 w5 w17 absent", "w1 w2 w3 w4 w5 w6 w7 w8 w9"] {
                for k in [1, 3, 50, 1000] {
                    let found = reader.rank(query, k, &|| false).unwrap();
                    let expected = scan(&passages, query, k, parameters);
                    assert!(!expected.is_empty());
                    check_ranking(&found, &expected, &format!("{query} {k} {k1} {b}"));
                    rankings.push(found);
                }
            }
            assert!(reader.rank("the of absent", 3, &|| false).unwrap().is_empty());
            if bounded {
                with_bounds = rankings;
                reader.bounds = None;
            } else {
                assert_eq!(rankings, with_bounds);
            }
        }
    }
}

#[test]
fn equal_passages_come_in_order_of_their_rows() {
    let passages = vec!["the same words".to_owned(); 500];
    let folder = indexed(&passages);
    let reader = LexicalReader::open(folder.path(), Bm25Parameters::default()).unwrap();
    let found = reader.rank("same same words", 300, &|| false).unwrap();
    assert!(found.iter().map(|one| one.row).eq(0..300));
}

#[test]
fn bounds_are_those_of_the_passages() {
    let text =
        |row: usize| format!("common {} {}", ["half", ""][row % 2], "word ".repeat(row % 30));
    let mut passages: Vec<String> = (0..640).map(text).collect();
    passages[639] = "common and common".to_owned();
    let folder = indexed(&passages);
    let reader = LexicalReader::open(folder.path(), Bm25Parameters::default()).unwrap();
    let terms = reader.weighted_terms("common half word absent").unwrap();
    assert_eq!(terms.len(), 3);
    let common: Vec<_> = terms[0].peaks.iter().map(|one| (one.frequency, one.length_id)).collect();
    assert_eq!(common, [(2, 2)]);
    let half: Vec<_> = terms[1].peaks.iter().map(|one| (one.frequency, one.length_id)).collect();
    assert_eq!(half, [(1, 2)]);
    assert_eq!(terms[2].peaks.last().map(|one| one.frequency), Some(29));
    // Several threads write, so that the order of documents is not that of the passages.
    let documents: Vec<u32> = (0..640).map(|document| reader.documents.row(document)).collect();
    for (term, word) in terms.iter().zip(["common", "half", "word"]) {
        let expected = documents.chunks(RANGE_LENGTH).map(|rows| {
            rows.iter().any(|&row| passages[row as usize].split(' ').any(|one| one == word))
        });
        assert!(term.ranges.iter().map(|&code| code != ABSENT).eq(expected), "{word}");
    }
}

proptest! {
    // Each case builds an index.
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// Whatever a query is made of, it is ranked as a scan ranks it.
    #[test]
    fn arbitrary_queries_are_ranked(
        texts in proptest::collection::vec("\\PC{0,24}", 1..40),
        queries in proptest::collection::vec(("\\PC{0,60}", 0usize..40, 0usize..12), 1..8),
        constants in (0.0f32..3.0, 0.0f32..=1.0),
    ) {
        let folder = indexed(&texts);
        let parameters = Bm25Parameters::new(constants.0, constants.1).unwrap();
        let reader = LexicalReader::open(folder.path(), parameters).unwrap();
        for (noise, row, k) in queries {
            let query = format!("{noise} {}", texts[row % texts.len()]);
            let found = reader.rank(&query, k, &|| false).unwrap();
            check_ranking(&found, &scan(&texts, &query, k, parameters), &query);
        }
    }
}

#[test]
fn a_folder_that_is_no_index_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let parameters = Bm25Parameters::new(0.9, 0.4).unwrap();
    assert!(LexicalReader::open(folder.path(), parameters).is_err());
}
