//! How fast CUDA devices search, beside how fast this device reads its memory and multiplies,
//! measured in the same run, and whether what it finds is right: `gpu_bench [DEVICE] [ROWS]…`, by
//! default device 0 over 1,000,000 and 21,015,324 rows of 768 numbers. Rows are made on the device
//! and, for the check, on the processor, from one counter. Where there is no device it says what is
//! missing and ends with exit code 69.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what it finds out is printed")]

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use retriever_server::gpu::{
    BATCH_QUERIES_MAX, Board, DeviceFormat, GpuError, Layout, Machine, PackedQueries, Twin,
    compile, devices, search, synthetic,
};
use retriever_server::query::Hit;
use shared::splitmix;

/// `EX_UNAVAILABLE` of sysexits: a service that is needed is not there.
const EXIT_UNAVAILABLE: u8 = 69;
const DIMENSION: usize = 768;
const ROWS: [usize; 2] = [1_000_000, 21_015_324];
const BATCHES: [usize; 4] = [1, 32, 256, 2560];
const TOP_K: usize = 10;
/// Hits that a device keeps for those: as the server has it.
const KEEP: [(DeviceFormat, usize); 2] = [(DeviceFormat::Halves, 26), (DeviceFormat::Bytes, 84)];
const SEED: u64 = 20_260_101;
/// Queries that are checked against every row.
const CHECKED: usize = 8;
/// Time that one figure takes, once it was measured [`REPEATS_MIN`] times.
const FIGURE: Duration = Duration::from_secs(1);
const REPEATS_MIN: usize = 3;
/// Operations of one `mma`: 16 x 8 sums, each of 16 halves or 32 bytes, multiplied and added.
const PRODUCT_OPERATIONS: [u64; 2] = [2 * 16 * 8 * 16, 2 * 16 * 8 * 32];
const PRODUCT_ROUNDS: u32 = 20_000;
/// Products a round, as `multiply` in `gauge.cu` has them.
const PRODUCTS_A_ROUND: u64 = 8;

fn main() -> ExitCode {
    match devices() {
        Ok(_) => {}
        Err(missing) => {
            eprintln!("error: nothing was measured: {missing}");
            match compile((9, 0), DeviceFormat::Halves) {
                Ok(_) => eprintln!("NVRTC is there, and the kernels compile for sm_90"),
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
                matches!(error, GpuError::NoCompiler | GpuError::NoSuchDevice { .. })
            });
            if missing { ExitCode::from(EXIT_UNAVAILABLE) } else { ExitCode::FAILURE }
        }
    }
}

