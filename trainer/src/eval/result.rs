//! One evaluation as a file: question, answer and searches, row by row. Every figure of a report can be
//! computed again from these rows.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::audit::{Audit, AuditError, Ceiling};
use super::statistics::{Mean, Proportion};
use crate::rollout::trajectory::{EndReason, Trajectory};

/// The source of passages in an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Searches {
    /// The retriever of the configuration
    Retriever,
    /// Passages drawn at random from the corpus, as a control
    Random,
    /// Nothing: the model must answer without passages
    None,
}

impl Searches {
    /// Returns the name in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retriever => "retriever",
            Self::Random => "random",
            Self::None => "none",
        }
    }
}

/// The way in which a question is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// The model searches when it wants to.
    #[default]
    Search,
    /// The model answers at once.
    Direct,
    /// The model thinks step by step and answers.
    ChainOfThought,
    /// The passages of one search with the question are in the prompt.
    Rag,
}

/// One question and its result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalRow {
    pub example_id: String,
    pub question: String,
    pub golden_answers: Vec<String>,
    /// The answer; `None` if the model gave none.
    pub prediction: Option<String>,
    /// `true` if the answer equals a golden one after normalisation.
    pub em: bool,
    /// `true` if the answer contains a golden one after normalisation.
    pub sub_em: bool,
    /// Word overlap with the best golden answer, from 0 to 1.
    pub f1: f64,
    /// Number of searches sent.
    pub searches: usize,
    /// `true` if a passage that the model saw has a golden answer, both normalised.
    #[serde(default)]
    pub answer_in_passages: bool,
    pub end: EndReason,
    /// The whole episode, if it was kept.
    pub trajectory: Option<Trajectory>,
}

/// One evaluation of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalResult {
    /// Its name in tables.
    pub name: String,
    /// The model: its folder and digest, as far as they are known.
    pub model: String,
    pub searches: Searches,
    /// Number of questions asked, including those without a row.
    pub questions: usize,
    /// Wall time in seconds.
    pub seconds: f64,
    /// The name of the set, if it was one of several.
    #[serde(default)]
    pub set: Option<String>,
    #[serde(default)]
    pub method: Method,
    /// Turns that may search, at most.
    #[serde(default)]
    pub max_turns: Option<usize>,
    /// The ceiling of the corpus for these questions, if an audit was given.
    #[serde(default)]
    pub ceiling: Option<Ceiling>,
    /// A digest of what decides the answers, by which a later call recognises finished work.
    #[serde(default)]
    pub key: Option<String>,
    pub rows: Vec<EvalRow>,
}

/// An error in reading or writing an evaluation.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    #[error(transparent)]
    Atomic(#[from] shared::machine::atomic_file::AtomicError),
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{}: not an evaluation: {source}", path.display())]
    Format { path: PathBuf, source: serde_json::Error },
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EvalError {
    let path = path.to_owned();
    move |source| EvalError::Io { action, path, source }
}

impl EvalResult {
    /// Returns the share of exact answers. A question without an answer counts as wrong.
    pub fn em(&self) -> Proportion {
        Proportion::from_outcomes(self.rows.iter().map(|row| row.em))
    }

    /// Returns the share of answers that contain a golden one.
    pub fn sub_em(&self) -> Proportion {
        Proportion::from_outcomes(self.rows.iter().map(|row| row.sub_em))
    }

    pub fn f1(&self) -> Mean {
        Mean::from_values(&self.rows.iter().map(|row| row.f1).collect::<Vec<_>>())
    }

    /// Returns the mean number of searches per question.
    pub fn searches_per_question(&self) -> f64 {
        let total: usize = self.rows.iter().map(|row| row.searches).sum();
        total as f64 / self.rows.len() as f64
    }

    /// Returns the share of questions with an answer.
    pub fn answered(&self) -> Proportion {
        Proportion::from_outcomes(self.rows.iter().map(|row| row.prediction.is_some()))
    }

    /// Returns the share of questions with a golden answer in a passage that the model saw.
    pub fn answer_in_passages(&self) -> Proportion {
        Proportion::from_outcomes(self.rows.iter().map(|row| row.answer_in_passages))
    }

    /// Returns the share of episodes that ended with an answer.
    pub fn finished(&self) -> Proportion {
        Proportion::from_outcomes(self.rows.iter().map(|row| row.end == EndReason::Answered))
    }

    /// Returns the ceiling of the corpus for these questions.
    ///
    /// # Errors
    /// An audit without one of the questions.
    pub fn ceiling_by(&self, audit: &Audit) -> Result<Ceiling, AuditError> {
        let asked = self.rows.iter().map(|row| (row.example_id.as_str(), row.question.as_str()));
        Ceiling::of_questions(audit, asked)
    }

    /// Writes the result to a file, which is replaced as a whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), EvalError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(io_error("create", folder))?;
        }
        let bytes = serde_json::to_vec(self)
            .map_err(|error| io_error("encode", path)(io::Error::from(error)))?;
        Ok(shared::machine::atomic_file::write(path, &bytes)?)
    }

    pub fn load(path: &Path) -> Result<Self, EvalError> {
        let file = File::open(path).map_err(io_error("open", path))?;
        serde_json::from_reader(BufReader::new(file))
            .map_err(|source| EvalError::Format { path: path.to_owned(), source })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Creates a result of `total` questions; the first `right` of them are answered exactly.
    pub(crate) fn result(name: &str, right: usize, total: usize) -> EvalResult {
        let row = |index: usize| EvalRow {
            example_id: format!("q{index}"),
            question: format!("Question {index}?"),
            golden_answers: vec!["Rome".to_owned()],
            prediction: (index % 10 != 9).then(|| "Rome".to_owned()),
            em: index < right,
            sub_em: index < right,
            f1: if index < right { 1.0 } else { 0.0 },
            searches: 1 + index % 2,
            answer_in_passages: index.is_multiple_of(2),
            end: EndReason::Answered,
            trajectory: None,
        };
        EvalResult {
            name: name.to_owned(),
            model: "runs/demo/checkpoints/step-60".to_owned(),
            searches: Searches::Retriever,
            questions: total,
            seconds: 12.5,
            set: None,
            method: Method::Search,
            max_turns: Some(4),
            ceiling: None,
            key: None,
            rows: (0..total).map(row).collect(),
        }
    }

    #[test]
    fn results_come_back_as_they_were_saved() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("eval").join("after.json");
        let saved = result("after GRPO", 3, 10);
        saved.save(&path).unwrap();
        assert_eq!(EvalResult::load(&path).unwrap(), saved);
        let names: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1, "only the result remains: {names:?}");
    }

    #[test]
    fn figures_count_every_row() {
        let result = result("x", 3, 10);
        assert_eq!(result.em(), Proportion { successes: 3, total: 10 });
        assert_eq!(result.answered(), Proportion { successes: 9, total: 10 });
        assert_eq!(result.finished(), Proportion { successes: 10, total: 10 });
        assert_eq!(result.answer_in_passages(), Proportion { successes: 5, total: 10 });
        assert!((result.f1().value - 0.3).abs() < 1e-12);
        assert!((result.searches_per_question() - 1.5).abs() < 1e-12);
    }

    #[test]
    fn errors_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        let message = EvalResult::load(&path).unwrap_err().to_string();
        assert!(message.starts_with("cannot open ") && message.contains("x.json"), "{message}");
        std::fs::write(&path, "{\"name\": 3}").unwrap();
        let message = EvalResult::load(&path).unwrap_err().to_string();
        assert!(message.contains("x.json: not an evaluation: invalid type"), "{message}");
    }
}
