//! The part of `index` that derives files from vectors: rows in fewer bits, and a graph.

use std::io::Write;
use std::time::Instant;

use super::progress::ProgressPrinter;
use crate::config::EncoderConfig;
use crate::index::build::BuildRequest;
use crate::index::dense::ann::BuildEffort;
use crate::index::dense::{GraphEntry, VectorSource, ann, formats};

/// Adds the derived files that the configuration needs and the index lacks.
pub(super) fn index(
    config: &EncoderConfig,
    request: &BuildRequest,
    source: &VectorSource,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let (index, folder) = (&request.index, request.index.display());
    let (count, format) = (source.passage_count, config.vector_format);
    if config.reads_rows && !formats::exist(index, source, format)? {
        let started = Instant::now();
        let mut printer = ProgressPrinter::start();
        formats::build(index, source, format, &mut |progress| printer.report(progress))?;
        printer.finish();
        let (name, seconds) = (format.name(), started.elapsed().as_secs_f64());
        writeln!(out, "converted {count} vectors to {name} in {seconds:.1} s: {folder}")?;
    }
    let Some(kind) = config.graph else { return Ok(()) };
    let name = kind.name();
    let warn = |entry: &GraphEntry, out: &mut dyn Write| match entry.warning(count, config.hnsw_ef)
    {
        Some(warning) => writeln!(out, "warning: {warning}"),
        None => Ok(()),
    };
    if let Some(entry) = ann::current(index, source, kind, format, config.hnsw_ef)? {
        writeln!(out, "up to date, {name} graph over {count} vectors: {folder}")?;
        return Ok(warn(&entry, out)?);
    }
    let started = Instant::now();
    let mut printer = ProgressPrinter::start();
    let mut report = |progress| printer.report(progress);
    let effort = BuildEffort { threads: request.threads, saving: ann::SAVING };
    let entry = ann::build_kind(index, source, kind, format, effort, &mut report)?;
    printer.finish();
    let seconds = started.elapsed().as_secs_f64();
    let recalls = match entry.recalls() {
        recalls if recalls.is_empty() => String::new(),
        recalls => format!(", recall@10 {recalls}"),
    };
    writeln!(out, "linked {count} vectors in {seconds:.1} s, {name} graph{recalls}: {folder}")?;
    Ok(warn(&entry, out)?)
}
