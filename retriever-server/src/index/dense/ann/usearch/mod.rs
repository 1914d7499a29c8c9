//! Graphs of the library usearch in an index. They are built, saved and measured like the graphs of
//! this program.
//!
//! Such a graph has rows of its own. During a build, all of it is in memory: 4, 2 or 1 bytes per
//! number, depending on the format, about 150 bytes per row for links, and pointers and a table of
//! keys. A search maps the file, which needs as much of the page cache, and keeps pointers and keys in
//! memory.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use shared::contract::digest::{Digest, DigestReader};

use super::{
    BuildEffort, DENSE_FOLDER, DenseRows, GraphEntry, GraphKind, SAMPLE_TOP_K, SETTINGS,
    VectorSource,
};
use super::{checked, ignore_missing, lock, measure, record, replace_file};
use crate::index::manifest::Verification;
use crate::index::progress::Progress;
use crate::index::{IndexError, io_error};
use crate::vector::usearch::{GraphShape, UsearchBuilder, UsearchError, UsearchFile};
use crate::vector::{RowFormat, Rows};

/// The length of a seal: a digest in hexadecimal digits. One ends the file of an incomplete graph, because
/// the library trusts any file that it reads.
const SEAL_BYTES: u64 = 64;

/// The number of hits that a measured search scores again, the same as in the server.
const CANDIDATES: usize = 64;

/// Returns the name of the file of a graph with rows in `format`.
pub(super) fn graph_file(format: RowFormat) -> String {
    format!("vectors.{}.usearch", format.name())
}

/// Returns the name of the file of an incomplete graph with rows in `format`.
fn partial_file(format: RowFormat) -> String {
    format!(".vectors.{}.usearch.partial", format.name())
}

/// The limits of a graph's searches.
#[derive(Clone, Copy, Debug)]
pub struct SearchLimits {
    /// The size of the candidate list of each search.
    pub ef: usize,
    /// The most searches that run concurrently.
    pub threads: usize,
}

/// Opens the graph over the vectors of `source` with rows in `format`. The library trusts the file, so
/// `verification` is the only check of its content.
pub fn open(
    index: &Path,
    source: &VectorSource,
    format: RowFormat,
    limits: SearchLimits,
    verification: Verification<'_>,
) -> Result<(GraphEntry, UsearchFile), IndexError> {
    // The library must not read a damaged file, so its digest cannot wait.
    let verification = match verification {
        Verification::Later(_) => Verification::Digests,
        other => other,
    };
    let (entry, path) = checked(index, source, GraphKind::Usearch, format, verification)?;
    let (rows, dimension) = (source.passage_count as usize, source.dimension as usize);
    let shape = GraphShape { rows, dimension, format, settings: SETTINGS };
    let file =
        UsearchFile::open(&path, shape, limits.ef, limits.threads).map_err(corrupt(&path))?;
    Ok((entry, file))
}

/// Builds the graph over the vectors of `source` with rows in `format`, or resumes a killed build.
pub fn build(
    index: &Path,
    source: &VectorSource,
    format: RowFormat,
    effort: BuildEffort,
    report: &mut dyn FnMut(Progress),
) -> Result<GraphEntry, IndexError> {
    let BuildEffort { threads, saving } = effort;
    let _lock = lock(index)?;
    let vectors = DenseRows::open(index, source, Verification::Sizes)?;
    let rows = vectors.rows()?;
    let folder = index.join(DENSE_FOLDER);
    let partial = folder.join(partial_file(format));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |fault: UsearchError| io_error(&path)(std::io::Error::other(fault))
    };
    let mut builder = start(&partial, rows, format, threads).map_err(failed(&partial))?;
    let done_before = builder.inserted() as u64;
    let (mut saved, mut cost) = (Instant::now(), Duration::ZERO);
    loop {
        let (rows, total) = (builder.inserted() as u64, rows.count() as u64);
        report(Progress::Rows { action: "linked", rows, total, done_before });
        if !builder.insert_batch().map_err(failed(&partial))? {
            break;
        }
        if saved.elapsed() >= saving.interval.max(cost * saving.work) {
            let started = Instant::now();
            replace_file(&folder, &partial_file(format), |new| {
                builder.save(new).map_err(failed(new))?;
                seal(new).map_err(io_error(new))
            })?;
            saved = Instant::now();
            cost = saved - started;
        }
    }
    report(Progress::Sealing);
    let name = graph_file(format);
    let file = replace_file(&folder, &name, |new| builder.save(new).map_err(failed(new)))?;
    let shape = builder.shape();
    drop(builder);
    let path = folder.join(&name);
    let mut graph =
        UsearchFile::open(&path, shape, SAMPLE_TOP_K, threads).map_err(corrupt(&path))?;
    let recall_at_10 = measure(&rows, threads, |query, ef| {
        graph.set_ef(ef);
        let hits = graph.search(query, CANDIDATES.min(ef), &|| false).map_err(failed(&path))?;
        Ok(hits.expect("nothing stops this search"))
    })?;
    let (links, ef_construction) = (SETTINGS.links, SETTINGS.ef);
    let kind = GraphKind::Usearch;
    let joins_copies = true;
    let entry =
        GraphEntry { kind, links, ef_construction, format, file, recall_at_10, joins_copies };
    record(index, source, &entry)?;
    ignore_missing(fs::remove_file(&partial)).map_err(io_error(&partial))?;
    Ok(entry)
}

/// Resumes from the incomplete graph if it is sound and has the same settings, else starts a new one.
/// The graph belongs to these vectors, because new vectors come in a new folder.
fn start<'a>(
    partial: &Path,
    rows: Rows<'a>,
    format: RowFormat,
    threads: usize,
) -> Result<UsearchBuilder<'a>, UsearchError> {
    if is_sealed(partial).unwrap_or(false)
        && let Ok(builder) = UsearchBuilder::resume(rows, format, SETTINGS, threads, partial)
    {
        return Ok(builder);
    }
    UsearchBuilder::new(rows, format, SETTINGS, threads)
}

/// Appends a file's seal to the file. The library ignores bytes behind its own end.
fn seal(path: &Path) -> std::io::Result<()> {
    let seal = seal_of(Digest::of_file(path)?);
    OpenOptions::new().append(true).open(path)?.write_all(seal.as_bytes())
}

/// Returns the seal of a file with this digest. It tells incomplete graphs of the present form from those
/// of older versions, which also linked copies of rows.
fn seal_of(digest: Digest) -> String {
    Digest::of_bytes(format!("{digest} without copies").as_bytes()).to_string()
}

/// Returns `true` if a file ends with the seal of the bytes before.
fn is_sealed(path: &Path) -> std::io::Result<bool> {
    let mut file = File::open(path)?;
    let Some(bytes) = file.metadata()?.len().checked_sub(SEAL_BYTES) else { return Ok(false) };
    file.seek(SeekFrom::Start(bytes))?;
    let mut seal = String::new();
    file.read_to_string(&mut seal)?;
    file.rewind()?;
    let mut reader = DigestReader::new(file.take(bytes));
    let mut piece = vec![0; 1 << 20];
    while reader.read(&mut piece)? > 0 {}
    Ok(seal_of(reader.digest()) == seal)
}

fn corrupt(path: &Path) -> impl FnOnce(UsearchError) -> IndexError {
    let path = path.to_owned();
    move |fault| IndexError::Corrupt { path, reason: fault.to_string() }
}

#[cfg(test)]
mod tests;
