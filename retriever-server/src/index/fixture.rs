//! An index of invented passages, for tests.

use std::fs;
use std::path::PathBuf;

use super::build::{self, BuildOutcome, BuildRequest};
use super::manifest::Manifest;
use crate::corpus::store::PassageStore;

/// An index and its corpus, in a folder that is removed together with this value.
pub(super) struct IndexWorld {
    folder: tempfile::TempDir,
    pub(super) index: PathBuf,
    pub(super) manifest: Manifest,
}

impl IndexWorld {
    /// Builds an index of `count` passages whose identifiers are their rows.
    pub(super) fn new(count: usize, contents: impl Fn(usize) -> String, compact: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let line = |row| format!("{{\"id\":\"{row}\",\"contents\":\"{}\"}}", contents(row));
        let lines: Vec<String> = (0..count).map(line).collect();
        let corpus = folder.path().join("corpus.jsonl");
        fs::write(&corpus, lines.join("\n")).unwrap();
        let index = folder.path().join("index");
        let request = BuildRequest {
            corpus: vec![corpus],
            index: index.clone(),
            force: false,
            threads: 1,
            compact,
        };
        let BuildOutcome::Built(manifest) = build::build(&request, &mut |_| {}).unwrap() else {
            panic!("not built");
        };
        Self { folder, index, manifest }
    }

    pub(super) fn corpus(&self) -> PathBuf {
        self.folder.path().join("corpus.jsonl")
    }

    pub(super) fn passages(&self) -> PassageStore {
        PassageStore::open(&self.index).unwrap()
    }
}
