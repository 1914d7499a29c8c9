//! The whole lexical index against a scorer that knows nothing of postings.

use std::collections::HashMap;

use super::*;
use crate::lexical::writer::LexicalWriter;

/// Deterministic numbers for made-up passages (Knuth's MMIX generator).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Passages over a small vocabulary in which low numbers are common, one of them empty.
fn passages(count: usize) -> Vec<String> {
    let mut numbers = Numbers(7);
    let mut passages: Vec<String> = (0..count)
        .map(|_| {
            let length = 1 + numbers.below(40);
            let words: Vec<String> = (0..length)
                .map(|_| {
                    let bound = 1 + numbers.below(300);
                    format!("w{}", numbers.below(bound))
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
        let parts: Vec<f64> = weights
            .iter()
            .filter_map(|(term, &weight)| {
                let count = terms.iter().filter(|one| *one == term).count() as u32;
                (count > 0).then(|| f64::from(norms.contribution(weight, count, length_id)))
            })
            .collect();
        if !parts.is_empty() {
            scored.push(ScoredRow { row: row as u32, score: parts.iter().sum::<f64>() as f32 });
        }
    }
    scored.sort_by(|one, other| other.cmp(one));
    scored.truncate(k);
    scored
}

/// More passages than a few blocks, written by several threads, so that block ends, the row
/// column and the merge all take part.
#[test]
fn ranking_equals_a_scan_of_the_passages() {
    let folder = tempfile::tempdir().unwrap();
    let passages = passages(700);
    let mut writer = LexicalWriter::create(folder.path(), 3).unwrap();
    for (row, text) in passages.iter().enumerate() {
        writer.add(row as u32, text).unwrap();
    }
    writer.finish().unwrap();
    for (k1, b) in [(0.9, 0.4), (1.2, 0.75), (0.0, 0.0)] {
        let parameters = Bm25Parameters::new(k1, b).unwrap();
        let reader = LexicalReader::open(folder.path(), parameters).unwrap();
        assert_eq!(reader.passage_count(), 700);
        for query in ["w0", "w0 w1 w2 w250", "w5 w5 w17 absent", "w1 w2 w3 w4 w5 w6 w7 w8 w9"] {
            for k in [1, 3, 50, 1000] {
                let found = reader.rank(query, k, &|| false).unwrap();
                let expected = scan(&passages, query, k, parameters);
                assert!(!expected.is_empty());
                assert_eq!(found.len(), expected.len(), "{query} {k}");
                for (one, other) in found.iter().zip(&expected) {
                    assert_eq!(one.row, other.row, "{query} {k} {k1} {b}");
                    assert!((one.score - other.score).abs() <= 1e-5, "{query} {one:?} {other:?}");
                }
            }
        }
        assert!(reader.rank("the of absent", 3, &|| false).unwrap().is_empty());
    }
}

#[test]
fn a_folder_that_is_no_index_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let parameters = Bm25Parameters::new(0.9, 0.4).unwrap();
    assert!(LexicalReader::open(folder.path(), parameters).is_err());
}
