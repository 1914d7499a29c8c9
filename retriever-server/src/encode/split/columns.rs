//! Columns of a product that a thread writes while others write theirs.

#![expect(unsafe_code, reason = "columns of one matrix are no slices")]

use std::marker::PhantomData;
use std::ops::Range;

use super::weights::{BLOCK_COLUMNS, Sums};

/// Some columns of a matrix, to be written; nobody else can see them meanwhile.
#[derive(Debug)]
pub(super) struct Columns<'a> {
    start: *mut f32,
    rows: usize,
    /// Columns of the whole matrix.
    stride: usize,
    range: Range<usize>,
    borrowed: PhantomData<&'a mut [f32]>,
}

// SAFETY: it is a borrowed part of a slice of numbers that no other part has.
unsafe impl Send for Columns<'_> {}

impl<'a> Columns<'a> {
    /// Parts of a matrix of rows of `stride` numbers, each of up to `share` columns.
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

    /// Rows of the matrix.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Which columns these are.
    pub(super) fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Numbers from the start of a row to that of the next.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// Where `rows` rows of [`BLOCK_COLUMNS`] numbers may be written, from this row and column of
    /// the matrix on, if all of them are here.
    pub(super) fn place(&mut self, row: usize, column: usize, rows: usize) -> Option<*mut f32> {
        let is_here = row + rows <= self.rows
            && self.range.start <= column
            && column + BLOCK_COLUMNS <= self.range.end;
        // SAFETY: the number is one of the matrix.
        is_here.then(|| unsafe { self.start.add(row * self.stride + column) })
    }

    /// Writes what of `sums` is here, from this row and column of the matrix on.
    pub(super) fn write(&mut self, row: usize, column: usize, sums: &Sums) {
        let columns = self.range.end.saturating_sub(column).min(BLOCK_COLUMNS);
        if column < self.range.start {
            return;
        }
        for (row, sums) in (row..self.rows).zip(sums) {
            // SAFETY: these numbers of the row are here, and sums have as many.
            unsafe {
                let place = self.start.add(row * self.stride + column);
                place.copy_from_nonoverlapping(sums.as_ptr(), columns);
            }
        }
    }
}
