//! The formulas for needs. A need is exact if the format determines its size, and an estimate if the
//! text does.

use serde::Serialize;

use super::collection::Collection;
use crate::corpus::compact;
use crate::index::dense::ann::{self, GraphKind};
use crate::vector::RowFormat;

/// The size of postings per byte of stored passages. Measured: .213 for the 12,997 passages of the world
/// set, .208 for 26,348 passages of Wikipedia. Other languages and very short passages differ.
const POSTINGS_PER_STORED_BYTE: f64 = 0.21;
/// The size of the bounds per byte of stored passages. Measured: .029 and .027 for 10,000 and 100,000
/// passages from dictionaries, .030 for 1,000,000 and for the world set.
const BOUNDS_PER_STORED_BYTE: f64 = 0.03;
/// The size of compressed passages per byte of their lines. Measured: .41 for the world set, .45 for
/// 100,000 passages from dictionaries.
const COMPACT_PER_STORED_BYTE: f64 = 0.43;
/// The size of the postings of a nearly empty index.
const POSTINGS_FIXED_BYTES: u64 = 4096;
/// The size of an offset into the stored passages, 64 bits.
const OFFSET_BYTES: u64 = 8;
/// The size of an identifier's hash with its row. The search for duplicate identifiers keeps both.
const IDENTIFIER_BYTES: u64 = 16;
/// The memory in which each thread of the writer collects postings before it writes them to disk.
const WRITER_THREAD_BYTES: u64 = 64 << 20;
/// The most threads of the writer.
const MAX_WRITER_THREADS: u64 = 8;
/// The size of a link in a graph.
const LINK_BYTES: u64 = 4;
/// The size of the other data of a row in a graph: its level and the offset of its links.
const GRAPH_ROW_BYTES: u64 = 4 + 8;
/// The same for a graph of usearch: key, level, number of links, and its size in the file.
const USEARCH_ROW_BYTES: u64 = 8 + 2 + 4 + 2;

/// The requested parts of an index, apart from passages and postings, which every index has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The vectors, if any.
    pub vectors: Option<VectorRequest>,
    /// The size of the encoder's model, if its files are known.
    pub model_bytes: Option<u64>,
    /// The number of threads that build the index.
    pub threads: u64,
    /// `true` to compress passages. Compressed passages stay compressed in any case.
    pub compact: bool,
}

/// The requested vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorRequest {
    /// The number of components of a vector.
    pub dimension: u64,
    /// The format that searches read. The index has the vectors in f32 in any case.
    pub format: RowFormat,
    /// The graph over them, if any.
    pub graph: Option<GraphKind>,
    /// `true` if searches read rows in that format. A graph with rows of its own does not need them.
    pub reads_rows: bool,
}

/// The need of one part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Need {
    /// The name of the part.
    pub part: &'static str,
    /// The size on disk.
    pub disk_bytes: u64,
    /// The part of that size that already exists.
    pub disk_there_bytes: u64,
    /// The memory that must be available.
    pub memory_bytes: u64,
    /// The size of mapped files. Reads are fast if the page cache has space for them, and go to the disk
    /// if not.
    pub mapped_bytes: u64,
    /// The memory on a GPU, if a GPU searches instead of the processor.
    pub gpu_bytes: u64,
    /// `true` if the figures are exact.
    pub is_exact: bool,
    /// The basis of the figures, as text.
    pub basis: String,
}

/// The needs of a collection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Needs {
    /// The needs of serving, by part.
    pub serving: Vec<Need>,
    /// The additional need while the index is built.
    pub indexing: Need,
}

