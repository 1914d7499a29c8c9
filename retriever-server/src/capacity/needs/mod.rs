//! The formulas. A part is exact where its format decides its size, and an estimate where the text
//! does.

use serde::Serialize;

use super::collection::Collection;
use crate::corpus::compact;
use crate::index::dense::ann::{self, GraphKind};
use crate::vector::RowFormat;

/// Bytes of postings per byte of stored passages: .213 for the 12,997 passages of the world set,
/// .208 for 26,348 passages of Wikipedia. Other languages and very short passages differ.
const POSTINGS_PER_STORED_BYTE: f64 = 0.21;
/// Bytes of the bounds beside them per byte of stored passages: .029 and .027 for 10,000 and 100,000
/// passages out of dictionaries, .030 for 1,000,000 and for the world set.
const BOUNDS_PER_STORED_BYTE: f64 = 0.03;
/// Bytes of compressed passages per byte of their lines: .41 for the world set, .45 for 100,000
/// passages out of dictionaries.
const COMPACT_PER_STORED_BYTE: f64 = 0.43;
/// What an index of hardly anything takes.
const POSTINGS_FIXED_BYTES: u64 = 4096;
/// An offset into the stored passages, 64 bits.
const OFFSET_BYTES: u64 = 8;
/// A hash of an identifier and its row, for finding identifiers that are used twice.
const IDENTIFIER_BYTES: u64 = 16;
/// A thread of the writer of postings holds so much before it goes to the disk.
const WRITER_THREAD_BYTES: u64 = 64 << 20;
/// The writer of postings takes no more threads.
const MAX_WRITER_THREADS: u64 = 8;
/// A link of a graph, and what each row has besides: its level and the offset of its links.
const LINK_BYTES: u64 = 4;
const GRAPH_ROW_BYTES: u64 = 4 + 8;
/// The same for a graph of usearch: key, level, number of links and its size in the file.
const USEARCH_ROW_BYTES: u64 = 8 + 2 + 4 + 2;

/// What an index is to have besides passages and postings, which every one has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The vectors, if any.
    pub vectors: Option<VectorRequest>,
    /// The model of the encoder, if its files are known.
    pub model_bytes: Option<u64>,
    /// Threads that index.
    pub threads: u64,
    /// Whether passages are to be compressed. Those that are stay so.
    pub compact: bool,
}

/// Vectors to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorRequest {
    /// Numbers a vector.
    pub dimension: u64,
    /// The format that is searched; the index has them in f32 in any case.
    pub format: RowFormat,
    /// The graph over them, if any.
    pub graph: Option<GraphKind>,
    /// Whether rows in that format are read, which a graph with its own does without.
    pub reads_rows: bool,
}

/// What a part needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Need {
    /// Name of the part.
    pub part: &'static str,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Those of them that are there already.
    pub disk_there_bytes: u64,
    /// Bytes of memory that must be there.
    pub memory_bytes: u64,
    /// Bytes of mapped files: at full speed where the page cache has room for them, from the disk
    /// where it has not.
    pub mapped_bytes: u64,
    /// Bytes on a GPU, where it searches instead of the processor.
    pub gpu_bytes: u64,
    /// Whether the figures are exact.
    pub is_exact: bool,
    /// Where they come from.
    pub basis: String,
}

/// What serving a collection needs, part by part, and what indexing it needs besides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Needs {
    /// What stays.
    pub serving: Vec<Need>,
    /// What is needed while the index is built, beside what stays.
    pub indexing: Need,
}

impl Needs {
    /// Applies the formulas.
    pub fn of(collection: &Collection, request: &Request) -> Self {
        let (stored, postings) = (stored(collection, request.compact), postings(collection));
        let indexing = indexing(collection, &stored, &postings, request.threads);
        let mut serving = vec![stored, offsets(collection), postings, bounds(collection)];
        if let Some(vectors) = request.vectors {
            serving.extend(rows(collection, vectors));
            serving.extend(vectors.graph.map(|kind| graph(collection, vectors, kind)));
            serving.extend(request.model_bytes.map(model));
        }
        Self { serving, indexing }
    }
}

