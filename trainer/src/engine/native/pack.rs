//! Weight matrices in the order in which products read them.
//!
//! A matrix is cut into panels of [`PANEL`] outputs. A panel holds all inputs one after the other, so a
//! product reads memory sequentially. New weights are filled into the same memory.

use super::buffer::Buffer;
use super::kernel::{EngagedThread, Instructions, Number, PANEL, STEP, lanes, right_offset};
use super::workers::Workers;
use crate::policy::HostMatrix;

/// 1.5 * 2^23. Within 2^22 of it `f32` represents integers only, so adding and subtracting it rounds.
const ROUNDER: f32 = 12_582_912.0;

/// A matrix of weights. Outputs that no row of the source belongs to are zeros.
#[derive(Debug)]
pub(super) struct PackedMatrix<T> {
    /// Inputs, a multiple of [`STEP`].
    depth: usize,
    weights: StoredWeights<T>,
    /// The factor of each output, in whole panels.
    pub(super) scales: Vec<f32>,
}

/// The numbers of a packed matrix.
#[derive(Debug)]
enum StoredWeights<T> {
    Numbers(Buffer<T>),
    /// Integers from -127 to 127, which are widened panel by panel before a product.
    Bytes(Buffer<i8>),
}

/// The arrangement of a matrix in panels.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// The source row of each output, in whole panels; `None` for padding.
    pub(super) outputs: Vec<Option<usize>>,
    /// The source column of each input, in whole steps; `None` for padding.
    pub(super) inputs: Vec<Option<usize>>,
}

impl Layout {
    /// Returns a value for each output, such as a bias: the value of its source row, or zero.
    pub(super) fn spread(&self, values: Option<&[f32]>) -> Vec<f32> {
        let value = |row: &Option<usize>| match (values, row) {
            (Some(values), Some(row)) => values[*row],
            _ => 0.0,
        };
        self.outputs.iter().map(value).collect()
    }
}

/// Returns a layout of `count` numbers in their own order, padded to a multiple of `unit`.
pub(super) fn in_order(count: usize, unit: usize) -> Vec<Option<usize>> {
    (0..count.next_multiple_of(unit)).map(|index| (index < count).then_some(index)).collect()
}

/// Returns a layout of `count` blocks of `width` numbers, each padded to a multiple of [`PANEL`].
pub(super) fn in_blocks(count: usize, width: usize) -> Vec<Option<usize>> {
    let padded = width.next_multiple_of(PANEL);
    let index = |index: usize| {
        let (block, offset) = (index / padded, index % padded);
        (offset < width).then_some(block * width + offset)
    };
    (0..count * padded).map(index).collect()
}

/// Returns the layout of a matrix whose outputs are computed in pairs: a panel of the first half of the
/// rows, then the corresponding panel of the second half.
pub(super) fn in_pairs(rows: usize) -> Vec<Option<usize>> {
    let half = rows / 2;
    let index = |index: usize| {
        let (pair, offset) = (index / (2 * PANEL), index % (2 * PANEL));
        let row = pair * PANEL + offset % PANEL;
        (row < half).then_some(row + if offset < PANEL { 0 } else { half })
    };
    (0..2 * half.next_multiple_of(PANEL)).map(index).collect()
}

impl<T: Number> PackedMatrix<T> {
    /// Allocates zeros in the shape of `layout`; as integers of 8 bits with a scale for each output if
    /// `bytes`.
    pub(super) fn zeros(layout: &Layout, bytes: bool) -> Self {
        let (outputs, depth) = (layout.outputs.len(), layout.inputs.len());
        debug_assert!(outputs.is_multiple_of(PANEL) && depth.is_multiple_of(STEP), "whole panels");
        let weights = if bytes {
            StoredWeights::Bytes(Buffer::zeros(outputs * depth))
        } else {
            StoredWeights::Numbers(Buffer::zeros(outputs * depth))
        };
        Self { depth, weights, scales: vec![1.0; outputs] }
    }

