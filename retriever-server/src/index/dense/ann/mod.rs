//! A graph over the vectors, for approximate search: built row by row, written from time to time,
//! and measured against the exact scan once it is whole.
//!
//! The graph has no rows of its own, so that one serves the vectors in every format. While it is
//! built it takes about 145 bytes a row beside the vectors, which are mapped; a search takes that
//! much of the page cache, and a bit a row for every search at once. One of the library usearch
//! (`usearch`) brings its own rows instead.

pub mod usearch;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{DENSE_FOLDER, DenseManifest, DenseRows, Source, lock, remove_if_there};
use crate::index::manifest::{FileEntry, Verification};
use crate::index::progress::Progress;
use crate::index::{IndexError, io_error};
use crate::query::Hit;
use crate::vector::hnsw::{BuildSettings, Builder, GraphFile, GraphSearchSize};
use crate::vector::{self, Metric, RowFormat, Rows, Scorer};

/// What graphs are built with: M and efConstruction as faiss's users set them, for about 16 links
/// a row above the lowest level and 32 on it.
pub const SETTINGS: BuildSettings = BuildSettings { links: 16, ef: 128, seed: 1 };

const GRAPH_FILE: &str = "vectors.hnsw";
/// Where a graph grows before it is complete.
const PARTIAL_FILE: &str = ".vectors.hnsw.partial";
/// Where a file stands while it is written.
const NEW_FILE: &str = ".vectors.hnsw.new";

/// How often an incomplete graph is written, which bounds what a kill costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saving {
    /// Shortest time from one writing to the next.
    pub interval: Duration,
    /// Least work between two writings, as a multiple of the time that a writing takes.
    pub work: u32,
}

/// At most half a minute of work is lost while a graph is small, and writing is a twentieth of it
/// once it is large.
pub const SAVING: Saving = Saving { interval: Duration::from_secs(30), work: 20 };

/// Rows that are asked when a graph is measured.
const SAMPLE_ROWS: usize = 200;
/// Nearest rows that a measured search has to find.
const SAMPLE_TOP_K: usize = 10;
/// Rows in sight when a graph is measured.
const SAMPLE_EFS: [usize; 5] = [16, 32, 64, 128, 256];

/// A graph over the vectors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GraphEntry {
    /// What kind of graph it is.
    pub kind: GraphKind,
    /// Most links of a row above the lowest level, half of those on it: M.
    pub links: usize,
    /// Rows in sight while it was built: efConstruction.
    pub ef_construction: usize,
    /// Format of the rows that it was built over.
    pub format: RowFormat,
    /// The file of the graph.
    pub file: FileEntry,
    /// The share of the ten nearest that searches for rows of the index find, themselves left out.
    pub recall_at_10: Vec<MeasuredRecall>,
}

impl GraphEntry {
    /// What was measured, as text.
    pub fn recalls(&self) -> String {
        let one = |one: &MeasuredRecall| format!("{:.4} at ef {}", one.recall, one.ef);
        self.recall_at_10.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

/// Kinds of graphs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GraphKind {
    /// Hierarchical navigable small worlds, of this program.
    Hnsw,
    /// The same, of the library usearch.
    Usearch,
}

impl GraphKind {
    /// Name in configuration and manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hnsw => "hnsw",
            Self::Usearch => "usearch",
        }
    }

    /// The kind of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Hnsw, Self::Usearch].into_iter().find(|kind| kind.name() == name)
    }

    /// Format of the rows that such a graph is built over, where `searched` ones are asked for.
    pub(crate) fn format(self, searched: RowFormat) -> RowFormat {
        match self {
            Self::Hnsw => RowFormat::F32,
            Self::Usearch => searched,
        }
    }
}

/// What a search with so many rows in sight finds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasuredRecall {
    /// Rows in sight.
    pub ef: usize,
    /// The share that is found, 0 to 1.
    pub recall: f64,
}

/// Whether there is a graph of that kind over the vectors of `source`, to search them in `format`.
pub fn is_there(
    index: &Path,
    source: &Source,
    kind: GraphKind,
    format: RowFormat,
) -> Result<bool, IndexError> {
    let manifest = DenseManifest::of(index, source)?;
    Ok(find(&manifest, kind, format).is_some())
}

