//! Measures the speed of a search on a CUDA device, compares it with the device's bandwidth and its
//! peak of multiplications in the same run, and checks the results: `gpu_bench [DEVICE] [ROWS]…`, by
//! default device 0 with 1,000,000 and 21,015,324 rows of 768 numbers. The device, and for the check
//! the processor, generate the rows from one counter. Without a device, it reports what is missing
//! and ends with exit code 69.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "prints its measurements")]

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use retriever_server::device::Device;
use retriever_server::gpu::{
    BATCH_QUERIES_MAX, CudaDevice, DeviceFormat, GpuError, GpuIndex, GpuOptions, Layout,
    PackedQueries, RowSearcher, compile, devices, search, synthetic,
};
use retriever_server::query::Hit;
use retriever_server::vector::{self, RowFormat, Rows};
use shared::contract::splitmix;
use shared::machine::cuda::CompileError;

/// `EX_UNAVAILABLE` of sysexits: a required service is unavailable.
const EXIT_UNAVAILABLE: u8 = 69;
const DIMENSION: usize = 768;
const ROWS: [usize; 2] = [1_000_000, 21_015_324];
const BATCHES: [usize; 4] = [1, 32, 256, 2560];
const TOP_K: usize = 10;
/// The number of hits that a device keeps for `TOP_K`, as in the server.
const KEEP: [(DeviceFormat, usize); 2] = [(DeviceFormat::Halves, 26), (DeviceFormat::Bytes, 84)];
const SEED: u64 = 20_260_101;
/// The number of queries that are checked against every row.
const CHECKED: usize = 8;
/// The time spent on one figure, unless [`REPEATS_MIN`] repeats take longer.
const FIGURE: Duration = Duration::from_secs(1);
const REPEATS_MIN: usize = 3;
/// The operations of one `mma`: 16 x 8 sums, each of 16 halves or 32 bytes, multiplied and added.
const PRODUCT_OPERATIONS: [u64; 2] = [2 * 16 * 8 * 16, 2 * 16 * 8 * 32];
const PRODUCT_ROUNDS: u32 = 20_000;
/// The products of a round of `multiply` in `gauge.cu`.
const PRODUCTS_A_ROUND: u64 = 8;

fn main() -> ExitCode {
    match devices() {
        Ok(_) => {}
        Err(missing) => {
            eprintln!("error: nothing was measured: {missing}");
            match compile((9, 0), DeviceFormat::Halves) {
                Ok(_) => eprintln!("NVRTC is installed, and the kernels compile for sm_90"),
                Err(error) => eprintln!("the kernels were not compiled either: {error}"),
            }
            return ExitCode::from(EXIT_UNAVAILABLE);
        }
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            let missing = error.downcast_ref::<GpuError>().is_some_and(|error| {
                matches!(
                    error,
                    GpuError::Compile(CompileError::NoCompiler) | GpuError::NoSuchDevice { .. }
                )
            });
            if missing { ExitCode::from(EXIT_UNAVAILABLE) } else { ExitCode::FAILURE }
        }
    }
}

fn run() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let number: u16 = match arguments.next() {
        Some(text) => text.parse().with_context(|| format!("{text:?} is not a device number"))?,
        None => 0,
    };
    let mut sizes = arguments
        .map(|text| text.parse::<usize>().with_context(|| format!("{text:?} is not a number")))
        .collect::<Result<Vec<_>>>()?;
    if sizes.is_empty() {
        sizes.extend(ROWS);
    }
    for format in [RowFormat::F16, RowFormat::I8] {
        compare_with_processor(number, format)?;
        let layout = Layout { format: DeviceFormat::for_rows(format), dimension: DIMENSION };
        for &count in &sizes {
            measure(usize::from(number), layout, count)?;
        }
    }
    Ok(())
}

fn queries(layout: Layout, count: usize) -> Vec<PackedQueries> {
    let mut state = 7;
    (0..count)
        .step_by(BATCH_QUERIES_MAX)
        .map(|first| {
            let batch = BATCH_QUERIES_MAX.min(count - first);
            PackedQueries::pack(layout, &splitmix::numbers(batch * DIMENSION, &mut state))
        })
        .collect()
}

fn keep(format: DeviceFormat) -> usize {
    KEEP.iter().find(|(known, _)| *known == format).map_or(TOP_K, |(_, keep)| *keep)
}

/// Checks every kernel against the exact search of the processor, over few rows.
fn compare_with_processor(number: u16, format: RowFormat) -> Result<()> {
    const COUNT: usize = 9_001;
    let mut state = SEED;
    let mut bytes = Vec::new();
    for row in splitmix::numbers(COUNT * DIMENSION, &mut state).chunks(DIMENSION) {
        format.append_row(row, &mut bytes);
    }
    let rows = Rows::new(&bytes, format, DIMENSION)?;
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let options = GpuOptions { device: Device::Cuda(number), format, threads };
    let index = GpuIndex::open(&rows, &options)?.context("the index is on the processor")?;
    for count in [1, 2, 3, 8, 9, 40, 100, 200] {
        let queries = splitmix::numbers(count * DIMENSION, &mut state);
        let lists = index.search(&rows, &queries, TOP_K, threads, &|| false)?;
        let expected = vector::top_k(&rows, &queries, TOP_K, threads, &|| false);
        ensure!(lists == expected, "{format:?}, {count} queries: other hits than the processor's");
        println!("{format:?}, {count} queries over {COUNT} rows: the hits of the processor");
    }
    Ok(())
}

