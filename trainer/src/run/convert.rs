//! `trainer convert`: a GGUF file into a Hugging Face folder.

use std::io::Write;
use std::path::Path;

use crate::convert::{Dtype, convert_gguf};
use crate::track::Progress;

/// Converts a GGUF file into a Hugging Face folder.
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
    let state = if summary.reused { "already there" } else { "written" };
    writeln!(
        out,
        "{}: {state}, {} tensors, {} parameters",
        folder.display(),
        summary.tensors,
        summary.parameters
    )?;
    Ok(())
}