fn find(manifest: &DenseManifest, kind: GraphKind, searched: RowFormat) -> Option<&GraphEntry> {
    let format = kind.format(searched);
    manifest.graphs.iter().find(|one| (one.kind, one.format) == (kind, format))
}

/// The entry of a graph, whose file is as the entry says.
fn checked(
    index: &Path,
    source: &Source,
    (kind, format): (GraphKind, RowFormat),
    verification: Verification,
) -> Result<(GraphEntry, PathBuf), IndexError> {
    let manifest = DenseManifest::of(index, source)?;
    let entry = find(&manifest, kind, format).cloned().ok_or_else(|| IndexError::NoGraph {
        index: index.to_owned(),
        kind: kind.name(),
        options: match kind {
            GraphKind::Hnsw => String::new(),
            GraphKind::Usearch => format!(" --vector-format {}", format.name()),
        },
    })?;
    let name = match kind {
        GraphKind::Hnsw => GRAPH_FILE.to_owned(),
        GraphKind::Usearch => usearch::graph_file(format),
    };
    let path = index.join(DENSE_FOLDER).join(name);
    entry.file.check(&path, verification)?;
    Ok((entry, path))
}

/// Adds a graph to the manifest, in the place of one like it.
fn record(index: &Path, source: &Source, entry: &GraphEntry) -> Result<(), IndexError> {
    let mut manifest = DenseManifest::of(index, source)?;
    manifest.graphs.retain(|one| (one.kind, one.format) != (entry.kind, entry.format));
    manifest.graphs.push(entry.clone());
    manifest.save(index)
}

/// Opens the graph of this program over the vectors of `source`.
pub fn open(
    index: &Path,
    source: &Source,
    verification: Verification,
) -> Result<(GraphEntry, GraphFile), IndexError> {
    let asked = (GraphKind::Hnsw, RowFormat::F32);
    let (entry, path) = checked(index, source, asked, verification)?;
    let corrupt = |reason| IndexError::Corrupt { path: path.clone(), reason };
    let file = GraphFile::open(&path, verification == Verification::Digests)
        .map_err(|fault| corrupt(fault.to_string()))?;
    let found = [file.rows(), file.inserted()].map(u64::from);
    if found != [source.passage_count; 2] {
        let [rows, inserted] = found;
        let expected = source.passage_count;
        return Err(corrupt(format!("{inserted} of {rows} rows linked, expected {expected}")));
    }
    Ok((entry, file))
}

/// Builds the graph of that kind, or goes on where an earlier build was killed; one of usearch with
/// rows in `format`.
pub fn build_kind(
    index: &Path,
    source: &Source,
    (kind, format): (GraphKind, RowFormat),
    work: (usize, Saving),
    report: &mut dyn FnMut(Progress),
) -> Result<GraphEntry, IndexError> {
    match kind {
        GraphKind::Hnsw => build(index, source, work, report),
        GraphKind::Usearch => usearch::build(index, source, format, work, report),
    }
}

/// Builds the graph of this program over the vectors of `source`, or goes on where an earlier build was killed.
pub fn build(
    index: &Path,
    source: &Source,
    (threads, saving): (usize, Saving),
    report: &mut dyn FnMut(Progress),
) -> Result<GraphEntry, IndexError> {
    let _lock = lock(index)?;
    let vectors = DenseRows::open(index, source, Verification::Sizes)?;
    let rows = vectors.rows()?;
    let folder = index.join(DENSE_FOLDER);
    let mut builder = start(&folder, rows, threads);
    let done_before = u64::from(builder.inserted());
    let (mut saved, mut cost) = (Instant::now(), Duration::ZERO);
    loop {
        let (rows, of) = (u64::from(builder.inserted()), u64::from(builder.rows()));
        report(Progress::Rows { what: "linked", rows, of, done_before });
        if !builder.insert_batch() {
            break;
        }
        if saved.elapsed() >= saving.interval.max(cost * saving.work) {
            let started = Instant::now();
            save(&folder, PARTIAL_FILE, &builder)?;
            saved = Instant::now();
            cost = saved - started;
        }
    }
    report(Progress::Sealing);
    let entry = save(&folder, GRAPH_FILE, &builder)?;
    drop(builder);
    let path = folder.join(GRAPH_FILE);
    let graph = GraphFile::open(&path, false)
        .map_err(|fault| IndexError::Corrupt { path: path.clone(), reason: fault.to_string() })?;
    let entry = GraphEntry {
        kind: GraphKind::Hnsw,
        links: SETTINGS.links,
        ef_construction: SETTINGS.ef,
        format: RowFormat::F32,
        file: entry,
        recall_at_10: measure(&rows, threads, |query, ef| {
            let scorer = Scorer::new(rows, Metric::InnerProduct);
            let size = GraphSearchSize { top_k: SAMPLE_TOP_K + 1, ef };
            let hits = graph.search(&scorer, query, size, &|| false);
            hits.unwrap_or_default()
        }),
    };
    record(index, source, &entry)?;
    let partial = folder.join(PARTIAL_FILE);
    remove_if_there(fs::remove_file(&partial)).map_err(io_error(&partial))?;
    Ok(entry)
}

