//! Graphs over the vectors, for approximate search. A build adds row by row, saves the incomplete
//! graph from time to time and compares the complete one with the exact scan.
//!
//! This program's graph has no rows of its own, so one graph serves the vectors in every format.
//! While it is built it takes about 145 bytes per row in addition to the mapped vectors. A search
//! needs as much of the page cache, and one bit per row for each concurrent search. A graph of the
//! library usearch (`usearch`) has rows of its own instead. Neither links rows that are copies of others.

pub mod usearch;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{DENSE_FOLDER, DenseManifest, DenseRows, VectorSource, ignore_missing, lock};
use crate::index::manifest::{FileEntry, Verification};
use crate::index::progress::Progress;
use crate::index::{IndexError, io_error};
use crate::query::Hit;
use crate::vector::hnsw::{BuildSettings, Builder, GraphFile, GraphSearchSize};
use crate::vector::{self, Metric, RowFormat, Rows, Scorer};

/// The settings of every build. M and efConstruction are usual values for faiss: about 16 links per
/// row above the lowest level and 32 on it.
pub const SETTINGS: BuildSettings = BuildSettings { links: 16, ef: 128, seed: 1 };

const GRAPH_FILE: &str = "vectors.hnsw";
/// The name of an incomplete graph.
const PARTIAL_FILE: &str = ".vectors.hnsw.partial";
/// The name of a file while it is written.
const NEW_FILE: &str = ".vectors.hnsw.new";

/// The intervals at which an incomplete graph is saved. They bound the work that a kill costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saving {
    /// The shortest time from one save to the next.
    pub interval: Duration,
    /// The least work between two saves, as a multiple of the time that a save takes.
    pub work: u32,
}

/// The default intervals. A kill costs at most half a minute of work while a graph is small; once it
/// is large, saving takes a twentieth of the time.
pub const SAVING: Saving = Saving { interval: Duration::from_secs(30), work: 20 };

/// The resources that a build of a graph uses.
#[derive(Clone, Copy, Debug)]
pub struct BuildEffort {
    /// The number of threads that add rows.
    pub threads: usize,
    /// The intervals at which the incomplete graph is saved.
    pub saving: Saving,
}

/// The number of rows with which a graph is measured.
const SAMPLE_ROWS: usize = 200;
/// The number of nearest rows that a measured search should find.
const SAMPLE_TOP_K: usize = 10;
/// The candidate list sizes (ef) at which a graph is measured.
const SAMPLE_EFS: [usize; 5] = [16, 32, 64, 128, 256];
/// The fewest rows for which the recall of a sample tells anything about searches.
const TELLING_ROWS: u64 = 200;
/// The recall below which a graph is no good.
const LOW_RECALL: f64 = 0.9;
/// The largest relative difference of scores that count as equal.
const EQUAL_SCORES: f32 = 1e-6;

/// A graph over the vectors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GraphEntry {
    /// The kind of graph.
    pub kind: GraphKind,
    /// The most links of a row above the lowest level, and half of the most on it: M.
    pub links: usize,
    /// The size of the candidate list during the build: efConstruction.
    pub ef_construction: usize,
    /// The format of the rows from which it was built.
    pub format: RowFormat,
    /// The file of the graph.
    pub file: FileEntry,
    /// The recall of searches whose queries are rows of the index: the share of the ten nearest other
    /// rows that they find. It is empty if no row has others.
    pub recall_at_10: Vec<MeasuredRecall>,
    /// `true` if rows that are equal, or nearly so, share one place in the graph. Graphs of older versions
    /// link each, and many of them tear such a graph apart.
    #[serde(default)]
    pub joins_copies: bool,
}

impl GraphEntry {
    /// Returns the measured recalls as text.
    pub fn recalls(&self) -> String {
        let text =
            |measured: &MeasuredRecall| format!("{:.4} at ef {}", measured.recall, measured.ef);
        self.recall_at_10.iter().map(text).collect::<Vec<_>>().join(", ")
    }

    /// Returns a warning if searches with this size of the candidate list find too few of the nearest of
    /// `rows` rows. It names the remedy.
    pub fn warning(&self, rows: u64, ef: usize) -> Option<String> {
        let known = self.recall_at_10.iter().rev().find(|measured| measured.ef <= ef);
        let known = known.or(self.recall_at_10.first())?;
        if rows < TELLING_ROWS || known.recall >= LOW_RECALL {
            return None;
        }
        let better = self.recall_at_10.iter().find(|measured| measured.recall >= LOW_RECALL);
        let remedy = match better.filter(|better| better.ef > ef) {
            _ if !self.joins_copies => "`index` with the same flags builds it anew".to_owned(),
            Some(better) => format!(
                "--hnsw-ef {} finds {:.4}, and --backend dense compares all",
                better.ef, better.recall
            ),
            None => "--backend dense compares all of them".to_owned(),
        };
        let recall = known.recall;
        Some(format!(
            "searches along the {} graph find {recall:.4} of the 10 nearest vectors at ef {}: {remedy}",
            self.kind.name(),
            known.ef
        ))
    }

