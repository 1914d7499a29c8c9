//! Measures the speed of the exact search, and compares it with the bandwidth and the peak of
//! multiplications of this machine in the same run:
//! `scan_bench [ROWS] [DIMENSION] [THREADS] [BATCHES] [all|fastest]`, by default 200000, 384, all cores,
//! 1,32,512 and all instructions. ROWS is a number of random rows, or a file of little-endian 32-bit
//! floats. Every figure is the best of several, because other programs can only slow it down.

#![expect(clippy::print_stdout, reason = "prints its measurements")]

use std::fs;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use retriever_server::query::Hit;
use retriever_server::vector::{Instructions, RowFormat, Rows, rescore, top_k, top_k_with};
use shared::contract::splitmix::numbers;

const BATCHES: &str = "1,32,512";
const TOP_K: usize = 10;
/// The number of hits of coarser rows that are scored again.
const CANDIDATES: usize = 40;
const ROWS: &str = "200000";
/// The numbers of positions from which memory is read in parallel.
const STREAMS: [usize; 3] = [1, 4, 8];
/// The time spent on one figure, unless [`REPEATS_MIN`] repeats take longer.
const FIGURE: Duration = Duration::from_millis(700);
const REPEATS_MIN: usize = 3;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let number = |name: &str, text: &str| -> Result<usize> {
        text.parse().with_context(|| format!("{name} is {text:?}, expected a number"))
    };
    let rows = arguments.next().unwrap_or_else(|| ROWS.to_owned());
    let mut argument = |name: &str, default: usize| match arguments.next() {
        Some(text) => number(name, &text),
        None => Ok(default),
    };
    let dimension = argument("DIMENSION", 384)?;
    let threads =
        argument("THREADS", thread::available_parallelism().map_or(1, NonZeroUsize::get))?;
    ensure!(dimension > 0 && threads > 0, "DIMENSION and THREADS must be above 0");
    let batches = arguments.next().unwrap_or_else(|| BATCHES.to_owned());
    let batches: Vec<usize> =
        batches.split(',').map(|text| number("BATCHES", text)).collect::<Result<_>>()?;
    let mut instructions = Instructions::available();
    match arguments.next().as_deref() {
        None | Some("all") => {}
        Some("fastest") => instructions.truncate(1),
        Some(other) => bail!("the instructions are {other:?}, expected all or fastest"),
    }

    let asked = batches.iter().max().unwrap_or(&0) * dimension;
    let (numbers, queries) = load_numbers(&rows, dimension, asked)?;
    let count = numbers.len() / dimension;
    println!("{count} rows of {dimension} numbers, the best {TOP_K}, {threads} threads");
    let mut exact = Vec::new();
    for format in [RowFormat::F32, RowFormat::F16, RowFormat::I8] {
        let mut bytes = Vec::with_capacity(count * format.row_bytes(dimension));
        for row in numbers.chunks_exact(dimension) {
            format.append_row(row, &mut bytes);
        }
        let rows = Rows::new(&bytes, format, dimension)?;
        let lists = top_k(&rows, &queries, CANDIDATES, threads, &|| false);
        let lists = lists.context("nothing stops the search")?;
        if format == RowFormat::F32 {
            exact = lists;
        } else {
            println!("\n{format:?}: {}", recalls(&numbers, &queries, dimension, &exact, lists)?);
        }
        for &instructions in &instructions {
            println!("\n{format:?}, {}", instructions.name());
            for &batch in &batches {
                let queries = &queries[..batch * dimension];
                let search = || top_k_with(instructions, &rows, queries, TOP_K, threads, &|| false);
                let before = reading(&bytes, threads);
                let searching = best(search);
                let reading = before.min(reading(&bytes, threads));
                let operations = (2 * batch * count * dimension) as f64;
                let peak = peak(Lanes::used_by(instructions), threads);
                let (speed, bandwidth) =
                    (gigas(bytes.len(), searching), gigas(bytes.len(), reading));
                let flops = operations / searching.as_secs_f64() / 1e9;
                println!(
                    "batch {batch:3}: {:8.2} ms, {speed:5.1} GB/s ({:3.0} % of {bandwidth:.1}), \
                     {flops:5.0} GFLOP/s ({:3.0} % of {peak:.0})",
                    searching.as_secs_f64() * 1e3,
                    100.0 * speed / bandwidth,
                    100.0 * flops / peak,
                );
            }
        }
    }
    Ok(())
}

