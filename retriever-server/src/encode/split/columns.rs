//! The columns of a product that one thread writes while other threads write theirs.

#![expect(unsafe_code, reason = "columns of a matrix are not slices")]

use std::marker::PhantomData;
use std::ops::Range;

use super::weights::{BLOCK_COLUMNS, Sums};

/// Some columns of a matrix, borrowed for writing.
#[derive(Debug)]
pub(super) struct Columns<'a> {
    start: *mut f32,
    rows: usize,
    /// The number of columns of the whole matrix.
    stride: usize,
    range: Range<usize>,
    borrowed: PhantomData<&'a mut [f32]>,
}

// SAFETY: the columns are a mutably borrowed part of a slice, and no two parts have a number in common.
unsafe impl Send for Columns<'_> {}

impl<'a> Columns<'a> {
    /// Splits a matrix, whose rows have `stride` numbers, into parts of up to `share` columns each.
    pub(super) fn split(matrix: &'a mut [f32], stride: usize, share: usize) -> Vec<Self> {
        let rows = matrix.len() / stride;
        let start = matrix.as_mut_ptr();
        (0..stride)
            .step_by(share)
            .map(|first| Self {
                start,
                rows,
                stride,
                range: first..(first + share).min(stride),
                borrowed: PhantomData,
            })
            .collect()
    }

    /// Returns the number of rows of the matrix.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the range of these columns in the matrix.
    pub(super) fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Returns the distance between the starts of two rows, in numbers.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// Returns a pointer to the block that starts at this row and column of the matrix and has `rows`
    /// rows of [`BLOCK_COLUMNS`] numbers. Returns `None` if the block is not wholly in these columns.
    pub(super) fn block(&mut self, row: usize, column: usize, rows: usize) -> Option<*mut f32> {
        let is_inside = row + rows <= self.rows
            && self.range.start <= column
            && column + BLOCK_COLUMNS <= self.range.end;
        // SAFETY: the check shows that the number at this row and column is in the matrix.
        is_inside.then(|| unsafe { self.start.add(row * self.stride + column) })
    }

    /// Writes the part of `sums` that is in these columns. `sums` starts at this row and column of the
    /// matrix.
    pub(super) fn write(&mut self, row: usize, column: usize, sums: &Sums) {
        let columns = self.range.end.saturating_sub(column).min(BLOCK_COLUMNS);
        if column < self.range.start {
            return;
        }
        for (row, sums) in (row..self.rows).zip(sums) {
            // SAFETY: the row is in the matrix, its `columns` numbers from `column` on are in the
            // borrowed range, and a row of sums has at least as many.
            unsafe {
                let target = self.start.add(row * self.stride + column);
                target.copy_from_nonoverlapping(sums.as_ptr(), columns);
            }
        }
    }
}
