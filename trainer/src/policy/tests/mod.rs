//! The decoder, its gradients and its files against what `transformers` computed.

pub(crate) mod adapters;
mod configurations;
mod files;
mod real_model;
mod refusals;
mod vectors;

use tch::{Device, Kind, Tensor};

use super::{Compute, Decoder, PackedCausalAttention, Policy};
use crate::golden;

/// Recorded checkpoints: every family; tied and untied embeddings, one query head a key head and
/// several, head widths of their own, biases, every way of turning heads, windows and layers without
/// positions.
pub(crate) const CHECKPOINTS: [&str; 11] = [
    "llama-tiny-tied",
    "llama-tiny-untied",
    "llama-tiny-rope-parameters",
    "llama-tiny-llama3",
    "llama-tiny-biases",
    "qwen2-tiny",
    "qwen2-tiny-window",
    "qwen3-tiny",
    "mistral-tiny",
    "smollm3-tiny",
    "smollm3-tiny-listed",
];

pub(crate) const F32: Compute = Compute { device: Device::Cpu, kind: Kind::Float };
pub(crate) const BF16: Compute = Compute { device: Device::Cpu, kind: Kind::BFloat16 };

/// One of [`CHECKPOINTS`] and a decoder for as many tokens as it takes.
pub(crate) fn tiny(name: &str, compute: Compute) -> (Policy, Decoder) {
    let policy = Policy::load(&golden::path(name), compute).unwrap();
    let decoder = Decoder::new(&policy.config, policy.config.max_positions, compute.device);
    (policy, decoder)
}

/// Logits of every token of each sequence, `[tokens, vocab]`, from one pass over all of them.
pub(crate) fn packed_logits(
    policy: &Policy,
    decoder: &Decoder,
    sequences: &[&[u32]],
) -> Vec<Tensor> {
    let lengths: Vec<i64> = sequences.iter().map(|ids| ids.len() as i64).collect();
    let ids: Vec<i64> = sequences.iter().copied().flatten().map(|&id| i64::from(id)).collect();
    let positions: Vec<i64> = lengths.iter().flat_map(|&length| 0..length).collect();
    let weights = policy.weights();
    let mut attention = PackedCausalAttention::of_lengths(&lengths);
    let hidden = decoder.hidden_states(
        &weights,
        &Tensor::from_slice(&ids),
        &Tensor::from_slice(&positions),
        &mut attention,
    );
    Decoder::logits(&weights, &hidden).split_with_sizes(&lengths[..], 0)
}

/// Largest difference of two tensors of the same shape.
#[track_caller]
pub(crate) fn gap(one: &Tensor, other: &Tensor) -> f64 {
    assert_eq!(one.size(), other.size());
    tch::no_grad(|| (one - other).abs().max().double_value(&[]))
}
