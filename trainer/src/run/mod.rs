//! The commands' work; the only module that sees every stage.
//!
//! Read `training` first: it shows every stage of a step by name.

mod conversation;
mod demonstrations;
mod evaluation;
mod failed_batch;
mod manifest;
mod memory;
mod question_order;
mod lint;
mod loaded_model;
mod replay;
mod rollout_engine;
mod serve;
mod training;
mod warm_start;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use shared::shutdown::Shutdown;

pub use conversation::chat;
pub use evaluation::{eval, eval_until};
pub use lint::lint;
pub use replay::replay;
pub use serve::{serve, serve_on};
pub use training::{train, train_until};
pub use warm_start::{sft, sft_until};

use crate::convert::{Dtype, convert_gguf};
use crate::eval::Searches;
use crate::stop::{StopFlag, Stopped};
use crate::track::Progress;

/// The user asked the process to stop before its work was done.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// The flag that SIGTERM and SIGINT raise.
fn signals() -> anyhow::Result<StopFlag> {
    StopFlag::listen().context("cannot listen for signals")
}

/// Whether the work that returned `result` was done rather than stopped; any other error stays one.
fn is_done(result: anyhow::Result<()>) -> anyhow::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.chain().any(<dyn std::error::Error>::is::<Stopped>) => Ok(false),
        Err(error) => Err(error),
    }
}

/// How a command ends that was stopped. SIGTERM, by which a supervisor ends what it started, is no
/// failure.
fn end_stopped(stop: &StopFlag) -> anyhow::Result<()> {
    match stop.wish() {
        Some(Shutdown::Interrupt) => Err(Interrupted.into()),
        Some(Shutdown::Terminate) | None => Ok(()),
    }
}

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

/// `trainer convert`: a GGUF file into a Hugging Face folder.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn convert(
    gguf: &Path,
    folder: &Path,
    dtype: Dtype,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut progress: Option<Progress> = None;
    let summary = convert_gguf(gguf, folder, dtype, &mut |done, total| {
        let bar =
            progress.get_or_insert_with(|| Progress::start("convert", total as u64, "tensors"));
        bar.set(done as u64);
    })?;
    if let Some(progress) = progress {
        progress.finish();
    }
    let found = if summary.reused { "already there" } else { "written" };
    writeln!(
        out,
        "{}: {found}, {} tensors, {} parameters",
        folder.display(),
        summary.tensors,
        summary.parameters
    )?;
    Ok(())
}