impl Needs {
    /// Applies the formulas.
    pub fn new(collection: &Collection, request: &Request) -> Self {
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

/// Returns the need of the passages, which may be compressed on this occasion.
fn stored(collection: &Collection, compact: bool) -> Need {
    let Collection { stored_bytes, passages, is_measured, existing, .. } = *collection;
    let mean = stored_bytes / passages.max(1);
    let is_compact = existing.is_some_and(|existing| existing.is_compact);
    if compact && !is_compact {
        let estimate = stored_bytes as f64 * COMPACT_PER_STORED_BYTE;
        // A dictionary is not larger than the passages.
        let bytes = estimate as u64 + (compact::DICTIONARY_BYTES as u64).min(stored_bytes);
        return Need {
            part: "passages",
            disk_bytes: bytes,
            mapped_bytes: bytes,
            basis: format!(
                "about {COMPACT_PER_STORED_BYTE} of {passages} passages of {mean} bytes each"
            ),
            ..Need::default()
        };
    }
    let compressed = if is_compact { " compressed" } else { "" };
    Need {
        part: "passages",
        disk_bytes: stored_bytes,
        disk_there_bytes: existing.map_or(0, |existing| existing.passages_bytes),
        mapped_bytes: stored_bytes,
        is_exact: is_measured,
        basis: format!("{passages}{compressed} passages of {mean} bytes each"),
        ..Need::default()
    }
}

/// Returns the need of the offsets: one per passage, and the end of the last passage.
fn offsets(collection: &Collection) -> Need {
    let bytes = (collection.passages + 1) * OFFSET_BYTES;
    Need {
        part: "offsets",
        disk_bytes: bytes,
        disk_there_bytes: if collection.existing.is_some() { bytes } else { 0 },
        mapped_bytes: bytes,
        is_exact: collection.is_counted,
        basis: format!("{OFFSET_BYTES} bytes per passage"),
        ..Need::default()
    }
}

fn postings(collection: &Collection) -> Need {
    let estimate = collection.stored_bytes as f64 * POSTINGS_PER_STORED_BYTE;
    let existing = collection.existing.map(|existing| existing.postings_bytes);
    by_text("postings", POSTINGS_PER_STORED_BYTE, existing, estimate as u64 + POSTINGS_FIXED_BYTES)
}

fn bounds(collection: &Collection) -> Need {
    let estimate = collection.stored_bytes as f64 * BOUNDS_PER_STORED_BYTE;
    let existing = collection.existing.map(|existing| existing.bounds_bytes);
    by_text("bounds", BOUNDS_PER_STORED_BYTE, existing, estimate as u64)
}

/// Returns the need of a part whose size depends on the text.
fn by_text(part: &'static str, ratio: f64, existing: Option<u64>, estimate: u64) -> Need {
    let bytes = existing.unwrap_or(estimate);
    Need {
        part,
        disk_bytes: bytes,
        disk_there_bytes: existing.unwrap_or(0),
        mapped_bytes: bytes,
        is_exact: existing.is_some(),
        basis: match existing {
            Some(_) => "existing files".to_owned(),
            None => format!("about {ratio} of the passages"),
        },
        ..Need::default()
    }
}

/// Returns the need of the rows: one per passage in f32, and another one if searches read a shorter
/// format. A GPU holds f32 rows as f16.
fn rows(collection: &Collection, request: VectorRequest) -> Vec<Need> {
    let VectorRequest { dimension, format, reads_rows, .. } = request;
    let row_bytes = |format: RowFormat| format.row_bytes(dimension as usize) as u64;
    let on_gpu = if format == RowFormat::F32 { RowFormat::F16 } else { format };
    let gpu_bytes = collection.passages * row_bytes(on_gpu);
    let need = |stored: RowFormat| {
        let bytes = collection.passages * row_bytes(stored);
        let vectors = collection.vectors.iter().filter(|vectors| vectors.dimension == dimension);
        let mut formats = vectors.flat_map(|vectors| &vectors.formats);
        let existing = formats.find(|&&entry| entry == (stored, bytes));
        let is_searched = reads_rows && stored == format;
        let use_of_rows = if is_searched { "searched" } else { "read for candidates only" };
        Need {
            part: match stored {
                RowFormat::F32 => "vectors",
                RowFormat::F16 => "vectors, f16",
                RowFormat::I8 => "vectors, i8",
            },
            disk_bytes: bytes,
            disk_there_bytes: existing.map_or(0, |(_, bytes)| *bytes),
            mapped_bytes: if is_searched { bytes } else { 0 },
            gpu_bytes: if is_searched { gpu_bytes } else { 0 },
            is_exact: collection.is_counted,
            basis: format!(
                "{} bytes per passage, {dimension} numbers, {use_of_rows}",
                row_bytes(stored)
            ),
            ..Need::default()
        }
    };
    let shorter = (reads_rows && format != RowFormat::F32).then_some(format);
    std::iter::once(RowFormat::F32).chain(shorter).map(need).collect()
}

/// Returns the need of a graph. A row has 2·M links on the lowest level. It is on l levels above that
/// with probability M^-l (Malkov and Yashunin 2016, with the level factor 1 / ln M), which makes
/// 1 / (M - 1) levels on average, with M links on each. A graph of usearch also has rows of its own,
/// without scales.
fn graph(collection: &Collection, vectors: VectorRequest, kind: GraphKind) -> Need {
    let format = kind.format(vectors.format);
    let links = ann::SETTINGS.links as f64;
    let slots = 2.0 * links + links / (links - 1.0);
    let other_bytes = match kind {
        GraphKind::Hnsw => GRAPH_ROW_BYTES,
        GraphKind::Usearch => USEARCH_ROW_BYTES + format.number_bytes() as u64 * vectors.dimension,
    };
    let row_bytes = other_bytes as f64 + slots * LINK_BYTES as f64;
    let estimate = (collection.passages as f64 * row_bytes) as u64;
    let graphs = collection.vectors.iter().flat_map(|vectors| &vectors.graphs);
    let mut sizes =
        graphs.filter(|graph| (graph.0, graph.1) == (kind, format)).map(|graph| graph.2);
    let existing = sizes.next();
    let bytes = existing.unwrap_or(estimate);
    Need {
        part: "graph",
        disk_bytes: bytes,
        disk_there_bytes: existing.unwrap_or(0),
        // A graph is built in memory.
        memory_bytes: if existing.is_some() { 0 } else { estimate },
        mapped_bytes: bytes,
        is_exact: existing.is_some(),
        basis: format!("about {row_bytes:.0} bytes per passage, M = {links}, built in memory"),
        ..Need::default()
    }
}

/// Returns the need of a model, which is highest while it is loaded. Measured for the 91 MB of MiniLM,
/// including batches: 180 MB with ONNX Runtime's products, 131 MB with split weights.
fn model(bytes: u64) -> Need {
    Need {
        part: "model",
        disk_bytes: bytes,
        disk_there_bytes: bytes,
        memory_bytes: 2 * bytes,
        basis: "its files, and twice their size in memory while loading".to_owned(),
        ..Need::default()
    }
}

/// Returns the additional need of indexing.
///
/// Postings are first written as segments, which exist until they are merged into one. Hashes of
/// identifiers are in a list that may have grown to twice the necessary size. Passages to compress are
/// first written uncompressed. The temporary disk space is then the larger of two: the uncompressed
/// passages, or the space that compression saves plus the segments.
fn indexing(collection: &Collection, stored: &Need, postings: &Need, threads: u64) -> Need {
    let writers = threads.clamp(1, MAX_WRITER_THREADS) * WRITER_THREAD_BYTES;
    if collection.existing.is_some() {
        let basis = "passages and postings exist".to_owned();
        return Need { part: "while indexing", is_exact: true, basis, ..Need::default() };
    }
    let is_compressed = stored.disk_bytes != collection.stored_bytes;
    let lines = if is_compressed { collection.stored_bytes } else { 0 };
    let segments = postings.disk_bytes + lines.saturating_sub(stored.disk_bytes);
    let uncompressed = if is_compressed { ", and passages until they are compressed" } else { "" };
    Need {
        part: "while indexing",
        disk_bytes: lines.max(segments),
        memory_bytes: writers + 2 * collection.passages * IDENTIFIER_BYTES,
        basis: format!(
            "segments until they are merged{uncompressed}; {} MiB for writers, {} bytes per passage",
            writers >> 20,
            2 * IDENTIFIER_BYTES
        ),
        ..Need::default()
    }
}

#[cfg(test)]
mod tests;
