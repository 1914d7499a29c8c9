//! Results that an earlier call has finished. They count only if everything that decides the answers is the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde_json::json;
use shared::contract::digest::Digest;

use super::suite::Cell;
use crate::config::Config;
use crate::eval::EvalResult;
use crate::run::settings;

/// Returns the result in a file if it has this key.
pub(super) fn kept(path: &Path, key: &str) -> Option<EvalResult> {
    // A file that cannot be read is written anew.
    EvalResult::load(path).ok().filter(|result| result.key.as_deref() == Some(key))
}

/// Returns a digest of everything that decides the answers of a cell: the configuration, the model's files and the
/// questions. An index behind the same address is not seen.
pub(super) fn key(config: &Config, cell: &Cell) -> anyhow::Result<String> {
    let records = settings::questions::held_out_questions(config).records()?;
    let questions: Vec<_> = records
        .iter()
        .map(|record| json!([record.id, record.question, record.golden_answers]))
        .collect();
    // Keys that change no answer must not undo finished work.
    let mut same = config.clone();
    same.run_dir = PathBuf::new();
    same.data.train = PathBuf::new();
    same.data.test = PathBuf::new();
    same.eval.audit = None;
    same.eval.batch = 1;
    let parts = json!([
        env!("CARGO_PKG_VERSION"),
        same.to_toml(),
        cell.entry,
        cell.method,
        cell.max_turns,
        cell.searches,
        model_files(&config.model.path)?,
        questions,
    ]);
    Ok(Digest::of_bytes(parts.to_string().as_bytes()).to_string())
}

/// Returns names, sizes and times of the files in a model's folder. Their bytes would take minutes to read.
fn model_files(folder: &Path) -> anyhow::Result<Vec<(String, u64, String)>> {
    let wrong = |error| anyhow::anyhow!("model.path = {}: {error}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(wrong)? {
        let entry = entry?;
        let facts = fs::metadata(entry.path())?;
        let since = facts.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = entry.file_name().to_string_lossy().into_owned();
        files.push((name, facts.len(), format!("{since:?}")));
    }
    files.sort();
    Ok(files)
}
