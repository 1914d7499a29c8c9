//! Builds a graph over vectors in a file of little-endian 32-bit floats, or reads one from a faiss
//! file, and prints recall and time of searches on one thread:
//! `cargo run --release --example hnsw_bench -- VECTORS DIMENSION QUERIES [FORMAT [FAISS_FILE]]`.
//! The last QUERIES rows are the queries, and the other rows are searched. FORMAT is f32, f16 or i8;
//! with the prefix `usearch-`, the graph is one of usearch.

#![expect(clippy::print_stdout, reason = "this program's only output")]

use std::cell::RefCell;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use retriever_server::query::Hit;
use retriever_server::vector::faiss_file::FaissIndex;
use retriever_server::vector::hnsw::{BuildSettings, Builder, GraphFile, GraphSearchSize};
use retriever_server::vector::usearch::{GraphShape, UsearchBuilder, UsearchFile};
use retriever_server::vector::{self, Metric, RowFormat, Rows, Scorer};

const TOP_K: usize = 10;
const EFS: [usize; 7] = [16, 24, 32, 48, 64, 128, 256];
/// The number of times that each ef is measured; the fastest counts.
const ROUNDS: usize = 5;
const SETTINGS: BuildSettings = BuildSettings { links: 16, ef: 128, seed: 1 };
const NOT_STOPPED: &str = "nothing stops the search";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, dimension, asked, rest @ ..] = arguments.as_slice() else {
        return Err("expected VECTORS DIMENSION QUERIES [FORMAT [FAISS_FILE]]".into());
    };
    let (dimension, asked): (usize, usize) = (dimension.parse()?, asked.parse()?);
    let bytes = fs::read(path)?;
    let row_bytes = RowFormat::F32.row_bytes(dimension);
    let count = bytes.len() / row_bytes - asked;
    let (stored, last) = bytes.split_at(count * row_bytes);
    let rows = Rows::new(stored, RowFormat::F32, dimension)?;
    let last = &last[..asked * row_bytes];
    let queries: Vec<f32> =
        last.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    let exact = vector::top_k(&rows, &queries, TOP_K, 2, &|| false).ok_or(NOT_STOPPED)?;
    if let Some(file) = rest.get(1) {
        let FaissIndex::Hnsw(file) = FaissIndex::open(Path::new(file))? else {
            return Err("not an HNSW file".into());
        };
        measure("faiss's file", &queries, dimension, &exact, |query, ef| {
            file.search(query, GraphSearchSize { top_k: TOP_K, ef }, &|| false).expect(NOT_STOPPED)
        });
        return Ok(());
    }
    let name = rest.first().map_or("f32", String::as_str);
    let usearch_format = name.strip_prefix("usearch-");
    let format = RowFormat::parse(usearch_format.unwrap_or(name));
    let format = format.ok_or_else(|| format!("FORMAT is {name}, expected f32, f16 or i8"))?;
    if usearch_format.is_some() {
        return measure_usearch(&rows, path, format, &queries, &exact);
    }
    let mut converted = Vec::new();
    let mut numbers = vec![0.0; dimension];
    for row in 0..count {
        rows.read_row(row, &mut numbers);
        format.append_row(&numbers, &mut converted);
    }
    let graph_path = graph(&rows, path)?;
    let graph = GraphFile::open(&graph_path, true)?;
    let coarse = Rows::new(&converted, format, dimension)?;
    let scorer = Scorer::new(coarse, Metric::InnerProduct);
    measure(&format!("{format:?}"), &queries, dimension, &exact, |query, ef| {
        let size = GraphSearchSize { top_k: ef.min(4 * TOP_K), ef };
        let hits = graph.search(&scorer, query, size, &|| false).expect(NOT_STOPPED);
        rescored(&rows, query, hits)
    });
    Ok(())
}

/// Keeps the best [`TOP_K`] hits by the exact rows.
fn rescored(rows: &Rows<'_>, query: &[f32], hits: Vec<Hit>) -> Vec<Hit> {
    let mut lists = [hits];
    vector::rescore(rows, query, &mut lists, TOP_K, 1);
    let [hits] = lists;
    hits
}