/// Returns the numbers of the rows, random or from a file, and `asked` numbers of queries.
fn load_numbers(rows: &str, dimension: usize, asked: usize) -> Result<(Vec<f32>, Vec<f32>)> {
    if let Ok(count) = rows.parse::<usize>() {
        let mut state = 1;
        let queries = numbers(asked, &mut state);
        return Ok((numbers(count * dimension, &mut state), queries));
    }
    let bytes = fs::read(rows).with_context(|| rows.to_owned())?;
    let mut numbers: Vec<f32> =
        bytes.as_chunks().0.iter().map(|&number| f32::from_le_bytes(number)).collect();
    ensure!(numbers.len() > asked, "{rows} has fewer vectors than the largest batch");
    // The last rows become the queries, because queries are not among the rows.
    let queries = numbers.split_off(numbers.len() - asked);
    Ok((numbers, queries))
}

/// Returns the recall of a search in coarser rows, before and after its candidates are scored again
/// with the exact numbers of the rows.
fn recalls(
    numbers: &[f32],
    queries: &[f32],
    dimension: usize,
    exact: &[Vec<Hit>],
    mut lists: Vec<Vec<Hit>>,
) -> Result<String> {
    let recall = |lists: &[Vec<Hit>]| {
        let matches = exact.iter().zip(lists).flat_map(|(exact, hits)| {
            let hits = &hits[..TOP_K.min(hits.len())];
            exact.iter().take(TOP_K).map(|best| hits.iter().any(|hit| hit.row == best.row))
        });
        let matches: Vec<bool> = matches.collect();
        matches.iter().filter(|&&is_hit| is_hit).count() as f64 / matches.len().max(1) as f64
    };
    let before = recall(&lists);
    let mut bytes = Vec::with_capacity(size_of_val(numbers));
    RowFormat::F32.append_row(numbers, &mut bytes);
    rescore(&Rows::new(&bytes, RowFormat::F32, dimension)?, queries, &mut lists, TOP_K, 1);
    let after = recall(&lists);
    Ok(format!("recall@{TOP_K} {before:.4}, of {CANDIDATES} scored again {after:.4}"))
}

fn gigas(bytes: usize, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64() / 1e9
}

/// Returns the shortest time of several runs.
fn best<T>(mut run: impl FnMut() -> T) -> Duration {
    let begun = Instant::now();
    let mut best = Duration::MAX;
    let mut repeats = 0;
    while repeats < REPEATS_MIN || begun.elapsed() < FIGURE {
        let begun = Instant::now();
        black_box(run());
        best = best.min(begun.elapsed());
        repeats += 1;
    }
    best
}

fn on_threads(threads: usize, work: impl Fn(usize) + Sync) {
    thread::scope(|scope| {
        for index in 0..threads {
            let work = &work;
            scope.spawn(move || work(index));
        }
    });
}

/// Reads all bytes, an equal share on each thread, from `streams` positions in parallel.
fn read(bytes: &[u8], threads: usize, streams: usize) {
    let share = bytes.len().div_ceil(threads).next_multiple_of(4096);
    on_threads(threads, |index| {
        black_box(wide::read(bytes.chunks(share).nth(index).unwrap_or_default(), streams));
    });
}

/// Returns the shortest time to read all bytes, over all numbers of streams.
fn reading(bytes: &[u8], threads: usize) -> Duration {
    let times = STREAMS.map(|streams| best(|| read(bytes, threads, streams)));
    times.into_iter().min().unwrap_or_default()
}

/// Returns the peak rate of multiply-adds in registers, in GFLOP/s.
fn peak(lanes: Lanes, threads: usize) -> f64 {
    const STEPS: usize = 4_000_000;
    let time = best(|| on_threads(threads, |_| wide::multiply_add(lanes, STEPS)));
    (2 * wide::SUMS * lanes.count() * STEPS * threads) as f64 / time.as_secs_f64() / 1e9
}

