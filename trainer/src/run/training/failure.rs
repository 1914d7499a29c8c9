//! Ends of a run that have an exit code of their own, and what they say of the checkpoints that stay.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A file of the run could not be written, as on a full disk.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}; {kept}", path.display())]
pub struct NotWritten {
    /// The checkpoint, or the folder of the run.
    path: PathBuf,
    /// The last good checkpoint, in words.
    kept: String,
}

/// The run collapsed again after as many returns as the guard may make.
#[derive(Debug, thiserror::Error)]
#[error(
    "the run has collapsed at step {step} ({reason}) after {rollbacks} returns to a healthy checkpoint, as many as \
     guard.max_rollbacks allows; {kept}"
)]
pub struct Collapsed {
    pub(super) step: u64,
    pub(super) reason: String,
    pub(super) rollbacks: u64,
    /// The last healthy checkpoint, in words.
    pub(super) kept: String,
}

/// The guard has decided to return to a healthy checkpoint, which the journal of the run says.
#[derive(Debug, thiserror::Error)]
#[error("the run returns to step {to_step}: {reason}")]
pub(super) struct Returning {
    pub(super) to_step: u64,
    pub(super) reason: String,
}

/// Returns the checkpoint of `step` in words; without one, how the run begins anew.
pub(super) fn kept_in_words(run_dir: &Path, step: Option<u64>, kind: &str) -> String {
    match step {
        Some(step) => {
            let folder = checkpoint_folder(run_dir, step);
            format!(
                "the last {kind} checkpoint is {}: the same command resumes from it",
                folder.display()
            )
        }
        None => format!("no {kind} checkpoint exists yet: the same command begins anew"),
    }
}

/// Returns the folder of the checkpoint of a step.
pub(super) fn checkpoint_folder(run_dir: &Path, step: u64) -> PathBuf {
    run_dir.join("checkpoints").join(format!("step-{step}"))
}

impl NotWritten {
    /// Adds the last good checkpoint of a run to an error in writing `path`.
    pub(super) fn explain(
        error: anyhow::Error,
        path: &Path,
        run_dir: &Path,
        saved_step: Option<u64>,
    ) -> anyhow::Error {
        let kept = kept_in_words(run_dir, saved_step, "good");
        error.context(Self { path: path.to_owned(), kept })
    }

    /// Returns `true` for an error of a disk that takes no more.
    pub(super) fn is_cause(error: &anyhow::Error) -> bool {
        let full = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::FileTooLarge];
        error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).any(|cause| {
            full.contains(&cause.kind()) || cause.kind() == ErrorKind::ReadOnlyFilesystem
        })
    }
}
