//! Keys and values of every sequence in the engine, one slot a sequence.
//!
//! Layout of a layer: `[slots, tokens, kv_heads, head_dim]`, so that a prefill writes one
//! contiguous run and a decode step reads the leading slots without a copy.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use crate::policy::{Attention, LayerSpan, ModelConfig, attend_one, repeat_heads};

/// One slot per sequence, all layers.
#[derive(Debug)]
pub(super) struct KvCache {
    keys: Vec<Tensor>,
    values: Vec<Tensor>,
    query_heads_per_group: i64,
    kind: Kind,
    device: Device,
}

impl KvCache {
    pub(super) fn new(
        config: &ModelConfig,
        slots: usize,
        tokens: usize,
        kind: Kind,
        device: Device,
    ) -> Self {
        let shape = [slots as i64, tokens as i64, config.key_value_heads, config.head_dim];
        let layer = || config.layers.iter().map(|_| Tensor::zeros(shape, (kind, device))).collect();
        let query_heads_per_group = config.heads / config.key_value_heads;
        Self { keys: layer(), values: layer(), query_heads_per_group, kind, device }
    }

    /// Copies the first `tokens` tokens of one slot to another.
    pub(super) fn copy_slot(&self, from: usize, to: usize, tokens: usize) {
        for cache in self.keys.iter().chain(&self.values) {
            let source = cache.select(0, from as i64).narrow(0, 0, tokens as i64);
            cache.select(0, to as i64).narrow(0, 0, tokens as i64).copy_(&source);
        }
    }

    /// Exchanges the first `tokens` tokens of two slots.
    pub(super) fn swap_slots(&self, one: usize, other: usize, tokens: usize) {
        for cache in self.keys.iter().chain(&self.values) {
            let mut left = cache.select(0, one as i64).narrow(0, 0, tokens as i64);
            let mut right = cache.select(0, other as i64).narrow(0, 0, tokens as i64);
            let kept = left.copy();
            left.copy_(&right);
            right.copy_(&kept);
        }
    }
}

/// New tokens of some sequences, packed; each attends to its slot's past and, causally, to itself.
pub(super) struct PrefillAttention<'a> {
    pub(super) cache: &'a KvCache,
    /// Slot, tokens already cached and new tokens of each packed sequence.
    pub(super) runs: Vec<PrefillRun>,
}

/// One sequence's share of a prefill.
#[derive(Clone, Copy, Debug)]
pub(super) struct PrefillRun {
    pub(super) slot: usize,
    pub(super) past: usize,
    pub(super) tokens: usize,
}

impl Attention for PrefillAttention<'_> {
    fn attend(&mut self, layer: LayerSpan, query: &Tensor, key: &Tensor, value: &Tensor) -> Tensor {
        let groups = self.cache.query_heads_per_group;
        let mut mixed = Vec::with_capacity(self.runs.len());
        let mut start = 0_i64;
        for run in &self.runs {
            let tokens = run.tokens as i64;
            let total = run.past as i64 + tokens;
            let write = |cache: &Tensor, new: &Tensor| {
                let slot = cache.select(0, run.slot as i64);
                slot.narrow(0, run.past as i64, tokens).copy_(&new.narrow(0, start, tokens));
                repeat_heads(&slot.narrow(0, 0, total), groups)
            };
            let keys = write(&self.cache.keys[layer.index], key);
            let values = write(&self.cache.values[layer.index], value);
            let query = query.narrow(0, start, tokens);
            mixed.push(attend_one(&query, &keys, &values, layer.window));
            start += tokens;
        }
        Tensor::cat(&mixed, 0)
    }
}

/// One new token for each of the leading slots.
pub(super) struct DecodeAttention<'a> {
    cache: &'a KvCache,
    rows: i64,
    /// Tokens that the longest row attends to.
    longest: i64,
    row_index: Tensor,
    positions: Tensor,
    /// By the window of a layer, as the layers ask for them.
    masks: BTreeMap<Option<i64>, Tensor>,
}

impl<'a> DecodeAttention<'a> {
    /// `lengths[row]` is the number of tokens cached for the row before this step.
    pub(super) fn new(cache: &'a KvCache, lengths: &[i64]) -> Self {
        let rows = lengths.len() as i64;
        let longest = lengths.iter().copied().max().unwrap_or(0) + 1;
        let positions = Tensor::from_slice(lengths).to_device(cache.device);
        let row_index = Tensor::arange(rows, (Kind::Int64, cache.device));
        Self { cache, rows, longest, row_index, positions, masks: BTreeMap::new() }
    }

    /// `[rows, 1, 1, longest]`, 0 where a row has a token within the window and -inf elsewhere,
    /// compute type.
    fn mask(&mut self, window: Option<i64>) -> Tensor {
        let made = self.masks.entry(window).or_insert_with(|| {
            let columns =
                Tensor::arange(self.longest, (Kind::Int64, self.cache.device)).unsqueeze(0);
            let positions = self.positions.unsqueeze(1);
            let mut hidden = columns.gt_tensor(&positions);
            if let Some(window) = window {
                hidden = hidden.logical_or(&columns.le_tensor(&(positions - window)));
            }
            Tensor::zeros([self.rows, self.longest], (self.cache.kind, self.cache.device))
                .masked_fill(&hidden, f64::NEG_INFINITY)
                .view([self.rows, 1, 1, self.longest])
        });
        made.shallow_clone()
    }
}

impl Attention for DecodeAttention<'_> {
    fn attend(&mut self, layer: LayerSpan, query: &Tensor, key: &Tensor, value: &Tensor) -> Tensor {
        let read = |cache: &Tensor, new: &Tensor| {
            let index = [Some(&self.row_index), Some(&self.positions)];
            let mut cache = cache.shallow_clone();
            let _ = cache.index_put_(&index, new, false);
            cache.narrow(0, 0, self.rows).narrow(1, 0, self.longest).transpose(1, 2)
        };
        let keys = read(&self.cache.keys[layer.index], key);
        let values = read(&self.cache.values[layer.index], value);
        let mask = self.mask(layer.window);
        let size = query.size();
        let groups = self.cache.query_heads_per_group;
        // The query heads of a group stand where query tokens would: keys are read once per group.
        let query = query.view([self.rows, size[1] / groups, groups, size[2]]);
        let mixed = Tensor::scaled_dot_product_attention(
            &query,
            &keys,
            &values,
            Some(&mask),
            0.0,
            false,
            None::<f64>,
            false,
        );
        mixed.reshape([self.rows, size[1] * size[2]])
    }
}
