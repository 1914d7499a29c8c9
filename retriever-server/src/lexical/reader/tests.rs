//! Comparison of the whole lexical index with a scorer that uses no postings.

use std::collections::HashMap;

use proptest::prelude::*;
use shared::contract::splitmix;
use tantivy::fieldnorm::FieldNormReader;

use super::*;
use crate::lexical::ranges::{ABSENT, RANGE_LENGTH};
use crate::lexical::writer::LexicalWriter;

/// Makes passages over a small vocabulary in which low numbers are common. One passage has no terms.
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

/// Ranks the passages by scoring each of them.
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
                let count = terms.iter().filter(|other| *other == term).count() as u32;
                (count > 0).then(|| f64::from(norms.contribution(weight, count, length_id)))
            })
            .collect();
        // A fixed order of addition gives equal passages equal scores.
        parts.sort_by(f64::total_cmp);
        if !parts.is_empty() {
            scored.push(ScoredRow { row: row as u32, score: parts.iter().sum::<f64>() as f32 });
        }
    }
    scored.sort_by(|left, right| right.score.total_cmp(&left.score).then(left.row.cmp(&right.row)));
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

/// Asserts equal rankings. Passages whose scores differ by rounding alone may change places.
fn check_ranking(ranked: &[ScoredRow], expected: &[ScoredRow], context: &str) {
    assert_eq!(ranked.len(), expected.len(), "{context}");
    for (position, (passage, other)) in ranked.iter().zip(expected).enumerate() {
        assert!(
            (passage.score - other.score).abs() <= 2e-6 * other.score.max(1.0),
            "{context}: {position}"
        );
        let near =
            |row: &&ScoredRow| (row.score - passage.score).abs() <= 4e-6 * passage.score.max(1.0);
        let mut candidates = expected.iter().filter(near);
        let is_last = expected.last().is_some_and(|last| near(&last));
        assert!(is_last || candidates.any(|row| row.row == passage.row), "{context}: {passage:?}");
    }
}

/// Several blocks of passages, written by several threads, exercise the ends of blocks, the column
/// of rows and the merge. Indexes of early versions have no bounds, so both cases run.
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
                    let ranked = reader.rank(query, k, &|| false).unwrap();
                    let expected = scan(&passages, query, k, parameters);
                    assert!(!expected.is_empty());
                    check_ranking(&ranked, &expected, &format!("{query} {k} {k1} {b}"));
                    rankings.push(ranked);
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
    let ranked = reader.rank("same same words", 300, &|| false).unwrap();
    assert!(ranked.iter().map(|passage| passage.row).eq(0..300));
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
    let peaks = |index: usize| -> Vec<_> {
        terms[index].peaks.iter().map(|peak| (peak.frequency, peak.length_id)).collect()
    };
    assert_eq!(peaks(0), [(2, 2)]);
    assert_eq!(peaks(1), [(1, 2)]);
    assert_eq!(peaks(2).last().map(|peak| peak.0), Some(29));
    // Several threads write, so the documents are not in the order of the passages.
    let documents: Vec<u32> = (0..640).map(|document| reader.documents.row(document)).collect();
    for (term, word) in terms.iter().zip(["common", "half", "word"]) {
        let expected = documents.chunks(RANGE_LENGTH).map(|rows| {
            rows.iter().any(|&row| passages[row as usize].split(' ').any(|other| other == word))
        });
        assert!(term.ranges.iter().map(|&code| code != ABSENT).eq(expected), "{word}");
    }
}

proptest! {
    // Each case builds an index.
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// Any text is ranked like a scan ranks it.
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
            let ranked = reader.rank(&query, k, &|| false).unwrap();
            check_ranking(&ranked, &scan(&texts, &query, k, parameters), &query);
        }
    }
}

#[test]
fn a_folder_that_is_no_index_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let parameters = Bm25Parameters::new(0.9, 0.4).unwrap();
    assert!(LexicalReader::open(folder.path(), parameters).is_err());
}
