//! Token ids of whole folders compared with those of transformers; see tests/golden/README.md.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::tokenizer_files;
use crate::golden;

#[derive(Deserialize)]
struct Recording {
    texts: Vec<String>,
    /// tokenizer.json of each base.
    bases: BTreeMap<String, Map<String, Value>>,
    results: Vec<Ids>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    base: String,
    changes: Map<String, Value>,
    files: BTreeMap<String, Value>,
    result: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ids {
    #[serde(rename = "ids")]
    whole: Vec<Vec<u32>>,
    /// Ids of the texts with the names of special tokens as plain text.
    split: Vec<Vec<u32>>,
    /// Texts of `ids` where they differ from the texts.
    decoded: Vec<Option<String>>,
}

fn folder(recording: &Recording, case: &Case) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut tokenizer = recording.bases[&case.base].clone();
    tokenizer.extend(case.changes.clone());
    let tokenizer = Value::Object(tokenizer).to_string();
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer).unwrap();
    for (name, contents) in &case.files {
        std::fs::write(folder.path().join(name), contents.to_string()).unwrap();
    }
    folder
}

#[test]
fn folders_give_the_token_ids_of_transformers() {
    let recording: Recording = golden::read("tokenizer-folders.json");
    assert!(recording.cases.len() > 120);
    for case in &recording.cases {
        let folder = folder(&recording, case);
        let read = tokenizer_files::read(folder.path(), folder.path()).unwrap();
        let tokenizer = super::Tokenizer::new(read.tokenizer, vec![0], None);
        let expected = &recording.results[case.result];
        for (index, text) in recording.texts.iter().enumerate() {
            let ids = tokenizer.encode_template(text).unwrap();
            assert_eq!(ids, expected.whole[index], "{}: {text:?}", case.name);
            assert_eq!(
                tokenizer.encode(text).unwrap(),
                expected.split[index],
                "{}: {text:?}",
                case.name
            );
            let decoded = expected.decoded[index].as_ref().unwrap_or(text);
            assert_eq!(&tokenizer.decode(&ids).unwrap(), decoded, "{}", case.name);
        }
    }
}

/// A new kind of part of tokenizer.json fails here until its tokens are recorded.
#[test]
fn every_kind_of_part_is_recorded() {
    let recording: Recording = golden::read("tokenizer-folders.json");
    let keys: Value = golden::read("transformers-keys.json");
    let bases = recording.bases.values().map(|base| Value::Object(base.clone()).to_string());
    let changes =
        recording.cases.iter().map(|case| Value::Object(case.changes.clone()).to_string());
    let all: String = bases.chain(changes).collect();
    let components = keys["components"].as_object().unwrap();
    assert_eq!(components.len(), 5);
    for name in components.values().flat_map(|names| names.as_array().unwrap()) {
        assert!(all.contains(&format!("\"type\":{name}")), "{name}");
    }
}
