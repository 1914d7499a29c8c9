//! Keys and values of all sequences, in blocks of [`BLOCK_TOKENS`] tokens.
//!
//! A block of a head is laid out as the right-hand side of a product: keys with a column a token, for
//! the products of queries with keys, and values with a row a token, for those of the weights of
//! attention with values.

use super::buffer::Buffer;
use super::kernel::{Number, PANEL, place};
use super::shape::Shape;
use crate::engine::BLOCK_TOKENS;

const _: () = assert!(BLOCK_TOKENS == PANEL, "a block of keys is a panel of columns");

/// The cache of one layer's key and value head.
#[derive(Debug)]
pub(super) struct HeadCache<T> {
    pub(super) keys: Buffer<T>,
    pub(super) values: Buffer<T>,
}

/// The pool of blocks.
#[derive(Debug)]
pub(super) struct Cache<T> {
    /// By layer, then by head.
    pub(super) layers: Vec<Vec<HeadCache<T>>>,
    block_numbers: usize,
}

impl<T: Number> Cache<T> {
    pub(super) fn new(shape: &Shape, layers: usize, blocks: usize) -> Self {
        let block_numbers = block_numbers(shape.head_dim_padded);
        let zeros = || Buffer::zeros(blocks * block_numbers);
        let head = |_| HeadCache { keys: zeros(), values: zeros() };
        let layer = |_| (0..shape.key_value_heads).map(head).collect();
        Self { layers: (0..layers).map(layer).collect(), block_numbers }
    }

    /// Copies a block of every layer.
    pub(super) fn copy_block(&mut self, from: usize, to: usize) {
        let size = self.block_numbers;
        for head in self.layers.iter_mut().flatten() {
            for numbers in [&mut head.keys, &mut head.values] {
                numbers.copy_within(from * size..(from + 1) * size, to * size);
            }
        }
    }
}

/// Numbers of a head's keys, or values, in one block.
pub(super) fn block_numbers(head_dim_padded: usize) -> usize {
    head_dim_padded * BLOCK_TOKENS
}

/// Writes the key of a token of block `block`.
pub(super) fn write_key<T: Number>(
    keys: &mut [T],
    head_dim_padded: usize,
    [block, token]: [usize; 2],
    key: &[f32],
) {
    let block =
        &mut keys[block * block_numbers(head_dim_padded)..][..block_numbers(head_dim_padded)];
    for (dimension, number) in key.iter().enumerate() {
        block[place::<T>(dimension, token, BLOCK_TOKENS)] = T::round(*number);
    }
}

/// Writes the value of a token of block `block`.
pub(super) fn write_value<T: Number>(
    values: &mut [T],
    head_dim_padded: usize,
    [block, token]: [usize; 2],
    value: &[f32],
) {
    let block =
        &mut values[block * block_numbers(head_dim_padded)..][..block_numbers(head_dim_padded)];
    for (dimension, number) in value.iter().enumerate() {
        block[place::<T>(token, dimension, head_dim_padded)] = T::round(*number);
    }
}