/// Passages as they are, or as they become when they are compressed.
fn stored(collection: &Collection, compact: bool) -> Need {
    let Collection { stored_bytes, passages, is_measured, there, .. } = *collection;
    let mean = stored_bytes / passages.max(1);
    let is_compact = there.is_some_and(|there| there.is_compact);
    if compact && !is_compact {
        let estimate = stored_bytes as f64 * COMPACT_PER_STORED_BYTE;
        // There is no dictionary for what is hardly more than one.
        let bytes = estimate as u64 + (compact::DICTIONARY_BYTES as u64).min(stored_bytes);
        return Need {
            part: "passages",
            disk_bytes: bytes,
            mapped_bytes: bytes,
            basis: format!(
                "about {COMPACT_PER_STORED_BYTE} of {passages} passages of {mean} bytes"
            ),
            ..Need::default()
        };
    }
    let compressed = if is_compact { " compressed" } else { "" };
    Need {
        part: "passages",
        disk_bytes: stored_bytes,
        disk_there_bytes: there.map_or(0, |there| there.passages_bytes),
        mapped_bytes: stored_bytes,
        is_exact: is_measured,
        basis: format!("{passages}{compressed} passages of {mean} bytes"),
        ..Need::default()
    }
}

/// One offset a passage, and the end of the last.
fn offsets(collection: &Collection) -> Need {
    let bytes = (collection.passages + 1) * OFFSET_BYTES;
    Need {
        part: "offsets",
        disk_bytes: bytes,
        disk_there_bytes: if collection.there.is_some() { bytes } else { 0 },
        mapped_bytes: bytes,
        is_exact: collection.is_counted,
        basis: format!("{OFFSET_BYTES} bytes a passage"),
        ..Need::default()
    }
}

fn postings(collection: &Collection) -> Need {
    let estimate = collection.stored_bytes as f64 * POSTINGS_PER_STORED_BYTE;
    let there = collection.there.map(|there| there.postings_bytes);
    of_text("postings", POSTINGS_PER_STORED_BYTE, there, estimate as u64 + POSTINGS_FIXED_BYTES)
}

fn bounds(collection: &Collection) -> Need {
    let estimate = collection.stored_bytes as f64 * BOUNDS_PER_STORED_BYTE;
    let there = collection.there.map(|there| there.bounds_bytes);
    of_text("bounds", BOUNDS_PER_STORED_BYTE, there, estimate as u64)
}

/// What is as large as the text decides.
fn of_text(part: &'static str, ratio: f64, there: Option<u64>, estimate: u64) -> Need {
    let bytes = there.unwrap_or(estimate);
    Need {
        part,
        disk_bytes: bytes,
        disk_there_bytes: there.unwrap_or(0),
        mapped_bytes: bytes,
        is_exact: there.is_some(),
        basis: match there {
            Some(_) => "as they are".to_owned(),
            None => format!("about {ratio} of the passages"),
        },
        ..Need::default()
    }
}

/// One row a passage in f32, and another one in a shorter format that is searched instead. On a GPU
/// rows are held in halves at most.
fn rows(collection: &Collection, request: VectorRequest) -> Vec<Need> {
    let VectorRequest { dimension, format, reads_rows, .. } = request;
    let row_bytes = |format: RowFormat| format.row_bytes(dimension as usize) as u64;
    let on_gpu = if format == RowFormat::F32 { RowFormat::F16 } else { format };
    let gpu_bytes = collection.passages * row_bytes(on_gpu);
    let need = |stored: RowFormat| {
        let bytes = collection.passages * row_bytes(stored);
        let there = collection.vectors.iter().filter(|there| there.dimension == dimension);
        let is_there = |one: &&(RowFormat, u64)| **one == (stored, bytes);
        let there = there.flat_map(|there| &there.formats).find(is_there);
        let is_searched = reads_rows && stored == format;
        let what = if is_searched { "searched" } else { "looked at for candidates alone" };
        Need {
            part: match stored {
                RowFormat::F32 => "vectors",
                RowFormat::F16 => "vectors, f16",
                RowFormat::I8 => "vectors, i8",
            },
            disk_bytes: bytes,
            disk_there_bytes: there.map_or(0, |(_, bytes)| *bytes),
            mapped_bytes: if is_searched { bytes } else { 0 },
            gpu_bytes: if is_searched { gpu_bytes } else { 0 },
            is_exact: collection.is_counted,
            basis: format!("{} bytes a passage, {dimension} numbers, {what}", row_bytes(stored)),
            ..Need::default()
        }
    };
    let searched_instead = (reads_rows && format != RowFormat::F32).then_some(format);
    std::iter::once(RowFormat::F32).chain(searched_instead).map(need).collect()
}

