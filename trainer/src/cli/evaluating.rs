//! The arguments of `audit` and `compare`, and those of `eval` for several sets.

use std::path::PathBuf;

use clap::Args;

use super::arguments::CommonArguments;
use crate::eval::audit::ClassWeights;
use crate::run::{AuditOptions, Baseline, CompareOptions, Named};

#[derive(Debug, Args)]
pub struct AuditArguments {
    #[command(flatten)]
    pub common: CommonArguments,
    /// Corpus to search, a file or a folder of parts: short for --set data.corpus=PATH
    #[arg(long, value_name = "PATH")]
    pub corpus: Option<PathBuf>,
    /// Set of questions to audit, with its name in tables; can be repeated [default: data.test and data.train]
    #[arg(long, value_name = "NAME=FILE", value_parser = named_file)]
    pub questions: Vec<Named<PathBuf>>,
    /// Retriever that is asked every question, with its name in tables; can be repeated
    #[arg(long, value_name = "NAME=URL", value_parser = named_url)]
    pub retriever: Vec<Named<String>>,
    /// Number of passages that each retriever is asked for
    #[arg(long, value_name = "PASSAGES", default_value = "100", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub depth: u16,
    /// Weight, in the files for training, of questions whose answers stand in no passage
    #[arg(long, value_name = "WEIGHT", default_value = "0", value_parser = weight)]
    pub weight_absent: f64,
    /// Weight of questions whose answers stand in the corpus and in no passage that a retriever returned
    #[arg(long, value_name = "WEIGHT", default_value = "1", value_parser = weight)]
    pub weight_beyond: f64,
    /// Folder to write audit.json and NAME.weights.jsonl to [default: RUN_DIR/audit]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// The arguments of an evaluation of several sets, turn limits or methods.
#[derive(Debug, Args)]
pub struct SeveralArguments {
    /// Set of questions to ask, with its name in tables; can be repeated [default: data.test]
    #[arg(long, value_name = "NAME=FILE", value_parser = named_file)]
    pub questions: Vec<Named<PathBuf>>,
    /// Turn limits, separated by commas; every set is asked with each of them [default: rollout.max_turns]
    #[arg(long, value_name = "TURNS", value_delimiter = ',')]
    pub turns: Vec<usize>,
    /// Methods to compare with, separated by commas
    #[arg(long, value_enum, value_delimiter = ',')]
    pub baselines: Vec<Baseline>,
    /// Model before its training, which the baselines ask [default: the evaluated model]
    #[arg(long, value_name = "DIR", required_if_eq("baselines", "untrained"))]
    pub untrained: Option<PathBuf>,
}

impl SeveralArguments {
    /// Returns `true` if one of them was given.
    pub(super) fn is_given(&self) -> bool {
        !(self.questions.is_empty() && self.turns.is_empty() && self.baselines.is_empty())
    }
}

#[derive(Debug, Args)]
pub struct CompareArguments {
    /// Evaluation, a folder of several, or a run's folder
    #[arg(value_name = "RUN_A")]
    pub before: PathBuf,
    /// The same, compared with the first
    #[arg(value_name = "RUN_B")]
    pub after: PathBuf,
    /// Seed of the bootstrap
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Flipped questions to print of each kind; --json has all
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    pub flips: usize,
    /// File to write the whole comparison to
    #[arg(long, value_name = "FILE.json")]
    pub json: Option<PathBuf>,
}

impl CompareArguments {
    pub(super) fn into_options(self) -> CompareOptions {
        let Self { before, after, seed, flips, json } = self;
        CompareOptions { before, after, seed, flips, json }
    }
}

impl AuditArguments {
    /// Returns the arguments of the configuration and the options beyond it.
    pub fn split(self) -> (CommonArguments, AuditOptions) {
        let mut common = self.common;
        if let Some(corpus) = &self.corpus {
            common.set.push(format!("data.corpus={}", corpus.display()));
        }
        let options = AuditOptions {
            sets: self.questions,
            retrievers: self.retriever,
            depth: usize::from(self.depth),
            weights: ClassWeights { absent: self.weight_absent, beyond: self.weight_beyond },
            out: self.out,
        };
        (common, options)
    }
}

/// Reads `NAME=FILE`. Without a name, the file's is taken up to its first dot.
pub(super) fn named_file(text: &str) -> Result<Named<PathBuf>, String> {
    let (name, path) = if let Some((name, path)) = text.split_once('=') {
        (name.to_owned(), PathBuf::from(path))
    } else {
        let path = PathBuf::from(text);
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (file.split('.').next().unwrap_or_default().to_owned(), path)
    };
    if name.trim().is_empty() || path.as_os_str().is_empty() {
        return Err("takes NAME=FILE or FILE, both not empty".to_owned());
    }
    Ok(Named { name, value: path })
}

/// Reads `NAME=URL`. Without a name, the address is the name.
fn named_url(text: &str) -> Result<Named<String>, String> {
    let (name, url) = match text.split_once('=') {
        // An address may itself contain the mark.
        Some((name, url)) if !name.contains("://") => (name, url),
        _ => (text, text),
    };
    if name.trim().is_empty() || url.trim().is_empty() {
        return Err("takes NAME=URL or URL, both not empty".to_owned());
    }
    Ok(Named { name: name.to_owned(), value: url.to_owned() })
}

/// Reads a weight.
fn weight(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(weight) if weight.is_finite() && weight >= 0.0 => Ok(weight),
        _ => Err("takes a number, at least 0".to_owned()),
    }
}
