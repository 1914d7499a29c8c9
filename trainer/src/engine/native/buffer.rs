//! Numbers that begin at a cache line, so that no row of a tile crosses two lines.

use std::ops::{Deref, DerefMut};

const LINE_BYTES: usize = 64;

/// An owned slice that is aligned to a cache line.
#[derive(Debug)]
pub(super) struct Buffer<T> {
    numbers: Vec<T>,
    start: usize,
    length: usize,
}

impl<T: Copy + Default> Buffer<T> {
    /// Allocates `length` zeros.
    pub(super) fn zeros(length: usize) -> Self {
        let spare = LINE_BYTES / size_of::<T>();
        let numbers = vec![T::default(); length + spare];
        let start = numbers.as_ptr().align_offset(LINE_BYTES).min(spare);
        Self { numbers, start, length }
    }

    /// Changes the length to `length` numbers, whose values are unspecified.
    pub(super) fn resize(&mut self, length: usize) {
        if self.start + length > self.numbers.len() {
            *self = Self::zeros(length);
        }
        self.length = length;
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.numbers[self.start..self.start + self.length]
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.numbers[self.start..self.start + self.length]
    }
}
