//! The KV cache: keys and values of all sequences, in blocks of [`BLOCK_TOKENS`] tokens.
//!
//! A block of a head is laid out as the right-hand side of a product. Keys have a column for each
//! token, for the product of queries with keys. Values have a row for each token, for the product of
//! attention weights with values.

use super::buffer::Buffer;
use super::kernel::{Number, PANEL, right_offset};
use super::shape::Shape;
use crate::engine::BLOCK_TOKENS;

const _: () = assert!(BLOCK_TOKENS == PANEL, "a block of keys is a panel of columns");

/// The cached keys and values of one key and value head of one layer.
#[derive(Debug)]
pub(super) struct HeadCache<T> {
    pub(super) keys: Buffer<T>,
    pub(super) values: Buffer<T>,
}

/// The cached keys and values of all layers.
#[derive(Debug)]
pub(super) struct KeyValueCache<T> {
    /// By layer, then by head.
    pub(super) layers: Vec<Vec<HeadCache<T>>>,
    block_numbers: usize,
}

/// The position of one token in the cache.
#[derive(Clone, Copy, Debug)]
pub(super) struct CacheSlot {
    pub(super) block: usize,
    /// The token's index within the block.
    pub(super) token: usize,
}

impl<T: Number> KeyValueCache<T> {
    pub(super) fn new(shape: &Shape, layers: usize, blocks: usize) -> Self {
        let block_numbers = block_numbers(shape.head_dim_padded);
        let zeros = || Buffer::zeros(blocks * block_numbers);
        let head = |_| HeadCache { keys: zeros(), values: zeros() };
        let layer = |_| (0..shape.key_value_heads).map(head).collect();
        Self { layers: (0..layers).map(layer).collect(), block_numbers }
    }

    /// Copies a block in every layer.
    pub(super) fn copy_block(&mut self, from: usize, to: usize) {
        let size = self.block_numbers;
        for head in self.layers.iter_mut().flatten() {
            for numbers in [&mut head.keys, &mut head.values] {
                numbers.copy_within(from * size..(from + 1) * size, to * size);
            }
        }
    }
}

/// Returns how many numbers the keys, or the values, of one head take in a block.
pub(super) fn block_numbers(head_dim_padded: usize) -> usize {
    head_dim_padded * BLOCK_TOKENS
}

/// Writes the key of one token.
pub(super) fn write_key<T: Number>(
    keys: &mut [T],
    head_dim_padded: usize,
    slot: CacheSlot,
    key: &[f32],
) {
    let block_numbers = block_numbers(head_dim_padded);
    let block = &mut keys[slot.block * block_numbers..][..block_numbers];
    for (dimension, number) in key.iter().enumerate() {
        block[right_offset::<T>(dimension, slot.token, BLOCK_TOKENS)] = T::round(*number);
    }
}

/// Writes the value of one token.
pub(super) fn write_value<T: Number>(
    values: &mut [T],
    head_dim_padded: usize,
    slot: CacheSlot,
    value: &[f32],
) {
    let block_numbers = block_numbers(head_dim_padded);
    let block = &mut values[slot.block * block_numbers..][..block_numbers];
    for (dimension, number) in value.iter().enumerate() {
        block[right_offset::<T>(slot.token, dimension, head_dim_padded)] = T::round(*number);
    }
}
