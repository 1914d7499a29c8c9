//! The kernels in plain loops, in a shape that compilers can vectorise for any processor.

use super::kernel::{BLOCK_ROWS, PANEL_GROUPS, Survivor};
use super::rows::{self, RowFormat};

/// The number of queries in a group.
pub(super) const LANES: usize = 8;

/// The number of rows multiplied at a time, chosen so that 32 registers of 4 numbers hold the sums.
const TILE_ROWS: usize = 4;

/// The length of the buffer for decoded numbers of a row.
const BUFFER: usize = 64;

pub(super) fn decode(row: &[u8], format: RowFormat, numbers: &mut [[u8; 4]]) {
    let mut first = 0;
    for numbers in numbers.chunks_mut(BUFFER) {
        let mut buffer = [0.0; BUFFER];
        let buffer = &mut buffer[..numbers.len()];
        rows::decode_part(row, format, first, buffer);
        for (number, decoded) in numbers.iter_mut().zip(buffer) {
            *number = decoded.to_le_bytes();
        }
        first += BUFFER;
    }
}

pub(super) fn products(
    rows: &[u8],
    format: RowFormat,
    dimension: usize,
    query: &[f32],
) -> [f32; BLOCK_ROWS] {
    let mut scores = [0.0; BLOCK_ROWS];
    for (score, row) in scores.iter_mut().zip(rows.chunks(format.row_bytes(dimension))) {
        let mut sums = [0.0; LANES];
        for (index, query) in query[..dimension].chunks(BUFFER).enumerate() {
            let mut numbers = [0.0; BUFFER];
            rows::decode_part(row, format, index * BUFFER, &mut numbers[..query.len()]);
            for (factors, numbers) in query.chunks(LANES).zip(numbers.chunks(LANES)) {
                for ((sum, factor), number) in sums.iter_mut().zip(factors).zip(numbers) {
                    *sum = multiply_add(*factor, *number, *sum);
                }
            }
        }
        *score = sums.iter().sum();
    }
    scores
}

pub(super) fn tile(
    rows: &[u8],
    dimension: usize,
    panel: &[f32],
    thresholds: &[f32],
    survivors: &mut Vec<Survivor>,
) {
    match thresholds.len() / LANES {
        1 => tile_groups::<1>(rows, dimension, panel, thresholds, survivors),
        2 => tile_groups::<2>(rows, dimension, panel, thresholds, survivors),
        _ => tile_groups::<PANEL_GROUPS>(rows, dimension, panel, thresholds, survivors),
    }
}

fn tile_groups<const GROUPS: usize>(
    rows: &[u8],
    dimension: usize,
    panel: &[f32],
    thresholds: &[f32],
    survivors: &mut Vec<Survivor>,
) {
    let (numbers, _) = rows.as_chunks::<4>();
    let (groups, _) = panel.as_chunks::<LANES>();
    let (factors, _) = groups.as_chunks::<GROUPS>();
    for (tile, numbers) in numbers.chunks(TILE_ROWS * dimension).enumerate() {
        let last = numbers.len() / dimension - 1;
        let rows: [&[[u8; 4]]; TILE_ROWS] =
            std::array::from_fn(|row| &numbers[row.min(last) * dimension..][..dimension]);
        // Over the positions, then the rows, then the queries: the sums stay in registers, and each
        // position's factors are loaded once for all rows of the tile.
        let mut sums = [[[0.0; LANES]; GROUPS]; TILE_ROWS];
        for (position, factors) in factors[..dimension].iter().enumerate() {
            for (sums, row) in sums.iter_mut().zip(rows) {
                let number = f32::from_le_bytes(row[position]);
                for (sum, factor) in sums.as_flattened_mut().iter_mut().zip(factors.as_flattened())
                {
                    *sum = multiply_add(number, *factor, *sum);
                }
            }
        }
        for (row, sums) in sums.iter().take(last + 1).enumerate() {
            for (query, (&score, threshold)) in
                sums.as_flattened().iter().zip(thresholds).enumerate()
            {
                if score > *threshold {
                    survivors.push(Survivor { row: tile * TILE_ROWS + row, query, score });
                }
            }
        }
    }
}

/// Multiplies and adds with one rounding where all processors of the target can; elsewhere
/// `mul_add` would be a function call.
fn multiply_add(number: f32, factor: f32, sum: f32) -> f32 {
    if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
        number.mul_add(factor, sum)
    } else {
        number * factor + sum
    }
}
