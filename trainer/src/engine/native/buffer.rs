//! Numbers that begin at a line of the cache, so that no tile's row lies across two.

use std::ops::{Deref, DerefMut};

const LINE_BYTES: usize = 64;

/// A slice of its own, aligned.
#[derive(Debug)]
pub(super) struct Buffer<T> {
    numbers: Vec<T>,
    start: usize,
    length: usize,
}

impl<T: Copy + Default> Buffer<T> {
    /// `length` zeros.
    pub(super) fn zeros(length: usize) -> Self {
        let spare = LINE_BYTES / size_of::<T>();
        let numbers = vec![T::default(); length + spare];
        let start = numbers.as_ptr().align_offset(LINE_BYTES).min(spare);
        Self { numbers, start, length }
    }

    /// Makes room for `length` numbers; what they are is not said.
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
