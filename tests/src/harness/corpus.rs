//! A small corpus of invented towns, and its index.

use std::fs;
use std::path::{Path, PathBuf};

use retriever_server::index::build::{self, BuildRequest};
use serde_json::json;
use tempfile::TempDir;

/// Number of passages.
pub(crate) const PASSAGE_COUNT: usize = 40;

/// A corpus and its index, in a folder that is removed when this value is dropped.
pub(crate) struct IndexedCorpus {
    folder: TempDir,
}

impl IndexedCorpus {
    /// Writes and indexes the corpus. Passage `i` is about `townI`, in one of four lands. The first passage
    /// has every optional key.
    pub(crate) fn build() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lines: Vec<String> = (0..PASSAGE_COUNT).map(|row| line(row).to_string()).collect();
        let corpus = folder.path().join("corpus.jsonl");
        fs::write(&corpus, lines.join("\n")).unwrap();
        let request = BuildRequest {
            corpus: vec![corpus],
            index: folder.path().join("index"),
            force: false,
            threads: 1,
            compact: false,
        };
        build::build(&request, &mut |_| {}).unwrap();
        Self { folder }
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.folder.path().join("index")
    }

    pub(crate) fn corpus(&self) -> PathBuf {
        self.folder.path().join("corpus.jsonl")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

fn line(row: usize) -> serde_json::Value {
    let text = format!("The town{row} lies in land{} by the river.", row % 4);
    let contents = format!("\"Town {row}\"\n{text}");
    if row == 0 {
        json!({"id": "p0", "contents": contents, "title": "Town 0", "text": text,
               "url": "https://example.org/0", "other": 1})
    } else {
        json!({"id": format!("p{row}"), "contents": contents})
    }
}