fn run() -> Result<()> {
    let mut numbers = std::env::args()
        .skip(1)
        .map(|text| text.parse::<usize>().with_context(|| format!("{text:?} is not a number")));
    let device = numbers.next().transpose()?.unwrap_or(0);
    let mut sizes = numbers.collect::<Result<Vec<_>>>()?;
    if sizes.is_empty() {
        sizes.extend(ROWS);
    }
    for format in [DeviceFormat::Halves, DeviceFormat::Bytes] {
        let layout = Layout { format, dimension: DIMENSION };
        compare_with_twin(device, layout)?;
        for &count in &sizes {
            measure(device, layout, count)?;
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
    KEEP.iter().find(|(one, _)| *one == format).map_or(TOP_K, |(_, keep)| *keep)
}

/// Every kernel against the twin, over few rows.
fn compare_with_twin(device: usize, layout: Layout) -> Result<()> {
    const COUNT: usize = 9_001;
    let (packed, scales) = synthetic::rows(layout, SEED, COUNT);
    let mut board = Board::open(device, layout, COUNT)?;
    board.generate(SEED)?;
    let shared_bytes = board.summary().shared_bytes;
    let mut twin = Twin::of_packed(layout, packed, scales, shared_bytes);
    for count in [1, 2, 3, 8, 9, 40, 100, 200] {
        for batch in queries(layout, count) {
            let found = found(&mut board, &batch, keep(layout.format))?;
            let Ok(expected) = search(&mut twin, &batch, keep(layout.format), &|| false);
            let expected = expected.context("the twin was not stopped")?;
            for (found, expected) in found.iter().zip(&expected) {
                agree(found, &expected[..TOP_K], layout.format)?;
            }
        }
        println!("{:?}, {count} queries over {COUNT} rows: as the twin", layout.format);
    }
    Ok(())
}

fn found(board: &mut Board, batch: &PackedQueries, keep: usize) -> Result<Vec<Vec<Hit>>> {
    search(board, batch, keep, &|| false)?.context("the search was not stopped")
}

/// The best rows are among those that were found, with their scores: to the last bit for bytes,
/// to what another order of sums changes for halves.
fn agree(found: &[Hit], expected: &[Hit], format: DeviceFormat) -> Result<()> {
    let tolerance = match format {
        DeviceFormat::Halves => 1e-4,
        DeviceFormat::Bytes => 0.0,
    };
    for hit in expected {
        let same = found.iter().find(|found| found.row == hit.row);
        let same = same.with_context(|| format!("row {} was not found", hit.row))?;
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

fn measure(device: usize, layout: Layout, count: usize) -> Result<()> {
    let format = layout.format;
    let mut board = Board::open(device, layout, count)?;
    board.generate(SEED)?;
    let bytes = count * layout.row_bytes();
    let summary = board.summary();
    println!(
        "\n{} (sm_{}{}), {count} x {DIMENSION} {format:?}, {:.1} GB",
        summary.name,
        summary.capability.0,
        summary.capability.1,
        bytes as f64 / 1e9
    );
    let (reading_ms, _) = board.gauge("read", 0, 5)?;
    let bandwidth = (count * layout.pitch()) as f64 / reading_ms / 1e6;
    let (product_ms, warps) = board.gauge("multiply", PRODUCT_ROUNDS, 5)?;
    let operations = PRODUCT_OPERATIONS[usize::from(format == DeviceFormat::Bytes)];
    let products = warps * u64::from(PRODUCT_ROUNDS) * PRODUCTS_A_ROUND;
    let peak = (products * operations) as f64 / product_ms / 1e9;
    println!("it reads {bandwidth:.0} GB/s and multiplies {peak:.0} Top/s, measured just now");
    check(&mut board, layout, count)?;
    println!("| queries | ms | GB/s | Top/s | roofline, ms | share |");
    println!("|---|---|---|---|---|---|");
    for batch in BATCHES {
        let queries = queries(layout, batch);
        let milliseconds = best(|| {
            queries.iter().try_for_each(|batch| found(&mut board, batch, keep(format)).map(|_| ()))
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

/// Some queries, by the kernels of one query and of many, against every row on the processor.
fn check(board: &mut Board, layout: Layout, count: usize) -> Result<()> {
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let numbers = splitmix::numbers(BATCH_QUERIES_MAX * DIMENSION, &mut 7);
    let few = PackedQueries::pack(layout, &numbers[..CHECKED * DIMENSION]);
    let expected = synthetic::best(layout, SEED, count, (&few, TOP_K), threads);
    for batch in [1, CHECKED, 32, BATCH_QUERIES_MAX] {
        let queries = PackedQueries::pack(layout, &numbers[..batch * DIMENSION]);
        let found = found(board, &queries, keep(layout.format))?;
        if found.len() != batch {
            bail!("{} lists, expected {batch}", found.len());
        }
        for (found, expected) in found.iter().zip(&expected) {
            agree(found, expected, layout.format)?;
        }
    }
    let rows = board.rows();
    println!("{CHECKED} queries, alone and in batches, find the best {TOP_K} of {rows} rows");
    Ok(())
}

/// Shortest time of some runs, in milliseconds.
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