/// 2·M links a row on the lowest level; a row lives on l levels above it with probability M^-l
/// (Malkov and Yashunin 2016, with the level factor 1 / ln M), so on 1 / (M - 1) in the mean, with
/// M links on each. One of usearch has its rows besides, without scales.
fn graph(collection: &Collection, vectors: VectorRequest, kind: GraphKind) -> Need {
    let format = kind.format(vectors.format);
    let links = ann::SETTINGS.links as f64;
    let slots = 2.0 * links + links / (links - 1.0);
    let besides = match kind {
        GraphKind::Hnsw => GRAPH_ROW_BYTES,
        GraphKind::Usearch => USEARCH_ROW_BYTES + format.number_bytes() as u64 * vectors.dimension,
    };
    let row_bytes = besides as f64 + slots * LINK_BYTES as f64;
    let estimate = (collection.passages as f64 * row_bytes) as u64;
    let graphs = collection.vectors.iter().flat_map(|vectors| &vectors.graphs);
    let there = graphs.filter(|one| (one.0, one.1) == (kind, format)).map(|one| one.2).next();
    let bytes = there.unwrap_or(estimate);
    Need {
        part: "graph",
        disk_bytes: bytes,
        disk_there_bytes: there.unwrap_or(0),
        // A graph grows in memory.
        memory_bytes: if there.is_some() { 0 } else { estimate },
        mapped_bytes: bytes,
        is_exact: there.is_some(),
        basis: format!("about {row_bytes:.0} bytes a passage, M = {links}, built in memory"),
        ..Need::default()
    }
}

/// The most while it is loaded: 180 MB were measured for the 91 MB of MiniLM, batches included,
/// where ONNX Runtime multiplies; 131 MB where weights are split.
fn model(bytes: u64) -> Need {
    Need {
        part: "model",
        disk_bytes: bytes,
        disk_there_bytes: bytes,
        memory_bytes: 2 * bytes,
        basis: "its files, and twice as much memory while it is loaded".to_owned(),
        ..Need::default()
    }
}

/// Postings are written in segments, which are then merged into one beside them; identifiers are
/// compared by their hashes, in a list that may have grown to twice its need. Passages that are to
/// be compressed are written as they are first: besides what stays, there are then either they, or
/// the part of them that compression saves and the segments, whichever is more.
fn indexing(collection: &Collection, stored: &Need, postings: &Need, threads: u64) -> Need {
    let writers = threads.clamp(1, MAX_WRITER_THREADS) * WRITER_THREAD_BYTES;
    if collection.there.is_some() {
        let basis = "passages and postings are there".to_owned();
        return Need { part: "while indexing", is_exact: true, basis, ..Need::default() };
    }
    let is_compressed = stored.disk_bytes != collection.stored_bytes;
    let lines = if is_compressed { collection.stored_bytes } else { 0 };
    let segments = postings.disk_bytes + lines.saturating_sub(stored.disk_bytes);
    let before = if is_compressed { ", and passages before they are compressed" } else { "" };
    Need {
        part: "while indexing",
        disk_bytes: lines.max(segments),
        memory_bytes: writers + 2 * collection.passages * IDENTIFIER_BYTES,
        basis: format!(
            "segments before they are merged{before}; {} MiB for writers, {} bytes a passage",
            writers >> 20,
            2 * IDENTIFIER_BYTES
        ),
        ..Need::default()
    }
}

#[cfg(test)]
mod tests;
