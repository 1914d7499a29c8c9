//! Comparison with rankings recorded from Anserini, to the digits that it prints.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use serde::Deserialize;
use shared::contract::passage::Passage;

use super::*;
use crate::lexical::writer::LexicalWriter;

/// The largest accepted difference: Anserini prints four decimals.
const TOLERANCE: f64 = 1e-3;

#[derive(Deserialize)]
struct Recording {
    k1: f32,
    b: f32,
    passages: Vec<Passage>,
    queries: Vec<RecordedQuery>,
}

#[derive(Deserialize)]
struct RecordedQuery {
    query: String,
    /// The identifiers and scores of the passages, best first.
    hits: Vec<(String, f64)>,
}

/// Reads the recording from the folder in `VECTORS_DIR` if it is there, else the project's copy.
fn recording() -> Recording {
    let file = "bm25-world.json";
    let named = std::env::var_os("VECTORS_DIR").map(|folder| PathBuf::from(folder).join(file));
    let copy = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(file);
    let path = named.filter(|path| path.is_file()).unwrap_or(copy);
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn bm25_vectors_are_met() {
    let recording = recording();
    let folder = tempfile::tempdir().unwrap();
    let mut writer = LexicalWriter::create(folder.path(), 2).unwrap();
    for (row, passage) in recording.passages.iter().enumerate() {
        writer.add(row as u32, &passage.contents).unwrap();
    }
    writer.finish().unwrap();
    let parameters = Bm25Parameters::new(recording.k1, recording.b).unwrap();
    let reader = LexicalReader::open(folder.path(), parameters).unwrap();
    assert!(recording.queries.len() >= 50);
    for RecordedQuery { query, hits } in &recording.queries {
        let ranked = reader.rank(query, recording.passages.len(), &|| false).unwrap();
        let scores: HashMap<&str, f64> = ranked
            .iter()
            .map(|hit| (recording.passages[hit.row as usize].id.as_str(), f64::from(hit.score)))
            .collect();
        assert_eq!(ranked.is_empty(), hits.is_empty(), "{query}");
        for (position, (id, expected)) in hits.iter().enumerate() {
            // The score at the rank as well: it shows that no better passage was missed, and does
            // not depend on the order of ties.
            let at_rank = f64::from(ranked[position].score);
            for score in [scores[id.as_str()], at_rank] {
                assert!((score - expected).abs() <= TOLERANCE, "{query}: {id} {score} {expected}");
            }
        }
    }
}
