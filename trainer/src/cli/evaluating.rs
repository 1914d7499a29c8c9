//! The arguments of `audit`.

use std::path::PathBuf;

use clap::Args;

use super::arguments::CommonArguments;
use crate::eval::audit::ClassWeights;
use crate::run::{AuditOptions, Named};

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
    let (name, path) = match text.split_once('=') {
        Some((name, path)) => (name.to_owned(), PathBuf::from(path)),
        None => {
            let path = PathBuf::from(text);
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (file.split('.').next().unwrap_or_default().to_owned(), path)
        }
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