    /// Returns `true` if the graph is torn and a new build may mend it.
    fn is_outdated(&self, rows: u64, ef: usize) -> bool {
        !self.joins_copies && self.warning(rows, ef).is_some()
    }
}

/// The kind of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GraphKind {
    /// This program's hierarchical navigable small world graph.
    Hnsw,
    /// The same kind of graph, from the library usearch.
    Usearch,
}

impl GraphKind {
    /// Returns the name of the kind in configuration and manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hnsw => "hnsw",
            Self::Usearch => "usearch",
        }
    }

    /// Returns the kind with this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Hnsw, Self::Usearch].into_iter().find(|kind| kind.name() == name)
    }

    /// Returns the format of the rows from which a graph of this kind is built, if searches should read
    /// rows in the format `searched`.
    pub(crate) fn format(self, searched: RowFormat) -> RowFormat {
        match self {
            Self::Hnsw => RowFormat::F32,
            Self::Usearch => searched,
        }
    }
}

/// The recall of searches with a given size of the candidate list.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasuredRecall {
    /// The size of the candidate list.
    pub ef: usize,
    /// The share of the nearest rows that searches find, 0 to 1.
    pub recall: f64,
}

/// Returns `true` if the index has a graph of this kind over the vectors of `source`, for searches in
/// `format`.
pub fn exists(
    index: &Path,
    source: &VectorSource,
    kind: GraphKind,
    format: RowFormat,
) -> Result<bool, IndexError> {
    let manifest = DenseManifest::load_for(index, source)?;
    Ok(find(&manifest, kind, format).is_some())
}

/// Returns the graph of this kind over the vectors of `source`, for searches in `format`, unless a new build
/// would find more of the nearest rows with `ef` candidates.
pub fn current(
    index: &Path,
    source: &VectorSource,
    kind: GraphKind,
    format: RowFormat,
    ef: usize,
) -> Result<Option<GraphEntry>, IndexError> {
    let manifest = DenseManifest::load_for(index, source)?;
    let entry = find(&manifest, kind, format);
    Ok(entry.filter(|entry| !entry.is_outdated(source.passage_count, ef)).cloned())
}

fn find(manifest: &DenseManifest, kind: GraphKind, searched: RowFormat) -> Option<&GraphEntry> {
    let format = kind.format(searched);
    manifest.graphs.iter().find(|entry| (entry.kind, entry.format) == (kind, format))
}

/// Returns the entry and the path of a graph after it has compared the file with the entry.
fn checked(
    index: &Path,
    source: &VectorSource,
    kind: GraphKind,
    format: RowFormat,
    verification: Verification<'_>,
) -> Result<(GraphEntry, PathBuf), IndexError> {
    let manifest = DenseManifest::load_for(index, source)?;
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

/// Adds a graph to the manifest, where it replaces a graph of the same kind and format.
fn record(index: &Path, source: &VectorSource, entry: &GraphEntry) -> Result<(), IndexError> {
    let mut manifest = DenseManifest::load_for(index, source)?;
    manifest.graphs.retain(|other| (other.kind, other.format) != (entry.kind, entry.format));
    manifest.graphs.push(entry.clone());
    manifest.save(index)
}

/// Opens this program's graph over the vectors of `source`.
pub fn open(
    index: &Path,
    source: &VectorSource,
    verification: Verification<'_>,
) -> Result<(GraphEntry, GraphFile), IndexError> {
    let (entry, path) = checked(index, source, GraphKind::Hnsw, RowFormat::F32, verification)?;
    let corrupt = |reason| IndexError::Corrupt { path: path.clone(), reason };
    let file = GraphFile::open(&path, matches!(verification, Verification::Digests))
        .map_err(|fault| corrupt(fault.to_string()))?;
    let (rows, inserted) = (u64::from(file.rows()), u64::from(file.inserted()));
    let expected = source.passage_count;
    if (rows, inserted) != (expected, expected) {
        return Err(corrupt(format!("{inserted} of {rows} rows linked, expected {expected}")));
    }
    Ok((entry, file))
}

/// Builds the graph of this kind, or resumes a killed build. A graph of usearch gets rows in `format`.
pub fn build_kind(
    index: &Path,
    source: &VectorSource,
    kind: GraphKind,
    format: RowFormat,
    effort: BuildEffort,
    report: &mut dyn FnMut(Progress),
) -> Result<GraphEntry, IndexError> {
    match kind {
        GraphKind::Hnsw => build(index, source, effort, report),
        GraphKind::Usearch => usearch::build(index, source, format, effort, report),
    }
}

/// Builds this program's graph over the vectors of `source`, or resumes a killed build.
pub fn build(
    index: &Path,
    source: &VectorSource,
    effort: BuildEffort,
    report: &mut dyn FnMut(Progress),
) -> Result<GraphEntry, IndexError> {
    let BuildEffort { threads, saving } = effort;
    let _lock = lock(index)?;
    let vectors = DenseRows::open(index, source, Verification::Sizes)?;
    let rows = vectors.rows()?;
    let folder = index.join(DENSE_FOLDER);
    let mut builder = start(&folder, rows, threads);
    let done_before = u64::from(builder.inserted());
    let (mut saved, mut cost) = (Instant::now(), Duration::ZERO);
    loop {
        let (rows, total) = (u64::from(builder.inserted()), u64::from(builder.rows()));
        report(Progress::Rows { action: "linked", rows, total, done_before });
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
            Ok(hits.expect("nothing stops this search"))
        })?,
        joins_copies: true,
    };
    record(index, source, &entry)?;
    let partial = folder.join(PARTIAL_FILE);
    ignore_missing(fs::remove_file(&partial)).map_err(io_error(&partial))?;
    Ok(entry)
}