/// The number of lanes of a vector.
#[derive(Clone, Copy, Debug)]
enum Lanes {
    Four,
    Eight,
    Sixteen,
}

impl Lanes {
    fn used_by(instructions: Instructions) -> Self {
        match instructions.name() {
            "AMX" | "AVX-512 BF16" | "AVX-512" => Self::Sixteen,
            "AVX2" => Self::Eight,
            _ => Self::Four,
        }
    }

    fn count(self) -> usize {
        match self {
            Self::Four => 4,
            Self::Eight => 8,
            Self::Sixteen => 16,
        }
    }
}

/// Measurements of the machine's limits.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "instructions chosen at run time")]
mod wide {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps, _mm512_fmadd_ps, _mm512_set1_ps};
    use std::hint::black_box;

    use super::{Lanes, fold, plain};

    /// The number of independent sums: more than two units of latency 4 need.
    pub(super) const SUMS: usize = 12;

    pub(super) fn read(bytes: &[u8], streams: usize) -> u64 {
        #[target_feature(enable = "avx512f")]
        fn widest(bytes: &[u8], streams: usize) -> u64 {
            fold(bytes, streams)
        }
        #[target_feature(enable = "avx2")]
        fn wide(bytes: &[u8], streams: usize) -> u64 {
            fold(bytes, streams)
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has AVX-512F.
            unsafe { widest(bytes, streams) }
        } else if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            unsafe { wide(bytes, streams) }
        } else {
            fold(bytes, streams)
        }
    }

    pub(super) fn multiply_add(lanes: Lanes, steps: usize) {
        #[target_feature(enable = "avx512f")]
        fn widest(steps: usize) {
            let mut sums = [_mm512_set1_ps(0.5); SUMS];
            let (factor, term) = (_mm512_set1_ps(black_box(0.999)), _mm512_set1_ps(1e-3));
            for _ in 0..steps {
                for sum in &mut sums {
                    *sum = _mm512_fmadd_ps(*sum, factor, term);
                }
            }
            black_box(sums);
        }
        #[target_feature(enable = "avx2,fma")]
        fn wide(steps: usize) {
            let mut sums = [_mm256_set1_ps(0.5); SUMS];
            let (factor, term) = (_mm256_set1_ps(black_box(0.999)), _mm256_set1_ps(1e-3));
            for _ in 0..steps {
                for sum in &mut sums {
                    *sum = _mm256_fmadd_ps(*sum, factor, term);
                }
            }
            black_box(sums);
        }
        match lanes {
            // SAFETY: the processor has AVX-512F: the search detected it.
            Lanes::Sixteen => unsafe { widest(steps) },
            // SAFETY: the processor has AVX2 and FMA: the search detected them.
            Lanes::Eight => unsafe { wide(steps) },
            Lanes::Four => plain::<SUMS>(steps),
        }
    }
}

/// Measurements of the machine's limits.
#[cfg(not(target_arch = "x86_64"))]
mod wide {
    pub(super) const SUMS: usize = 24;
    pub(super) use super::fold as read;

    pub(super) fn multiply_add(_: super::Lanes, steps: usize) {
        super::plain::<SUMS>(steps);
    }
}

#[inline]
fn fold(bytes: &[u8], streams: usize) -> u64 {
    let mut folded = [0u64; 64];
    let parts = bytes.as_chunks::<512>().0;
    let length = parts.len() / streams;
    for step in 0..length {
        for stream in 0..streams {
            let words = parts[stream * length + step].as_chunks::<8>().0;
            for (folded, word) in folded.iter_mut().zip(words) {
                *folded ^= u64::from_le_bytes(*word);
            }
        }
    }
    folded.iter().fold(0, |all, folded| all ^ folded)
}

fn plain<const SUMS: usize>(steps: usize) {
    let (factor, term) = (black_box(0.999f32), black_box(1e-3));
    let mut sums = [[0.5f32; 4]; SUMS];
    for _ in 0..steps {
        for sum in sums.as_flattened_mut() {
            *sum = if cfg!(target_arch = "aarch64") {
                sum.mul_add(factor, term)
            } else {
                *sum * factor + term
            };
        }
    }
    black_box(sums);
}
