//! The commands' work; the only module that sees every stage.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::eval::Searches;

/// The user asked the process to stop before its work was done.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// What `trainer eval` was asked for beyond the configuration.
#[derive(Clone, Debug)]
pub struct EvalOptions {
    /// What the result is called in tables.
    pub name: String,
    pub searches: Searches,
    /// Where the result goes; beside the run's other files if not given.
    pub out: Option<PathBuf>,
}

/// What `trainer chat` was asked for beyond the configuration.
#[derive(Clone, Debug)]
pub struct ChatOptions {
    /// Asked once; without it questions are read from the terminal.
    pub question: Option<String>,
}

/// Number format of converted weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum WeightDtype {
    Bf16,
    F16,
    F32,
}

pub fn sft(_config: &Config, _out: &mut dyn Write) -> anyhow::Result<()> {
    anyhow::bail!("not built in")
}

pub fn train(_config: &Config, _out: &mut dyn Write) -> anyhow::Result<()> {
    anyhow::bail!("not built in")
}

pub fn eval(_config: &Config, _options: &EvalOptions, _out: &mut dyn Write) -> anyhow::Result<()> {
    anyhow::bail!("not built in")
}

pub fn chat(_config: &Config, _options: &ChatOptions, _out: &mut dyn Write) -> anyhow::Result<()> {
    anyhow::bail!("not built in")
}

pub fn convert(
    _gguf: &Path,
    _folder: &Path,
    _dtype: WeightDtype,
    _out: &mut dyn Write,
) -> anyhow::Result<()> {
    anyhow::bail!("not built in")
}
