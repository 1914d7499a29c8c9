//! Weight matrices in the order in which products read them.
//!
//! A matrix is cut into panels of [`PANEL`] outputs, each with all its inputs behind one another, so
//! that a product reads memory straight on. It is filled anew in place when the weights change.

use super::buffer::Buffer;
use super::kernel::{Engaged, Instructions, Number, PANEL, STEP, lanes, place};
use super::pool::Pool;
use crate::policy::HostMatrix;

/// From here on `f32` has whole numbers only, 2^22 on either side.
const ROUNDER: f32 = 12_582_912.0;

/// A matrix of weights; outputs without a row of the source are zeros.
#[derive(Debug)]
pub(super) struct Packed<T> {
    /// Inputs, a multiple of [`STEP`].
    depth: usize,
    weights: Stored<T>,
    /// What each output is multiplied by, whole panels.
    pub(super) scales: Vec<f32>,
}

#[derive(Debug)]
enum Stored<T> {
    Numbers(Buffer<T>),
    /// Whole numbers from -127 to 127, which a product widens panel by panel.
    Bytes(Buffer<i8>),
}

/// How a matrix is laid out in panels.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// For each output the row of the source that it comes from; whole panels.
    pub(super) outputs: Vec<Option<usize>>,
    /// For each input the column of the source that it comes from; whole steps.
    pub(super) inputs: Vec<Option<usize>>,
}

impl Layout {
    /// A value for each output, such as a bias: that of its row, or else zero.
    pub(super) fn spread(&self, values: Option<&[f32]>) -> Vec<f32> {
        let value = |row: &Option<usize>| match (values, row) {
            (Some(values), Some(row)) => values[*row],
            _ => 0.0,
        };
        self.outputs.iter().map(value).collect()
    }
}

/// `count` numbers in their own order, filled up to a multiple of `unit`.
pub(super) fn in_order(count: usize, unit: usize) -> Vec<Option<usize>> {
    (0..count.next_multiple_of(unit)).map(|index| (index < count).then_some(index)).collect()
}

/// `count` blocks of `width` numbers, each filled up to a multiple of [`PANEL`].
pub(super) fn in_blocks(count: usize, width: usize) -> Vec<Option<usize>> {
    let padded = width.next_multiple_of(PANEL);
    let index = |index: usize| {
        let (block, offset) = (index / padded, index % padded);
        (offset < width).then_some(block * width + offset)
    };
    (0..count * padded).map(index).collect()
}

/// The panels of the matrix whose outputs are computed in pairs: a panel of the first half of the
/// rows, then the same of the second.
pub(super) fn in_pairs(rows: usize) -> Vec<Option<usize>> {
    let half = rows / 2;
    let index = |index: usize| {
        let (pair, offset) = (index / (2 * PANEL), index % (2 * PANEL));
        let row = pair * PANEL + offset % PANEL;
        (row < half).then_some(row + if offset < PANEL { 0 } else { half })
    };
    (0..2 * half.next_multiple_of(PANEL)).map(index).collect()
}

impl<T: Number> Packed<T> {
    /// Zeros of the shape of `layout`, in bytes with a scale an output if `bytes`.
    pub(super) fn zeros(layout: &Layout, bytes: bool) -> Self {
        let (outputs, depth) = (layout.outputs.len(), layout.inputs.len());
        debug_assert!(outputs.is_multiple_of(PANEL) && depth.is_multiple_of(STEP), "whole panels");
        let weights = if bytes {
            Stored::Bytes(Buffer::zeros(outputs * depth))
        } else {
            Stored::Numbers(Buffer::zeros(outputs * depth))
        };
        Self { depth, weights, scales: vec![1.0; outputs] }
    }

    /// Takes over the weights of `source`.
    pub(super) fn fill(
        &mut self,
        instructions: Instructions,
        pool: &mut Pool,
        source: &HostMatrix<'_>,
        layout: &Layout,
    ) {
        let size = self.depth * PANEL;
        let outputs = layout.outputs.chunks_exact(PANEL);
        match &mut self.weights {
            Stored::Numbers(numbers) => {
                let mut units: Vec<_> = outputs.zip(numbers.chunks_exact_mut(size)).collect();
                pool.each(&mut units, |(outputs, panel)| {
                    let _engaged = instructions.engage();
                    fill_panel(source, outputs, &layout.inputs, |_, value| T::round(value), panel);
                });
            }
            Stored::Bytes(bytes) => {
                let parts = bytes.chunks_exact_mut(size).zip(self.scales.chunks_exact_mut(PANEL));
                let mut units: Vec<_> = outputs.zip(parts).collect();
                pool.each(&mut units, |(outputs, (panel, scales))| {
                    let mut inverse = [0.0; PANEL];
                    let mut numbers = vec![0.0; source.columns];
                    for (column, row) in outputs.iter().enumerate() {
                        let largest = row.map_or(0.0, |row| {
                            source.read_row(row, &mut numbers);
                            numbers.iter().fold(0.0, |one: f32, other| one.max(other.abs()))
                        });
                        scales[column] = largest / 127.0;
                        inverse[column] = if largest > 0.0 { 127.0 / largest } else { 0.0 };
                    }
                    let round = |column: usize, value: f32| -> i8 {
                        // Adding leaves no fraction, which rounds to the nearest; a call would be slow.
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

    /// The numbers of `count` panels one behind the other, in `scratch` if they had to be widened.
    pub(super) fn panels<'a>(
        &'a self,
        engaged: &Engaged,
        first: usize,
        count: usize,
        scratch: &'a mut Buffer<T>,
    ) -> &'a [T] {
        let size = self.depth * PANEL;
        let place = first * size..(first + count) * size;
        match &self.weights {
            Stored::Numbers(numbers) => &numbers[place],
            Stored::Bytes(bytes) => {
                scratch.resize(count * size);
                lanes::widen_bytes(engaged, &bytes[place], scratch);
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

/// Fills a panel step by step; numbers are placed as `T` is.
fn fill_panel_as<T: Number, U: Copy>(
    source: &HostMatrix<'_>,
    outputs: &[Option<usize>],
    inputs: &[Option<usize>],
    round: impl Fn(usize, f32) -> U,
    panel: &mut [U],
) {
    let mut numbers = [[0.0_f32; STEP]; PANEL];
    for (inputs, place_of_step) in
        inputs.chunks_exact(STEP).zip(panel.chunks_exact_mut(STEP * PANEL))
    {
        for (output, numbers) in outputs.iter().zip(&mut numbers) {
            match output {
                Some(row) => source.read(*row, inputs, numbers),
                None => *numbers = [0.0; STEP],
            }
        }
        for depth in 0..STEP {
            for (column, numbers) in numbers.iter().enumerate() {
                place_of_step[place::<T>(depth, column, PANEL)] = round(column, numbers[depth]);
            }
        }
    }
}
