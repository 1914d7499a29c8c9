//! Checks of the decoder, its gradients and its files against recordings from `transformers`.

pub(crate) mod adapter_kinds;
pub(crate) mod adapters;
mod configurations;
mod files;
mod folders;
mod real_model;
mod refusals;
mod vectors;

use tch::{Device, Kind, Tensor};

use super::{Compute, Decoder, PackedCausalAttention, Policy};
use crate::golden;

/// Recorded checkpoints. They cover every family, tied and untied embeddings, one and several query heads per key
/// head, explicit head widths, biases, every rotary scaling, windows, and layers without positions.
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

/// Loads one of [`CHECKPOINTS`] and a decoder for its longest context.
pub(crate) fn tiny(name: &str, compute: Compute) -> (Policy, Decoder) {
    let policy = Policy::load(&golden::path(name), compute).unwrap();
    let decoder = Decoder::new(&policy.config, policy.config.max_positions, compute.device);
    (policy, decoder)
}

/// Computes the logits of every token of each sequence, `[tokens, vocab]`, in one pass over all sequences.
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

/// Returns the largest difference between two tensors of the same shape.
#[track_caller]
pub(crate) fn gap(left: &Tensor, right: &Tensor) -> f64 {
    assert_eq!(left.size(), right.size());
    tch::no_grad(|| (left - right).abs().max().double_value(&[]))
}
