//! Numbers split in two and laid out as tiles take them, and how a product is shared among threads.

use half::bf16;

use super::Multiplier;
use super::columns::Columns;
use super::onnx::Matrix;

/// Rows of a tile.
pub(super) const TILE_ROWS: usize = 16;
/// Numbers of each row that one step multiplies.
pub(super) const STEP: usize = 32;
/// Columns that are computed together: of two tiles.
pub(super) const BLOCK_COLUMNS: usize = 32;
/// Lines of a step of a block of weights: two tiles of high and two of low parts.
pub(super) const BLOCK_LINES: usize = 4 * TILE_ROWS;
/// Lines of a step of a tile of activations: one tile of high and one of low parts.
pub(super) const ROW_LINES: usize = 2 * TILE_ROWS;

/// A row of a tile, as a line of the processor's cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u16; STEP]);

/// Splits a number into two bfloat16, high and low part, whose sum is off by 2^-16 of it at most.
/// An infinity becomes no number in the sum.
pub(super) fn split(number: f32) -> [u16; 2] {
    let high = bf16::from_f32(number);
    let low = bf16::from_f32(number - high.to_f32());
    [high.to_bits(), low.to_bits()]
}

/// Weights, packed: for each block of columns and each step, [`BLOCK_LINES`]. Line `n` of a tile
/// holds the numbers of rows 2n and 2n + 1 of the step side by side, column after column; what is
/// beyond the last row or column is zero.
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
        for (number, place) in lines.chunks_exact_mut(BLOCK_LINES).enumerate() {
            let (high, low) = place.split_at_mut(2 * TILE_ROWS);
            let (block, step) = (number / steps, number % steps);
            for (line, (high, low)) in high.iter_mut().zip(low).enumerate() {
                let column = block * BLOCK_COLUMNS + line / TILE_ROWS * TILE_ROWS;
                let depth = step * STEP + 2 * (line % TILE_ROWS);
                for within in 0..2 {
                    let row = (depth + within) * columns;
                    let end = row + columns.min(column + TILE_ROWS);
                    // Rows and columns beyond the last are not there.
                    let row = numbers.get(row + column..end);
                    for (position, &bytes) in row.unwrap_or_default().iter().enumerate() {
                        let parts = split(f32::from_le_bytes(bytes));
                        [high.0[2 * position + within], low.0[2 * position + within]] = parts;
                    }
                }
            }
        }
        Self { inner, columns, lines }
    }

    /// Numbers of an activation.
    pub(super) fn inner(&self) -> usize {
        self.inner
    }

    /// Numbers of a product.
    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    fn steps(&self) -> usize {
        self.inner.div_ceil(STEP)
    }

    /// The lines of a block of columns, step after step.
    pub(super) fn block(&self, block: usize) -> &[Line] {
        let length = self.steps() * BLOCK_LINES;
        &self.lines[block * length..][..length]
    }

    /// Shares a product among up to `parts` threads, each of which computes some of its columns.
    /// `products` holds rows of [`Self::columns`] numbers.
    pub(super) fn parts<'a>(&'a self, products: &'a mut [f32], parts: usize) -> Vec<Part<'a>> {
        let blocks = self.columns.div_ceil(BLOCK_COLUMNS).div_ceil(parts.max(1)).max(1);
        let shares = Columns::split(products, self.columns, blocks * BLOCK_COLUMNS);
        shares.into_iter().map(|columns| Part { weights: self, columns }).collect()
    }
}

/// Activations, split: for each tile of rows and each step, [`ROW_LINES`], the high parts first. Rows
/// beyond the last one hold whatever they held.
#[derive(Debug, Default)]
pub(super) struct Activations {
    rows: usize,
    inner: usize,
    lines: Vec<Line>,
}

impl Activations {
    /// Splits rows of `inner` numbers, and returns them.
    pub(super) fn split(&mut self, numbers: &[f32], inner: usize, with: Multiplier) -> &Self {
        self.inner = inner;
        self.rows = numbers.len() / inner;
        let steps = inner.div_ceil(STEP);
        // Zeros, or numbers of rows that were there before: those compute what nobody reads.
        self.lines.resize(self.rows.div_ceil(TILE_ROWS) * steps * ROW_LINES, Line::default());
        let tiles = self.lines.chunks_exact_mut(steps * ROW_LINES);
        for (rows, tile) in numbers.chunks(TILE_ROWS * inner).zip(tiles) {
            with.split_rows(rows, inner, tile);
        }
        self
    }

    /// The tile of rows from a row on, and the one after it if there is one.
    fn tiles(&self, row: usize) -> (&[Line], Option<&[Line]>) {
        let length = self.inner.div_ceil(STEP) * ROW_LINES;
        let mut tiles = self.lines[row / TILE_ROWS * length..].chunks_exact(length);
        (tiles.next().unwrap_or_default(), tiles.next())
    }
}

/// Some columns of a product.
pub(super) struct Part<'a> {
    weights: &'a Weights,
    columns: Columns<'a>,
}

impl Part<'_> {
    /// Computes these columns.
    pub(super) fn compute(&mut self, activations: &Activations, with: Multiplier) {
        let rows = activations.rows.min(self.columns.rows());
        let blocks = self.columns.range().step_by(BLOCK_COLUMNS);
        let weights = self.weights;
        let tiles = blocks.flat_map(|column| {
            let block = weights.block(column / BLOCK_COLUMNS);
            (0..rows).step_by(2 * TILE_ROWS).map(move |row| {
                let (upper, lower) = activations.tiles(row);
                Tile { upper, lower, block, row, column }
            })
        });
        with.multiply(tiles, &mut self.columns);
    }
}

/// What is multiplied at a time.
pub(super) struct Tile<'a> {
    /// 16 rows of activations.
    pub(super) upper: &'a [Line],
    /// The 16 rows after them, if there are some.
    pub(super) lower: Option<&'a [Line]>,
    /// A block of weights.
    pub(super) block: &'a [Line],
    /// The first row of the products.
    pub(super) row: usize,
    /// The first column of the products.
    pub(super) column: usize,
}

/// The products of a [`Tile`].
pub(super) type Sums = [[f32; BLOCK_COLUMNS]; 2 * TILE_ROWS];
