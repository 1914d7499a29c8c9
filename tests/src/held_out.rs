//! The training data contains no question of the evaluation.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use shared::contract::dataset::{QaRecord, read_qa_records};

/// Reads the questions of the demo's world, which `make setup` writes.
fn records(split: &str) -> Vec<QaRecord> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/data/worldqa");
    let path = folder.join(format!("{split}.jsonl"));
    assert!(path.is_file(), "{} is missing: run `make setup` first", path.display());
    read_qa_records(&path).unwrap()
}

/// Returns the letters and digits in lower case, with one space between words.
fn normalised(question: &str) -> String {
    let letters: String = question
        .to_lowercase()
        .chars()
        .map(|letter| if letter.is_alphanumeric() { letter } else { ' ' })
        .collect();
    letters.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn hops(record: &QaRecord) -> u64 {
    record.extra["hops"].as_u64().unwrap()
}

fn gold_ids(record: &QaRecord) -> Vec<String> {
    let ids = record.extra["gold_ids"].as_array().unwrap();
    ids.iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

/// Fails if training and test questions share a value.
#[track_caller]
fn check_disjoint(kind: &str, values: impl Fn(&QaRecord) -> Vec<String>) {
    let collect = |split| -> BTreeSet<String> { records(split).iter().flat_map(&values).collect() };
    let (train, test) = (collect("train"), collect("test"));
    assert!(train.len() > 100 && test.len() > 50, "{kind}: {} and {}", train.len(), test.len());
    let common: Vec<&String> = train.intersection(&test).collect();
    assert!(common.is_empty(), "{kind} of both: {common:?}");
}

#[test]
fn no_held_out_question_is_trained_on() {
    check_disjoint("question", |record| vec![normalised(&record.question)]);
    check_disjoint("id", |record| vec![record.id.clone()]);
}

#[test]
fn one_hop_questions_have_separate_subjects() {
    let about = |record: &QaRecord| if hops(record) == 1 { gold_ids(record) } else { Vec::new() };
    check_disjoint("gold passage", about);
}

#[test]
fn two_hop_questions_have_separate_bridges_and_starts() {
    check_disjoint("bridge", |record| {
        record.extra.get("bridge").and_then(Value::as_str).map(str::to_owned).into_iter().collect()
    });
    check_disjoint("first gold passage", |record| {
        if hops(record) == 2 { gold_ids(record).into_iter().take(1).collect() } else { Vec::new() }
    });
}