/// Returns the path of the graph, which it builds if the file does not exist.
fn graph(rows: &Rows<'_>, vectors: &str) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let path = PathBuf::from(format!("{vectors}.hnsw"));
    if path.try_exists()? {
        return Ok(path);
    }
    let started = Instant::now();
    let scorer = Scorer::new(*rows, Metric::InnerProduct);
    let mut builder = Builder::new(scorer, SETTINGS, 2);
    while builder.insert_batch() {}
    println!("built {} rows in {:.1} s", rows.count(), started.elapsed().as_secs_f64());
    builder.write(&mut fs::File::create(&path).map(std::io::BufWriter::new)?)?;
    Ok(path)
}

/// Measures the graph of usearch, which it builds if the file does not exist.
fn measure_usearch(
    rows: &Rows<'_>,
    vectors: &str,
    format: RowFormat,
    queries: &[f32],
    exact: &[Vec<Hit>],
) -> Result<(), Box<dyn std::error::Error>> {
    let path = PathBuf::from(format!("{vectors}.{}.usearch", format.name()));
    if !path.try_exists()? {
        let (started, cpu_started) = (Instant::now(), process_cpu_seconds());
        let mut builder = UsearchBuilder::new(*rows, format, SETTINGS, 2)?;
        while builder.insert_batch()? {}
        let cpu_s = process_cpu_seconds() - cpu_started;
        println!("built {} rows in {:.1} s", rows.count(), started.elapsed().as_secs_f64());
        let memory_bytes = builder.memory_bytes() as f64 / rows.count() as f64;
        println!("the build took {cpu_s:.1} s of processor time and {memory_bytes:.0} bytes a row");
        builder.save(&path)?;
    }
    let (count, dimension) = (rows.count(), rows.dimension());
    let shape = GraphShape { rows: count, dimension, format, settings: SETTINGS };
    let resident = resident_bytes();
    let graph = RefCell::new(UsearchFile::open(&path, shape, TOP_K, 1)?);
    let opened = resident_bytes().saturating_sub(resident) as f64 / count as f64;
    println!("opened, {opened:.0} bytes of memory a row");
    measure(&format!("usearch {format:?}"), queries, dimension, exact, |query, ef| {
        graph.borrow_mut().set_ef(ef);
        let hits = graph.borrow().search(query, ef.min(4 * TOP_K), &|| false);
        let hits = hits.expect("usearch searches its own file").expect(NOT_STOPPED);
        rescored(rows, query, hits)
    });
    Ok(())
}

fn measure(
    name: &str,
    queries: &[f32],
    dimension: usize,
    exact: &[Vec<Hit>],
    search: impl Fn(&[f32], usize) -> Vec<Hit>,
) {
    for ef in EFS {
        let mut fastest = [f64::INFINITY; 2];
        for _ in 0..ROUNDS {
            let (started, cpu_started) = (Instant::now(), cpu_seconds());
            for query in queries.chunks(dimension) {
                black_box(search(query, ef));
            }
            let round = [started.elapsed().as_secs_f64(), cpu_seconds() - cpu_started];
            fastest = [fastest[0].min(round[0]), fastest[1].min(round[1])];
        }
        let (mut matches, mut expected) = (0, 0);
        for (query, exact) in queries.chunks(dimension).zip(exact) {
            let hits = search(query, ef);
            let is_hit = |best: &&Hit| hits.iter().any(|hit| hit.row == best.row);
            expected += exact.len();
            matches += exact.iter().filter(is_hit).count();
        }
        println!(
            "{name:>12} ef {ef:>3}: recall@{TOP_K} {:.4}, {:.1} us a query, {:.1} of processor time",
            matches as f64 / expected as f64,
            fastest[0] * 1e6 / exact.len() as f64,
            fastest[1] * 1e6 / exact.len() as f64
        );
    }
}

/// Returns the processor time of this thread, which other programs disturb less than the clock; 0
/// where the system does not report it.
fn cpu_seconds() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|number| number.parse::<u64>().ok());
    nanoseconds.unwrap_or_default() as f64 / 1e9
}

/// Returns the processor time of all threads; 0 where the system does not report it.
fn process_cpu_seconds() -> f64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = text.rsplit(')').next().unwrap_or_default().split(' ').skip(12).take(2);
    ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Returns the bytes of this process's memory that no file backs; 0 where the system does not report
/// them.
fn resident_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or_default() * 1024
}
