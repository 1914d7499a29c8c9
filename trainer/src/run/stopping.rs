//! The signals that stop a command, and its end after a stop.

use anyhow::Context as _;
use shared::machine::shutdown::Shutdown;

use crate::stop::{StopFlag, Stopped};

/// The user interrupted the process before its work was done.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Returns the flag that SIGTERM and SIGINT raise.
///
/// # Errors
/// The system's, when signals cannot be listened for.
pub(super) fn signals() -> anyhow::Result<StopFlag> {
    StopFlag::listen().context("cannot listen for signals")
}

/// Returns `true` if work was done, `false` if it was stopped.
///
/// # Errors
/// Any other error of the work.
pub(super) fn is_done(result: anyhow::Result<()>) -> anyhow::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.chain().any(<dyn std::error::Error>::is::<Stopped>) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Ends a command that was stopped. SIGTERM, with which a supervisor stops what it started, is not a failure.
///
/// # Errors
/// [`Interrupted`] after SIGINT.
pub(super) fn end_stopped(stop: &StopFlag) -> anyhow::Result<()> {
    match stop.signal() {
        Some(Shutdown::Interrupt) => Err(Interrupted.into()),
        Some(Shutdown::Terminate) | None => Ok(()),
    }
}
