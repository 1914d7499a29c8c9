//! Measures how fast BM25 ranks queries one by one on one thread, and how fast the passages of the hits
//! are read: `bm25_bench INDEX QUERIES [TOP_K] [ROUNDS]`, by default 10 and 5. INDEX is a folder that
//! `retriever-server index` wrote, QUERIES a file with one query on each line. Prints one JSON object.
//! The times are those of the round with the least CPU time, because other programs can only add to it.

#![expect(clippy::print_stdout, reason = "prints its measurements")]

use std::fs;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use retriever_server::corpus::store::PassageStore;
use retriever_server::index;
use retriever_server::index::OpenIndex;
use retriever_server::index::manifest::Verification;
use retriever_server::lexical::bm25::Bm25Parameters;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let index = PathBuf::from(arguments.next().context("INDEX is missing")?);
    let queries = PathBuf::from(arguments.next().context("QUERIES is missing")?);
    let mut number = |name: &str, default: usize| match arguments.next() {
        Some(text) => {
            text.parse().with_context(|| format!("{name} is {text:?}, expected a number"))
        }
        None => Ok(default),
    };
    let (top_k, rounds) = (number("TOP_K", 10)?, number("ROUNDS", 5)?);
    let text = fs::read_to_string(&queries).with_context(|| queries.display().to_string())?;
    let queries: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    ensure!(!queries.is_empty() && rounds > 0, "there is nothing to measure");

    let begun = Instant::now();
    let open = index::open(&index, Bm25Parameters::default(), Verification::Sizes)?;
    let opening = begun.elapsed();
    let mut measured = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        measured.push(round(&open, &queries, top_k)?);
    }
    measured.sort_by_key(|round| round.cpu);
    let best = &measured[0];
    let mut readings =
        (0..rounds).map(|_| read(&open.passages, &best.rows)).collect::<Result<Vec<_>>>()?;
    readings.sort();
    let reading = readings[0];
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let mean = |time: Duration| micros(time) / queries.len() as f64;
    let at = |share: f64| micros(best.times[((queries.len() - 1) as f64 * share) as usize]);
    println!(
        "{{\"passages\": {}, \"queries\": {}, \"top_k\": {top_k}, \"hits\": {}, \
         \"open_ms\": {:.1}, \"cpu_mean_us\": {:.1}, \"cpu_mean_us_median\": {:.1}, \
         \"mean_us\": {:.1}, \"p50_us\": {:.1}, \"p99_us\": {:.1}, \"passage_cpu_us\": {:.2}}}",
        open.manifest.passage_count,
        queries.len(),
        best.rows.len(),
        micros(opening) / 1e3,
        mean(best.cpu),
        mean(measured[rounds / 2].cpu),
        mean(best.times.iter().sum()),
        at(0.5),
        at(0.99),
        micros(reading) / best.rows.len().max(1) as f64,
    );
    Ok(())
}

/// The measurements of one pass over all queries.
struct Round {
    cpu: Duration,
    /// The time of each query, sorted.
    times: Vec<Duration>,
    /// The rows of all hits, query by query.
    rows: Vec<u32>,
}

fn round(index: &OpenIndex, queries: &[&str], top_k: usize) -> Result<Round> {
    let mut times = Vec::with_capacity(queries.len());
    let mut rows = Vec::new();
    let cpu = thread_cpu_time()?;
    for query in queries {
        let begun = Instant::now();
        let hits = index.lexical.rank(query, top_k, &|| false);
        times.push(begun.elapsed());
        let Ok(hits) = hits else { anyhow::bail!("{query:?} failed") };
        rows.extend(black_box(hits).iter().map(|hit| hit.row));
    }
    let cpu = thread_cpu_time()?.saturating_sub(cpu);
    times.sort();
    Ok(Round { cpu, times, rows })
}

/// Reads passages as for an answer, and returns the CPU time.
fn read(passages: &PassageStore, rows: &[u32]) -> Result<Duration> {
    let cpu = thread_cpu_time()?;
    for &row in rows {
        black_box(passages.get(row)?);
    }
    Ok(thread_cpu_time()?.saturating_sub(cpu))
}

/// Returns the CPU time of this thread, as Linux counts it.
fn thread_cpu_time() -> Result<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").context("this needs Linux")?;
    let nanoseconds = text.split_whitespace().next().context("schedstat is empty")?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}
