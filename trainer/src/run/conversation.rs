//! `trainer chat`: ask the model, watch it think, search and answer.

use std::io::Write;

use super::ChatOptions;
use crate::config::Config;

/// Asks `options.question`, or every question read from the terminal.
///
/// # Errors
/// Anything wrong with the model or the terminal, named.
pub fn chat(_config: &Config, _options: &ChatOptions, _out: &mut dyn Write) -> anyhow::Result<()> {
    anyhow::bail!("not built in")
}