    /// Copies the weights of `source`.
    pub(super) fn fill(
        &mut self,
        instructions: Instructions,
        workers: &mut Workers,
        source: &HostMatrix<'_>,
        layout: &Layout,
    ) {
        let size = self.depth * PANEL;
        let outputs = layout.outputs.chunks_exact(PANEL);
        match &mut self.weights {
            StoredWeights::Numbers(numbers) => {
                let mut units: Vec<_> = outputs.zip(numbers.chunks_exact_mut(size)).collect();
                workers.each(&mut units, |(outputs, panel)| {
                    let _engaged = instructions.engage();
                    fill_panel(source, outputs, &layout.inputs, |_, value| T::round(value), panel);
                });
            }
            StoredWeights::Bytes(bytes) => {
                let parts = bytes.chunks_exact_mut(size).zip(self.scales.chunks_exact_mut(PANEL));
                let mut units: Vec<_> = outputs.zip(parts).collect();
                workers.each(&mut units, |(outputs, (panel, scales))| {
                    let mut inverse = [0.0; PANEL];
                    let mut numbers = vec![0.0; source.columns];
                    for (column, row) in outputs.iter().enumerate() {
                        let largest = row.map_or(0.0, |row| {
                            source.read_row(row, &mut numbers);
                            numbers
                                .iter()
                                .fold(0.0, |largest: f32, number| largest.max(number.abs()))
                        });
                        scales[column] = largest / 127.0;
                        inverse[column] = if largest > 0.0 { 127.0 / largest } else { 0.0 };
                    }
                    let round = |column: usize, value: f32| -> i8 {
                        // Rounds to the nearest integer without a call, which would be slow.
                        (value * inverse[column] + ROUNDER - ROUNDER) as i8
                    };
                    fill_panel_as::<T, i8>(source, outputs, &layout.inputs, round, panel);
                });
            }
        }
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Returns the numbers of `count` consecutive panels, in `scratch` if they had to be widened.
    pub(super) fn panels<'a>(
        &'a self,
        engaged: &EngagedThread,
        first: usize,
        count: usize,
        scratch: &'a mut Buffer<T>,
    ) -> &'a [T] {
        let size = self.depth * PANEL;
        let range = first * size..(first + count) * size;
        match &self.weights {
            StoredWeights::Numbers(numbers) => &numbers[range],
            StoredWeights::Bytes(bytes) => {
                scratch.resize(count * size);
                lanes::widen_bytes(engaged, &bytes[range], scratch);
                scratch
            }
        }
    }
}

fn fill_panel<T: Number>(
    source: &HostMatrix<'_>,
    outputs: &[Option<usize>],
    inputs: &[Option<usize>],
    round: impl Fn(usize, f32) -> T,
    panel: &mut [T],
) {
    fill_panel_as::<T, T>(source, outputs, inputs, round, panel);
}

/// Fills a panel step by step, with numbers of type `U` at the offsets of `T`.
fn fill_panel_as<T: Number, U: Copy>(
    source: &HostMatrix<'_>,
    outputs: &[Option<usize>],
    inputs: &[Option<usize>],
    round: impl Fn(usize, f32) -> U,
    panel: &mut [U],
) {
    let mut numbers = [[0.0_f32; STEP]; PANEL];
    // Over the steps of the inputs: the source is read row by row and written column by column, so one
    // step of all columns is held at a time.
    for (inputs, step) in inputs.chunks_exact(STEP).zip(panel.chunks_exact_mut(STEP * PANEL)) {
        for (output, numbers) in outputs.iter().zip(&mut numbers) {
            match output {
                Some(row) => source.read(*row, inputs, numbers),
                None => *numbers = [0.0; STEP],
            }
        }
        for depth in 0..STEP {
            for (column, numbers) in numbers.iter().enumerate() {
                step[right_offset::<T>(depth, column, PANEL)] = round(column, numbers[depth]);
            }
        }
    }
}
