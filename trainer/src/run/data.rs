//! `trainer data convert`: a question file of another project into the project's JSON Lines.

use std::io::Write;
use std::path::Path;

use shared::machine::atomic_file;
use tracing::warn;

use crate::data::conversion::{Converted, Template, convert};

/// Converts `input`, a file or a folder of parts, and writes `output`.
///
/// # Errors
/// A file that cannot be read or written, an output that is the input, and rows without a certain question or answer, by
/// their numbers.
pub fn convert_questions(input: &Path, output: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    if let (Ok(from), Ok(to)) = (input.canonicalize(), output.canonicalize()) {
        anyhow::ensure!(
            !to.starts_with(&from),
            "{} is the input: choose another output, because the conversion leaves fields out",
            output.display()
        );
    }
    let Converted { lines, count, template, warnings } = convert(input)?;
    for warning in warnings {
        warn!("{warning}");
    }
    atomic_file::write(output, &lines)?;
    let questions = if count == 1 { "question" } else { "questions" };
    writeln!(out, "{}: {count} {questions} of {}", output.display(), input.display())?;
    match template {
        Template::Absent => {}
        Template::Same(text) => writeln!(out, "template = {}", serde_json::to_string(&text)?)?,
        Template::Different => writeln!(out, "the prompts differ, so there is no template")?,
    }
    Ok(())
}
