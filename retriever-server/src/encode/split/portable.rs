//! The products in plain loops, in the layout and the order of the tiles.

use half::bf16;

use super::columns::Columns;
use super::weights::{
    BLOCK_COLUMNS, BLOCK_LINES, Line, ROW_LINES, STEP, Sums, TILE_ROWS, TileFactors, split,
};

/// Implements [`super::SplitMultiplier::split_rows`].
pub(super) fn split_rows(numbers: &[f32], inner: usize, tile: &mut [Line]) {
    for (row, numbers) in numbers.chunks_exact(inner).enumerate() {
        for (numbers, lines) in numbers.chunks(STEP).zip(tile.chunks_exact_mut(ROW_LINES)) {
            for position in 0..STEP {
                let parts = split(numbers.get(position).copied().unwrap_or(0.0));
                for (part, bits) in parts.into_iter().enumerate() {
                    lines[part * TILE_ROWS + row].0[position] = bits;
                }
            }
        }
    }
}

/// Implements [`super::SplitMultiplier::multiply`].
pub(super) fn multiply<'a>(
    tiles: impl Iterator<Item = TileFactors<'a>>,
    products: &mut Columns<'_>,
) {
    let widen = |bits| bf16::from_bits(bits).to_f32();
    // The sums of a tile are complete before the next tile starts, so they stay in the nearest cache.
    for TileFactors { upper, lower, block, row, column } in tiles {
        let mut sums: Sums = [[0.0; BLOCK_COLUMNS]; 2 * TILE_ROWS];
        let (upper_sums, lower_sums) = sums.split_at_mut(TILE_ROWS);
        for (rows, sums) in [(Some(upper), upper_sums), (lower, lower_sums)] {
            // Step by step along the inner dimension, 32 numbers of every row at a time.
            let steps = rows.unwrap_or_default().chunks_exact(ROW_LINES);
            for (rows, weights) in steps.zip(block.chunks_exact(BLOCK_LINES)) {
                // Three products in this order: high × high, high × low, low × high.
                for [left, right] in [[0, 0], [0, 1], [1, 0]] {
                    let rows = &rows[left * TILE_ROWS..][..TILE_ROWS];
                    let weights = &weights[right * 2 * TILE_ROWS..][..2 * TILE_ROWS];
                    for (row, sums) in rows.iter().zip(sums.iter_mut()) {
                        for (column, sum) in sums.iter_mut().enumerate() {
                            // A column is two adjacent numbers in each line of its tile, one for
                            // each number of a pair of the row.
                            let lines = &weights[column / TILE_ROWS * TILE_ROWS..][..TILE_ROWS];
                            let first = 2 * (column % TILE_ROWS);
                            for (pair, line) in row.0.chunks_exact(2).zip(lines) {
                                *sum += widen(pair[0]) * widen(line.0[first])
                                    + widen(pair[1]) * widen(line.0[first + 1]);
                            }
                        }
                    }
                }
            }
        }
        products.write(row, column, &sums);
    }
}
