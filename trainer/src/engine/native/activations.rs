//! The activations that one part of a layer passes to the next.
//!
//! Rows lie in panels, `[panel][row][column of the panel]`. Each panel of outputs is then one slice,
//! which one thread fills, and the next product reads it as it is.

use super::buffer::Buffer;
use super::kernel::{Number, PANEL, ROWS_MAX, STEP, Step};
use super::shape::{Shape, padded_rows};

/// The activations of one pass. Rows are padded to a multiple of a tile's rows.
#[derive(Debug)]
pub(super) struct Activations<T> {
    pub(super) rows: usize,
    pub(super) padded: usize,
    /// The residual stream, `[hidden / PANEL][rows][PANEL]`.
    pub(super) residual: Buffer<f32>,
    /// The residual stream times the weights of the next norm, same shape. It is not yet divided by the
    /// row's root mean square: a linear map allows the division after it.
    pub(super) normed: Buffer<T>,
    /// Sums of squares of each panel of the residual stream, `[hidden / PANEL][rows]`.
    pub(super) squares: Vec<f32>,
    /// The reciprocal of each row's root mean square, `[rows]`.
    pub(super) scales: Vec<f32>,
    /// `[heads][rows][head_dim_padded]`
    pub(super) queries: Buffer<T>,
    /// The outputs of attention, `[kv_heads][rows][group * head_dim_padded]`.
    pub(super) mixed: Buffer<T>,
    /// `[intermediate / PANEL][rows][PANEL]`
    pub(super) gated: Buffer<T>,
}

impl<T: Number> Default for Activations<T> {
    fn default() -> Self {
        Self {
            rows: 0,
            padded: 0,
            residual: Buffer::zeros(0),
            normed: Buffer::zeros(0),
            squares: Vec::new(),
            scales: Vec::new(),
            queries: Buffer::zeros(0),
            mixed: Buffer::zeros(0),
            gated: Buffer::zeros(0),
        }
    }
}

impl<T: Number> Activations<T> {
    /// Resizes all buffers for a pass of `rows`.
    pub(super) fn resize(&mut self, shape: &Shape, rows: usize) {
        let padded = padded_rows(rows);
        (self.rows, self.padded) = (rows, padded);
        let heads = shape.heads * shape.head_dim_padded;
        self.residual.resize(shape.hidden_padded * padded);
        self.normed.resize(shape.hidden_padded * padded);
        self.squares.resize(shape.hidden_padded / PANEL * padded, 0.0);
        self.scales.resize(padded, 0.0);
        self.queries.resize(heads * padded);
        self.mixed.resize(heads * padded);
        self.gated.resize(shape.intermediate_padded * padded);
    }

    /// Computes the factor of each row's norm: `1 / sqrt(mean of squares + epsilon)`.
    pub(super) fn scale_rows(&mut self, shape: &Shape) {
        self.scales.fill(0.0);
        // Panel by panel, always in the same order, so that a row's sum does not depend on the others.
        for squares in self.squares.chunks_exact(self.padded) {
            for (sum, square) in self.scales.iter_mut().zip(squares) {
                *sum += square;
            }
        }
        for scale in &mut self.scales {
            *scale = 1.0 / (*scale / shape.hidden as f32 + shape.epsilon).sqrt();
        }
    }
}

/// Returns the steps of a product over `depth` numbers of rows that lie in blocks of `width` numbers,
/// `[block][row][number of the block]`.
pub(super) fn steps(depth: usize, width: usize, padded_rows: usize) -> Vec<Step> {
    let step = |depth: usize| Step {
        left: depth / width * width * padded_rows + depth % width,
        right: depth * PANEL,
    };
    (0..depth).step_by(STEP).map(step).collect()
}

/// Consecutive rows of a pass that one product computes, at most [`ROWS_MAX`].
#[derive(Clone, Copy, Debug)]
pub(super) struct RowBlock {
    pub(super) first: usize,
    pub(super) rows: usize,
}

/// Cuts the rows of a pass into blocks.
pub(super) fn row_blocks(rows: usize) -> impl Iterator<Item = RowBlock> {
    (0..rows)
        .step_by(ROWS_MAX)
        .map(move |first| RowBlock { first, rows: (rows - first).min(ROWS_MAX) })
}