/// Resumes from the incomplete graph if it is sound and has the same settings, else starts a new one.
/// The graph belongs to these vectors, because new vectors come in a new folder.
fn start<'a>(folder: &Path, rows: Rows<'a>, threads: usize) -> Builder<'a> {
    let scorer = Scorer::new(rows, Metric::InnerProduct);
    let partial = GraphFile::open(&folder.join(PARTIAL_FILE), true).ok();
    partial
        .and_then(|file| Builder::from_file(scorer, SETTINGS, threads, &file))
        .unwrap_or_else(|| Builder::new(scorer, SETTINGS, threads))
}

/// Writes the graph to the file `name` in one step.
fn save(folder: &Path, name: &str, builder: &Builder<'_>) -> Result<FileEntry, IndexError> {
    replace_file(folder, name, |new| {
        let mut file = BufWriter::new(File::create(new).map_err(io_error(new))?);
        builder.write(&mut file).and_then(|()| file.flush()).map_err(io_error(new))
    })
}

/// Lets `write` write a file under a temporary name, and renames it to `name` in one step.
fn replace_file(
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

/// Measures recall with queries that are rows spread over the index. Each query finds its own row,
/// which does not count. Of rows with equal scores, any counts. `search` gets the query and ef.
fn measure(
    rows: &Rows<'_>,
    threads: usize,
    mut search: impl FnMut(&[f32], usize) -> Result<Vec<Hit>, IndexError>,
) -> Result<Vec<MeasuredRecall>, IndexError> {
    let step = rows.count().div_ceil(SAMPLE_ROWS).max(1);
    let sample: Vec<usize> = (0..rows.count()).step_by(step).collect();
    let mut queries = vec![0.0; sample.len() * rows.dimension()];
    for (&row, query) in sample.iter().zip(queries.chunks_mut(rows.dimension())) {
        rows.read_row(row, query);
    }
    let exact = vector::top_k(rows, &queries, SAMPLE_TOP_K + 1, threads, &|| false)
        .expect("nothing stops this search");
    // Returns the scores of the nearest other rows, best first.
    let others = |hits: &[Hit], row: usize| -> Vec<f32> {
        let others = hits.iter().filter(|hit| hit.row as usize != row);
        others.map(|hit| hit.score).take(SAMPLE_TOP_K).collect()
    };
    let mut measure = |ef| {
        let (mut matches, mut expected) = (0usize, 0usize);
        for ((query, nearest), &row) in queries.chunks(rows.dimension()).zip(&exact).zip(&sample) {
            let mut hits = [search(query, ef)?];
            vector::rescore(rows, query, &mut hits, SAMPLE_TOP_K + 1, 1);
            let nearest = others(nearest, row);
            let Some(&least) = nearest.last() else { continue };
            expected += nearest.len();
            let least = least - EQUAL_SCORES * least.abs();
            matches += others(&hits[0], row).iter().filter(|&&score| score >= least).count();
        }
        // The sample does not support more digits.
        let recall = (1e4 * matches as f64 / expected.max(1) as f64).round() / 1e4;
        Ok((expected > 0).then_some(MeasuredRecall { ef, recall }))
    };
    SAMPLE_EFS.into_iter().filter_map(|ef| measure(ef).transpose()).collect()
}

#[cfg(test)]
mod tests;
