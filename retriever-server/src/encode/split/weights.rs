//! Split numbers in the layout of tiles, and the division of a product among threads.

use half::bf16;

use super::SplitMultiplier;
use super::columns::Columns;
use super::onnx::Matrix;

/// The number of rows of a tile.
pub(super) const TILE_ROWS: usize = 16;
/// The count of numbers of each row that one step multiplies.
pub(super) const STEP: usize = 32;
/// The number of columns that are computed together, which is two tiles.
pub(super) const BLOCK_COLUMNS: usize = 32;
/// The number of lines in a step of a block of weights: two tiles of high and two of low parts.
pub(super) const BLOCK_LINES: usize = 4 * TILE_ROWS;
/// The number of lines in a step of a tile of activations: one tile of high and one of low parts.
pub(super) const ROW_LINES: usize = 2 * TILE_ROWS;

/// A row of a tile, which is one line of the processor's cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u16; STEP]);

/// Splits a number into two bfloat16, a high and a low part. Their sum differs from the number by at
/// most 2^-16 of it. For an infinity, the sum is NaN.
pub(super) fn split(number: f32) -> [u16; 2] {
    let high = bf16::from_f32(number);
    let low = bf16::from_f32(number - high.to_f32());
    [high.to_bits(), low.to_bits()]
}

/// Packed weights, with [`BLOCK_LINES`] lines for each block of columns and each step. Line `n` of a tile
/// holds the numbers of rows 2n and 2n + 1 of the step side by side, column after column. Numbers
/// beyond the last row or column are zero.
#[derive(Debug)]
pub(super) struct Weights {
    inner: usize,
    columns: usize,
    lines: Vec<Line>,
}

impl Weights {
    /// Splits and packs a matrix.
    pub(super) fn pack(&Matrix { numbers, inner, columns }: &Matrix<'_>) -> Self {
        let steps = inner.div_ceil(STEP);
        let blocks = columns.div_ceil(BLOCK_COLUMNS);
        let mut lines = vec![Line::default(); blocks * steps * BLOCK_LINES];
        let (numbers, _) = numbers.as_chunks::<4>();
        // In the order of the lines, so that memory is written in sequence and each number read once.
        for (number, lines) in lines.chunks_exact_mut(BLOCK_LINES).enumerate() {
            let (high, low) = lines.split_at_mut(2 * TILE_ROWS);
            let (block, step) = (number / steps, number % steps);
            for (line, (high, low)) in high.iter_mut().zip(low).enumerate() {
                let column = block * BLOCK_COLUMNS + line / TILE_ROWS * TILE_ROWS;
                let depth = step * STEP + 2 * (line % TILE_ROWS);
                // The two rows of a line, side by side.
                for side in 0..2 {
                    let start = (depth + side) * columns;
                    let end = start + columns.min(column + TILE_ROWS);
                    // Beyond the last row or column there are no numbers, and the zeros stay.
                    let row = numbers.get(start + column..end);
                    for (position, &bytes) in row.unwrap_or_default().iter().enumerate() {
                        let parts = split(f32::from_le_bytes(bytes));
                        [high.0[2 * position + side], low.0[2 * position + side]] = parts;
                    }
                }
            }
        }
        Self { inner, columns, lines }
    }

    /// Returns the length of an activation.
    pub(super) fn inner(&self) -> usize {
        self.inner
    }

    /// Returns the length of a product.
    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    fn steps(&self) -> usize {
        self.inner.div_ceil(STEP)
    }

    /// Returns the lines of a block of columns, step after step.
    pub(super) fn block(&self, block: usize) -> &[Line] {
        let length = self.steps() * BLOCK_LINES;
        &self.lines[block * length..][..length]
    }

    /// Divides a product into up to `parts` parts for as many threads. Each part has some of the columns.
    /// `products` holds rows of [`Self::columns`] numbers.
    pub(super) fn parts<'a>(&'a self, products: &'a mut [f32], parts: usize) -> Vec<Part<'a>> {
        let blocks = self.columns.div_ceil(BLOCK_COLUMNS).div_ceil(parts.max(1)).max(1);
        let shares = Columns::split(products, self.columns, blocks * BLOCK_COLUMNS);
        shares.into_iter().map(|columns| Part { weights: self, columns }).collect()
    }
}

/// Split activations, with [`ROW_LINES`] lines for each tile of rows and each step, high parts first.
/// Rows beyond the last one hold arbitrary numbers.
#[derive(Debug, Default)]
pub(super) struct Activations {
    rows: usize,
    inner: usize,
    lines: Vec<Line>,
}

impl Activations {
    /// Splits rows of `inner` numbers into this buffer and returns it.
    pub(super) fn split(
        &mut self,
        numbers: &[f32],
        inner: usize,
        multiplier: SplitMultiplier,
    ) -> &Self {
        self.inner = inner;
        self.rows = numbers.len() / inner;
        let steps = inner.div_ceil(STEP);
        // Lines beyond the rows keep zeros or older numbers, whose products nobody reads.
        self.lines.resize(self.rows.div_ceil(TILE_ROWS) * steps * ROW_LINES, Line::default());
        let tiles = self.lines.chunks_exact_mut(steps * ROW_LINES);
        for (rows, tile) in numbers.chunks(TILE_ROWS * inner).zip(tiles) {
            multiplier.split_rows(rows, inner, tile);
        }
        self
    }

    /// Returns the tile of rows that starts at `row`, and the next one if there is one.
    fn tiles(&self, row: usize) -> (&[Line], Option<&[Line]>) {
        let length = self.inner.div_ceil(STEP) * ROW_LINES;
        let mut tiles = self.lines[row / TILE_ROWS * length..].chunks_exact(length);
        (tiles.next().expect("the caller asks for rows that were split"), tiles.next())
    }
}

/// Some columns of a product.
pub(super) struct Part<'a> {
    weights: &'a Weights,
    columns: Columns<'a>,
}

impl Part<'_> {
    /// Computes these columns.
    pub(super) fn compute(&mut self, activations: &Activations, multiplier: SplitMultiplier) {
        let rows = activations.rows.min(self.columns.rows());
        let blocks = self.columns.range().step_by(BLOCK_COLUMNS);
        let weights = self.weights;
        // All rows for one block of weights before the next block, which then stays in the cache.
        let tiles = blocks.flat_map(|column| {
            let block = weights.block(column / BLOCK_COLUMNS);
            (0..rows).step_by(2 * TILE_ROWS).map(move |row| {
                let (upper, lower) = activations.tiles(row);
                TileFactors { upper, lower, block, row, column }
            })
        });
        multiplier.multiply(tiles, &mut self.columns);
    }
}

/// The factors of one multiplication.
pub(super) struct TileFactors<'a> {
    /// The first 16 rows of activations.
    pub(super) upper: &'a [Line],
    /// The next 16 rows, if there are any.
    pub(super) lower: Option<&'a [Line]>,
    /// A block of weights.
    pub(super) block: &'a [Line],
    /// The first row of the products.
    pub(super) row: usize,
    /// The first column of the products.
    pub(super) column: usize,
}

/// The products of a [`TileFactors`].
pub(super) type Sums = [[f32; BLOCK_COLUMNS]; 2 * TILE_ROWS];