/// Goes on from an incomplete graph, if there is a sound one of the same settings. It belongs to
/// these vectors, as new ones come with a new folder.
fn start<'a>(folder: &Path, rows: Rows<'a>, threads: usize) -> Builder<'a> {
    let scorer = Scorer::new(rows, Metric::InnerProduct);
    let partial = GraphFile::open(&folder.join(PARTIAL_FILE), true).ok();
    partial
        .and_then(|file| Builder::from_file(scorer, SETTINGS, threads, &file))
        .unwrap_or_else(|| Builder::new(scorer, SETTINGS, threads))
}

/// Writes the graph as it is under a name, in one step.
fn save(folder: &Path, name: &str, builder: &Builder<'_>) -> Result<FileEntry, IndexError> {
    place(folder, name, |new| {
        let mut file = BufWriter::new(File::create(new).map_err(io_error(new))?);
        builder.write(&mut file).and_then(|()| file.flush()).map_err(io_error(new))
    })
}

/// Has a file written beside, and puts it in its place in one step.
fn place(
    folder: &Path,
    name: &str,
    write: impl FnOnce(&Path) -> Result<(), IndexError>,
) -> Result<FileEntry, IndexError> {
    let new = folder.join(NEW_FILE);
    write(&new)?;
    File::open(&new).and_then(|file| file.sync_all()).map_err(io_error(&new))?;
    let entry = FileEntry::of_file(&new).map_err(io_error(&new))?;
    fs::rename(&new, folder.join(name)).map_err(io_error(&new))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error(folder))?;
    Ok(FileEntry { path: PathBuf::from(name), ..entry })
}

/// Asks for rows spread over the index, each of which finds itself, and counts what else they
/// find. `search` is given a row and how many to keep in sight.
fn measure(
    rows: &Rows<'_>,
    threads: usize,
    mut search: impl FnMut(&[f32], usize) -> Vec<Hit>,
) -> Vec<MeasuredRecall> {
    let step = rows.count().div_ceil(SAMPLE_ROWS).max(1);
    let sample: Vec<usize> = (0..rows.count()).step_by(step).collect();
    let mut queries = vec![0.0; sample.len() * rows.dimension()];
    for (&row, query) in sample.iter().zip(queries.chunks_mut(rows.dimension())) {
        rows.read_row(row, query);
    }
    let exact = vector::top_k(rows, &queries, SAMPLE_TOP_K + 1, threads, &|| false);
    let exact = exact.unwrap_or_default();
    let measure = |ef| {
        let (mut found, mut expected) = (0usize, 0usize);
        for (place, query) in queries.chunks(rows.dimension()).enumerate() {
            let hits = search(query, ef);
            let others = exact[place].iter().filter(|one| one.row as usize != sample[place]);
            for other in others.take(SAMPLE_TOP_K) {
                expected += 1;
                found += usize::from(hits.iter().any(|hit| hit.row == other.row));
            }
        }
        // As many digits as the sample is good for.
        let recall = (1e4 * found as f64 / expected.max(1) as f64).round() / 1e4;
        MeasuredRecall { ef, recall }
    };
    SAMPLE_EFS.map(measure).to_vec()
}

#[cfg(test)]
mod tests;
