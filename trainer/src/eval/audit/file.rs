//! The result of an audit as a file, and the weights of questions that follow from it.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shared::contract::jsonl::write_record;
use shared::contract::rows::RowsError;
use shared::machine::atomic_file::{self, AtomicError};

use crate::stop::Stopped;

/// The place of the answers to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerClass {
    /// No accepted answer stands in any passage of the corpus.
    Absent,
    /// An accepted answer stands in the corpus, and in none of the passages that a retriever returned.
    Beyond,
    /// An accepted answer stands in a passage that a retriever returned.
    Within,
    /// An accepted answer stands in the corpus; no retriever was asked.
    InCorpus,
}

impl AnswerClass {
    /// Classifies a question by the number of passages with an answer, and the position of the first one for each retriever.
    pub fn of(passages: u32, ranks: &[Option<usize>]) -> Self {
        match (passages, ranks) {
            (_, ranks) if ranks.iter().any(Option::is_some) => Self::Within,
            (0, _) => Self::Absent,
            (_, []) => Self::InCorpus,
            _ => Self::Beyond,
        }
    }
}

/// A question and where its answers stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRow {
    /// Id of the question in its set.
    pub id: String,
    pub question: String,
    pub class: AnswerClass,
    /// Number of passages in which one accepted answer stands, of the accepted answers the one with most passages.
    pub passages: u32,
    /// For each retriever, the position from 1 of the first passage with an accepted answer.
    pub ranks: Vec<Option<usize>>,
}

/// A set of questions, by the name that it has in tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditedSet {
    pub name: String,
    pub path: PathBuf,
    pub rows: Vec<AuditRow>,
}

/// The corpus that was searched for answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditedCorpus {
    pub path: PathBuf,
    /// Number of passages.
    pub passages: u64,
    /// Wall time of the pass, in seconds.
    pub seconds: f64,
}

/// A retriever that was asked every question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditedRetriever {
    /// Its name in tables.
    pub name: String,
    /// Its address, without secrets.
    pub url: String,
}

/// The audit of one corpus for any number of sets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Audit {
    pub corpus: AuditedCorpus,
    /// Number of passages that each retriever was asked for.
    pub depth: usize,
    pub retrievers: Vec<AuditedRetriever>,
    pub sets: Vec<AuditedSet>,
}

/// The weight of a question in training, by its class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassWeights {
    /// Weight of [`AnswerClass::Absent`].
    pub absent: f64,
    /// Weight of [`AnswerClass::Beyond`].
    pub beyond: f64,
}

impl Default for ClassWeights {
    fn default() -> Self {
        Self { absent: 0.0, beyond: 1.0 }
    }
}

/// An audit that cannot be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The corpus cannot be read.
    #[error(transparent)]
    Corpus(#[from] RowsError),
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error(transparent)]
    Atomic(#[from] AtomicError),
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{}: not an audit, which `trainer audit` writes: {source}", path.display())]
    Format { path: PathBuf, source: serde_json::Error },
    /// The audit was made for other questions.
    #[error(
        "the audit has no row for {missing} of {asked} questions, first {id:?}: run `trainer audit` with this set"
    )]
    OtherQuestions { missing: usize, asked: usize, id: String },
}

impl Audit {
    /// Writes the audit to a file, which is replaced as a whole or not at all.
    ///
    /// # Errors
    /// The file system's.
    pub fn save(&self, path: &Path) -> Result<(), AuditError> {
        let bytes = serde_json::to_vec(self).map_err(|error| AuditError::Io {
            action: "encode",
            path: path.to_owned(),
            source: error.into(),
        })?;
        write(path, &bytes)
    }

    /// Reads an audit.
    ///
    /// # Errors
    /// A file that cannot be read or is not an audit.
    pub fn load(path: &Path) -> Result<Self, AuditError> {
        let file = File::open(path).map_err(|source| AuditError::Io {
            action: "open",
            path: path.to_owned(),
            source,
        })?;
        serde_json::from_reader(BufReader::new(file))
            .map_err(|source| AuditError::Format { path: path.to_owned(), source })
    }
}

impl AuditedSet {
    /// Writes one line `{"id": …, "weight": …}` for each question, in the order of the set: the form of `data.weights`.
    ///
    /// # Errors
    /// The file system's.
    pub fn save_weights(&self, path: &Path, weights: ClassWeights) -> Result<(), AuditError> {
        #[derive(Serialize)]
        struct Weight<'r> {
            id: &'r str,
            weight: f64,
        }
        let mut lines = Vec::new();
        for row in &self.rows {
            let weight = match row.class {
                AnswerClass::Absent => weights.absent,
                AnswerClass::Beyond => weights.beyond,
                AnswerClass::Within | AnswerClass::InCorpus => 1.0,
            };
            write_record(&mut lines, &Weight { id: &row.id, weight }).map_err(|source| {
                AuditError::Io { action: "encode", path: path.to_owned(), source }
            })?;
        }
        write(path, &lines)
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), AuditError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|source| AuditError::Io {
            action: "create",
            path: folder.to_owned(),
            source,
        })?;
    }
    Ok(atomic_file::write(path, bytes)?)
}
