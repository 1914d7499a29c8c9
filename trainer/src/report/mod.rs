//! `report.html`: the results of a run on one self-contained page. Reads the files of a run directory and
//! writes one file; measures nothing itself.
//!
//! Evaluations are read from `RUN_DIR/eval/*.json`. The headline compares those with the file names
//! [`BEFORE`], [`AFTER`] and [`AFTER_RANDOM`]. All evaluations are rows of the table.

mod chart;
mod comparison;
mod curves;
mod episodes;
mod facts;
mod guard;
mod markup;
mod page;
mod suite;

#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::eval::{EvalError, EvalResult, summary_table};
use crate::track::{MetricsError, Phase, StepMetrics, read_metrics, read_phases};

pub use comparison::{Comparison, Headline};
pub use suite::suite_page;

/// File stem of the evaluation after the warm start.
pub const BEFORE: &str = "warm-start";
/// File stem of the evaluation after GRPO.
pub const AFTER: &str = "grpo";
/// File stem of the evaluation after GRPO with random passages.
pub const AFTER_RANDOM: &str = "grpo-random-passages";

/// Subfolder that may be the run directory of the warm start.
const WARM_START_FOLDER: &str = "sft";

const REPORT_FILE: &str = "report.html";

/// Returns the path of the evaluation with the file stem `name`.
pub fn evaluation_path(run_dir: &Path, name: &str) -> PathBuf {
    run_dir.join("eval").join(format!("{name}.json"))
}

/// The data of a report.
#[derive(Clone, Debug)]
pub struct RunRecord {
    /// The heading of the page.
    pub title: String,
    /// The evaluations with their file stems, in the order of the table.
    pub evaluations: Vec<(String, EvalResult)>,
    pub metrics: Vec<StepMetrics>,
    pub phases: Vec<Phase>,
    /// The content of `config.toml`, if it exists.
    pub config: Option<String>,
    /// The content of `manifest.json`, flattened; empty if there is none.
    pub facts: Vec<(String, String)>,
    /// The returns of the guard that `guard.json` lists, with their steps and reasons; empty if there is none.
    pub returns: Vec<(String, String)>,
}

/// An error in making a report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error(transparent)]
    Atomic(#[from] shared::machine::atomic_file::AtomicError),
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{}: nothing to report: found neither metrics.jsonl nor eval/*.json", .0.display())]
    Empty(PathBuf),
    #[error("{}: not a manifest: {source}", path.display())]
    Manifest { path: PathBuf, source: serde_json::Error },
    #[error(transparent)]
    Evaluation(#[from] EvalError),
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ReportError {
    let path = path.to_owned();
    move |source| ReportError::Io { action, path, source }
}

impl RunRecord {
    /// Reads the files of a run directory. Missing files leave their part empty; unreadable files are
    /// errors.
    pub fn load(run_dir: &Path, title: Option<&str>) -> Result<Self, ReportError> {
        let name = run_dir.file_name().unwrap_or(run_dir.as_os_str()).to_string_lossy();
        let metrics = match read_metrics(&run_dir.join("metrics.jsonl")) {
            Ok(metrics) => metrics,
            Err(MetricsError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Vec::new()
            }
            Err(error) => return Err(error.into()),
        };
        let evaluations = load_evaluations(&run_dir.join("eval"))?;
        if metrics.is_empty() && evaluations.is_empty() {
            return Err(ReportError::Empty(run_dir.to_owned()));
        }
        let manifest = run_dir.join("manifest.json");
        let facts = match read_if_present(&manifest)? {
            Some(text) => facts::flattened(&text)
                .map_err(|source| ReportError::Manifest { path: manifest, source })?,
            None => Vec::new(),
        };
        Ok(Self {
            title: title.map_or_else(|| format!("Run “{name}”"), str::to_owned),
            evaluations,
            metrics,
            phases: [read_phases(&run_dir.join(WARM_START_FOLDER)), read_phases(run_dir)].concat(),
            config: read_if_present(&run_dir.join("config.toml"))?,
            returns: guard::returns(run_dir)?,
            facts,
        })
    }

    /// Returns the evaluation with the file stem `name`.
    pub fn evaluation(&self, name: &str) -> Option<&EvalResult> {
        self.evaluations.iter().find(|(stem, _)| stem == name).map(|(_, result)| result)
    }

    /// Returns the page.
    pub fn to_html(&self) -> String {
        page::page(self)
    }

    /// Returns table and headline for a terminal.
    pub fn to_text(&self) -> String {
        let results: Vec<&EvalResult> = self.evaluations.iter().map(|(_, result)| result).collect();
        let mut text = String::new();
        if !results.is_empty() {
            text.push_str(&summary_table(&results));
        }
        for comparison in Headline::from_record(self).comparisons() {
            text.push_str(&comparison.sentence());
            text.push('\n');
        }
        text
    }
}

/// Writes `RUN_DIR/report.html` and prints the headline to `out`.
pub fn write_report(
    run_dir: &Path,
    title: Option<&str>,
    out: &mut dyn Write,
) -> Result<PathBuf, ReportError> {
    let record = RunRecord::load(run_dir, title)?;
    let path = run_dir.join(REPORT_FILE);
    shared::machine::atomic_file::write(&path, record.to_html().as_bytes())?;
    write!(out, "{}\nreport: {}\n", record.to_text(), path.display())
        .map_err(io_error("print a summary of", &path))?;
    Ok(path)
}

fn read_if_present(path: &Path) -> Result<Option<String>, ReportError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

/// Returns the readers' name of an evaluation that the headline compares.
fn readable_name(stem: &str) -> Option<&'static str> {
    match stem {
        BEFORE => Some("after the warm start"),
        AFTER => Some("after GRPO"),
        AFTER_RANDOM => Some("after GRPO, random passages"),
        _ => None,
    }
}

fn load_evaluations(folder: &Path) -> Result<Vec<(String, EvalResult)>, ReportError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("list", folder)(error)),
    };
    let mut evaluations = Vec::new();
    for entry in entries {
        let path = entry.map_err(io_error("list", folder))?.path();
        if path.extension().is_some_and(|extension| extension == "json")
            && let Some(stem) = path.file_stem().and_then(|stem| stem.to_str())
        {
            let mut result = EvalResult::load(&path)?;
            // A result without a name of its own has that of its file.
            if result.name == stem
                && let Some(name) = readable_name(stem)
            {
                name.clone_into(&mut result.name);
            }
            evaluations.push((stem.to_owned(), result));
        }
    }
    // The compared evaluations come first, the others by name.
    let rank = |stem: &str| match stem {
        BEFORE => 1,
        AFTER => 2,
        AFTER_RANDOM => 3,
        "base" => 0,
        _ => 4,
    };
    evaluations.sort_by_cached_key(|(stem, _)| (rank(stem), stem.clone()));
    Ok(evaluations)
}
