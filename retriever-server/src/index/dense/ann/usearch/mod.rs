//! Graphs of the library usearch in an index: built row by row, written from time to time, and
//! measured as those of this program are.
//!
//! Such a graph has its own rows. While it is built all of it is in memory: 4, 2 or 1 bytes a
//! number by format, about 150 bytes a row for links, and pointers and a table of keys. A search
//! maps the file, takes as much of the page cache, and keeps pointers and keys in memory.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use shared::digest::{Digest, DigestReader};

use super::{
    DENSE_FOLDER, DenseRows, GraphEntry, GraphKind, SAMPLE_TOP_K, SETTINGS, Saving, Source,
};
use super::{checked, lock, measure, place, record, remove_if_there};
use crate::index::manifest::Verification;
use crate::index::progress::Progress;
use crate::index::{IndexError, io_error};
use crate::vector::usearch::{GraphShape, UsearchBuilder, UsearchError, UsearchFile};
use crate::vector::{self, RowFormat, Rows};

/// Bytes of a digest in hexadecimal digits, which end an incomplete graph: the library trusts what
/// it reads.
const SEAL_BYTES: u64 = 64;

/// Hits of a search that are scored again when a graph is measured, as of one that is served.
const CANDIDATES: usize = 64;

/// Name of the file of a graph with rows in `format`.
pub(super) fn graph_file(format: RowFormat) -> String {
    format!("vectors.{}.usearch", format.name())
}

/// Where a graph grows before it is complete.
fn partial_file(format: RowFormat) -> String {
    format!(".vectors.{}.usearch.partial", format.name())
}

/// Opens the graph over the vectors of `source` with rows in `format`. Of its content, only what
/// `verification` says is checked: the library trusts it.
///
/// At most `threads` searches run at once, with `ef` rows in sight.
pub fn open(
    index: &Path,
    source: &Source,
    format: RowFormat,
    (ef, threads): (usize, usize),
    verification: Verification,
) -> Result<(GraphEntry, UsearchFile), IndexError> {
    let asked = (GraphKind::Usearch, format);
    let (entry, path) = checked(index, source, asked, verification)?;
    let (rows, dimension) = (source.passage_count as usize, source.dimension as usize);
    let shape = GraphShape { rows, dimension, format, settings: SETTINGS };
    let file = UsearchFile::open(&path, shape, ef, threads).map_err(corrupt(&path))?;
    Ok((entry, file))
}

/// Builds the graph over the vectors of `source` with rows in `format`, or goes on where an earlier
/// build was killed.
pub fn build(
    index: &Path,
    source: &Source,
    format: RowFormat,
    (threads, saving): (usize, Saving),
    report: &mut dyn FnMut(Progress),
) -> Result<GraphEntry, IndexError> {
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
        let (rows, of) = (builder.inserted() as u64, rows.count() as u64);
        report(Progress::Rows { what: "linked", rows, of, done_before });
        if !builder.insert_batch().map_err(failed(&partial))? {
            break;
        }
        if saved.elapsed() >= saving.interval.max(cost * saving.work) {
            let started = Instant::now();
            place(&folder, &partial_file(format), |new| {
                builder.save(new).map_err(failed(new))?;
                seal(new).map_err(io_error(new))
            })?;
            saved = Instant::now();
            cost = saved - started;
        }
    }
    report(Progress::Sealing);
    let name = graph_file(format);
    let file = place(&folder, &name, |new| builder.save(new).map_err(failed(new)))?;
    let shape = builder.shape();
    drop(builder);
    let path = folder.join(&name);
    let mut graph =
        UsearchFile::open(&path, shape, SAMPLE_TOP_K, threads).map_err(corrupt(&path))?;
    let recall_at_10 = measure(&rows, threads, |query, ef| {
        graph.set_ef(ef);
        let found = graph.search(query, CANDIDATES.min(ef), &|| false);
        let mut found = [found.ok().flatten().unwrap_or_default()];
        vector::rescore(&rows, query, &mut found, SAMPLE_TOP_K + 1, 1);
        let [found] = found;
        found
    });
    let (links, ef_construction) = (SETTINGS.links, SETTINGS.ef);
    let kind = GraphKind::Usearch;
    let entry = GraphEntry { kind, links, ef_construction, format, file, recall_at_10 };
    record(index, source, &entry)?;
    remove_if_there(fs::remove_file(&partial)).map_err(io_error(&partial))?;
    Ok(entry)
}

/// Goes on from an incomplete graph, if there is a sound one of the same settings. It belongs to
/// these vectors, as new ones come with a new folder.
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

/// Appends the digest of a file to it. The library reads no further than its own end.
fn seal(path: &Path) -> std::io::Result<()> {
    let digest = Digest::of_file(path)?;
    OpenOptions::new().append(true).open(path)?.write_all(digest.to_string().as_bytes())
}

/// Whether a file ends with the digest of what stands before.
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
    Ok(reader.digest().to_string() == seal)
}

fn corrupt(path: &Path) -> impl FnOnce(UsearchError) -> IndexError {
    let path = path.to_owned();
    move |fault| IndexError::Corrupt { path, reason: fault.to_string() }
}

#[cfg(test)]
mod tests;
