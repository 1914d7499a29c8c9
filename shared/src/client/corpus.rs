//! Reads a corpus file whole, for whoever needs passages without a retriever.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Passage;

/// What is wrong with a corpus file.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {reason}", path.display(), line.map(|line| format!(", line {line}")).unwrap_or_default())]
pub struct CorpusError {
    /// The corpus file.
    pub path: PathBuf,
    /// Counted from 1.
    pub line: Option<usize>,
    /// What is wrong.
    pub reason: String,
}

#[derive(Deserialize)]
struct Record {
    id: String,
    contents: String,
}

/// All passages of the JSON Lines file at `path`, one `{"id","contents"}` a line.
pub fn read_corpus(path: &Path) -> Result<Vec<Passage>, CorpusError> {
    let failed = |line: Option<usize>, reason: String| CorpusError {
        path: path.to_path_buf(),
        line,
        reason,
    };
    let file = File::open(path).map_err(|error| failed(None, error.to_string()))?;
    let mut passages = Vec::new();
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let number = Some(index + 1);
        let line = line.map_err(|error| failed(number, error.to_string()))?;
        if line.trim().is_empty() {
            continue;
        }
        let Record { id, contents } =
            serde_json::from_str(&line).map_err(|error| failed(number, error.to_string()))?;
        passages.push(Passage::new(id, contents));
    }
    Ok(passages)
}
