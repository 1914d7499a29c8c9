//! `report.html`: what a run has shown, on one page that needs nothing else. Reads the files of a
//! run directory and writes one; measures nothing itself.
//!
//! Evaluations are read from `RUN_DIR/eval/*.json`. Three file names have a meaning: [`BEFORE`],
//! [`AFTER`] and [`AFTER_RANDOM`] are what the headline compares. All others are rows of the table.

mod chart;
mod comparison;
mod curves;
mod episodes;
mod facts;
mod markup;
mod page;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::eval::{EvalError, EvalResult, summary_table};
use crate::track::{MetricsError, Phase, StepMetrics, read_metrics, read_phases};

pub use comparison::{Comparison, Headline};

/// File name, without its ending, of the evaluation after the warm start.
pub const BEFORE: &str = "warm-start";
/// File name, without its ending, of the evaluation after GRPO.
pub const AFTER: &str = "grpo";
/// File name, without its ending, of the evaluation after GRPO with random passages.
pub const AFTER_RANDOM: &str = "grpo-random-passages";

/// Folder within the run's in which the warm start may have a run directory of its own.
const WARM_START_FOLDER: &str = "sft";

const REPORT_FILE: &str = "report.html";

/// Where the evaluation with this file name lies.
pub fn evaluation_path(run_dir: &Path, name: &str) -> PathBuf {
    run_dir.join("eval").join(format!("{name}.json"))
}

/// Everything that a report is made from.
#[derive(Clone, Debug)]
pub struct RunRecord {
    /// Heading of the page.
    pub title: String,
    /// By file name without its ending, in the order in which tables show them.
    pub evaluations: Vec<(String, EvalResult)>,
    pub metrics: Vec<StepMetrics>,
    pub phases: Vec<Phase>,
    /// `config.toml`, if there is one.
    pub config: Option<String>,
    /// What `manifest.json` says, flattened; empty if there is none.
    pub facts: Vec<(String, String)>,
}

/// Why a report cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{}: nothing to report: there is neither metrics.jsonl nor eval/*.json", .0.display())]
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
    /// Reads what a run has left in its directory; parts that are missing stay empty, parts that
    /// cannot be read are refused.
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
            facts,
        })
    }

    /// The evaluation with this file name.
    pub fn evaluation(&self, name: &str) -> Option<&EvalResult> {
        self.evaluations.iter().find(|(stem, _)| stem == name).map(|(_, result)| result)
    }

    /// The page.
    pub fn to_html(&self) -> String {
        page::page(self)
    }

    /// The headline for a terminal.
    pub fn to_text(&self) -> String {
        let results: Vec<&EvalResult> = self.evaluations.iter().map(|(_, result)| result).collect();
        let mut text = String::new();
        if !results.is_empty() {
            text.push_str(&summary_table(&results));
        }
        for comparison in Headline::of(self).comparisons() {
            text.push_str(&comparison.sentence());
            text.push('\n');
        }
        text
    }
}

/// Writes `RUN_DIR/report.html` and tells the headline on `out`.
pub fn write_report(
    run_dir: &Path,
    title: Option<&str>,
    out: &mut dyn Write,
) -> Result<PathBuf, ReportError> {
    let record = RunRecord::load(run_dir, title)?;
    let path = run_dir.join(REPORT_FILE);
    let partial = run_dir.join(".report.html.partial");
    let mut file = File::create(&partial).map_err(io_error("create", &partial))?;
    file.write_all(record.to_html().as_bytes()).map_err(io_error("write", &partial))?;
    file.sync_all().map_err(io_error("sync", &partial))?;
    std::fs::rename(&partial, &path).map_err(io_error("rename to", &path))?;
    write!(out, "{}\nreport: {}\n", record.to_text(), path.display())
        .map_err(io_error("tell of", &path))?;
    Ok(path)
}

fn read_if_present(path: &Path) -> Result<Option<String>, ReportError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

/// What readers call an evaluation that the headline compares.
fn called(stem: &str) -> Option<&'static str> {
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
            // A result that was given no better name than its file's is called by its part.
            if result.name == stem {
                called(stem).unwrap_or(stem).clone_into(&mut result.name);
            }
            evaluations.push((stem.to_owned(), result));
        }
    }
    // The story first, the rest by name.
    let rank = |stem: &str| match stem {
        BEFORE => 1,
        AFTER => 2,
        AFTER_RANDOM => 3,
        "base" => 0,
        _ => 4,
    };
    evaluations.sort_by(|(one, _), (other, _)| (rank(one), one).cmp(&(rank(other), other)));
    Ok(evaluations)
}
