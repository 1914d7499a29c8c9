//! What goes from one part of a layer to the next.
//!
//! Rows lie in panels, `[panel][row][column of the panel]`, so that each panel of outputs is a slice
//! of its own, which one thread fills, and is read as it is by the next product.

use super::buffer::Buffer;
use super::kernel::{Number, PANEL, ROWS_MAX, STEP, Step};
use super::shape::{Shape, padded_rows};

/// Activations of one pass; `rows` are filled up to a multiple of a tile's.
#[derive(Debug)]
pub(super) struct State<T> {
    pub(super) rows: usize,
    pub(super) padded: usize,
    /// The residual stream, `[hidden / PANEL][rows][PANEL]`.
    pub(super) residual: Buffer<f32>,
    /// The same times the weights of the norm that comes next; still to be divided by the row's
    /// root mean square, which a linear map lets wait until after it.
    pub(super) normed: Buffer<T>,
    /// Sums of squares of each panel of the residual stream, `[hidden / PANEL][rows]`.
    pub(super) squares: Vec<f32>,
    /// What each row is divided by, inverted, `[rows]`.
    pub(super) scales: Vec<f32>,
    /// `[heads][rows][head_dim_padded]`
    pub(super) queries: Buffer<T>,
    /// What attention gives, `[kv_heads][rows][group * head_dim_padded]`.
    pub(super) mixed: Buffer<T>,
    /// `[intermediate / PANEL][rows][PANEL]`
    pub(super) gated: Buffer<T>,
}

impl<T: Number> Default for State<T> {
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

impl<T: Number> State<T> {
    /// Makes room for a pass of `rows`.
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

    /// The factor of each row's norm: `1 / sqrt(mean of squares + epsilon)`.
    pub(super) fn scale_rows(&mut self, shape: &Shape) {
        self.scales.fill(0.0);
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

/// The steps of a product over `depth` numbers of rows that lie in blocks of `width` numbers,
/// `[block][row][number of the block]`.
pub(super) fn steps(depth: usize, width: usize, padded_rows: usize) -> Vec<Step> {
    let step = |depth: usize| Step {
        left: depth / width * width * padded_rows + depth % width,
        right: depth * PANEL,
    };
    (0..depth).step_by(STEP).map(step).collect()
}

/// The rows of a pass, up to [`ROWS_MAX`] at a time: the first and their number.
pub(super) fn row_blocks(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rows).step_by(ROWS_MAX).map(move |first| (first, (rows - first).min(ROWS_MAX)))
}