fn hits(device: &mut CudaDevice, batch: &PackedQueries, keep: usize) -> Result<Vec<Vec<Hit>>> {
    search(device, batch, keep, &|| false)?.context("the search was stopped")
}

/// Checks that the hits contain the best rows with their scores. The scores of bytes must be equal;
/// those of halves may differ as much as another order of summation explains.
fn agree(hits: &[Hit], expected: &[Hit], format: DeviceFormat) -> Result<()> {
    let tolerance = match format {
        DeviceFormat::Halves => 1e-4,
        DeviceFormat::Bytes => 0.0,
    };
    for hit in expected {
        let same = hits.iter().find(|same| same.row == hit.row);
        let same = same.with_context(|| format!("row {} is not among the hits", hit.row))?;
        ensure!(
            (same.score - hit.score).abs() <= tolerance * hit.score.abs(),
            "row {} scored {}, expected {}",
            hit.row,
            same.score,
            hit.score
        );
    }
    Ok(())
}

fn measure(number: usize, layout: Layout, count: usize) -> Result<()> {
    let format = layout.format;
    let mut device = CudaDevice::open(number, layout, count)?;
    device.generate(SEED)?;
    let bytes = count * layout.row_bytes();
    let summary = device.summary();
    println!(
        "\n{} (sm_{}{}), {count} x {DIMENSION} {format:?}, {:.1} GB",
        summary.name,
        summary.capability.0,
        summary.capability.1,
        bytes as f64 / 1e9
    );
    let (reading_ms, _) = device.gauge("read", 0, 5)?;
    let bandwidth = (count * layout.pitch()) as f64 / reading_ms / 1e6;
    let (product_ms, warps) = device.gauge("multiply", PRODUCT_ROUNDS, 5)?;
    let operations = PRODUCT_OPERATIONS[usize::from(format == DeviceFormat::Bytes)];
    let products = warps * u64::from(PRODUCT_ROUNDS) * PRODUCTS_A_ROUND;
    let peak = (products * operations) as f64 / product_ms / 1e9;
    println!("peak rates of the device: reads {bandwidth:.0} GB/s, multiplies {peak:.0} Top/s");
    check(&mut device, layout, count)?;
    println!("| queries | ms | GB/s | Top/s | roofline, ms | share |");
    println!("|---|---|---|---|---|---|");
    for batch in BATCHES {
        let queries = queries(layout, batch);
        let milliseconds = best(|| {
            queries.iter().try_for_each(|batch| hits(&mut device, batch, keep(format)).map(|_| ()))
        })?;
        let passes = queries.len() as f64;
        let operations = 2.0 * batch as f64 * count as f64 * DIMENSION as f64;
        let (moving, multiplying) =
            (passes * bytes as f64 / bandwidth / 1e6, operations / peak / 1e9);
        let bound = moving.max(multiplying);
        println!(
            "| {batch} | {milliseconds:.3} | {:.0} | {:.0} | {bound:.3} | {:.0} % |",
            passes * bytes as f64 / milliseconds / 1e6,
            operations / milliseconds / 1e9,
            100.0 * bound / milliseconds
        );
    }
    Ok(())
}

/// Checks some queries, with the kernels for one and for many, against every row on the processor.
fn check(device: &mut CudaDevice, layout: Layout, count: usize) -> Result<()> {
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let numbers = splitmix::numbers(BATCH_QUERIES_MAX * DIMENSION, &mut 7);
    let few = PackedQueries::pack(layout, &numbers[..CHECKED * DIMENSION]);
    let expected = synthetic::best(layout, SEED, count, &few, TOP_K, threads);
    for batch in [1, CHECKED, 32, BATCH_QUERIES_MAX] {
        let queries = PackedQueries::pack(layout, &numbers[..batch * DIMENSION]);
        let lists = hits(device, &queries, keep(layout.format))?;
        ensure!(lists.len() == batch, "{} lists, expected {batch}", lists.len());
        for (hits, expected) in lists.iter().zip(&expected) {
            agree(hits, expected, layout.format)?;
        }
    }
    let rows = device.rows();
    println!("{CHECKED} queries, alone and in batches, find the best {TOP_K} of {rows} rows");
    Ok(())
}

/// Returns the shortest time of several runs, in milliseconds.
fn best(mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    run()?;
    let begun = Instant::now();
    let (mut best, mut repeats) = (Duration::MAX, 0);
    while repeats < REPEATS_MIN || begun.elapsed() < FIGURE {
        let begun = Instant::now();
        run()?;
        best = best.min(begun.elapsed());
        repeats += 1;
    }
    Ok(best.as_secs_f64() * 1e3)
}
