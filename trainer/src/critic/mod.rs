//! The critic, a model that predicts before each token the reward still to come.
//!
//! Owns a model with the policy's architecture, its own weights and a value head instead of the vocabulary's head,
//! and the gradient of its loss. Knows nothing about rewards or how policies learn.

mod gradient;
#[cfg(test)]
mod tests;

pub use gradient::{CriticSequence, CriticStatistics, CriticUpdateConfig, critic_gradient};

use shared::contract::splitmix;
use tch::{Device, Kind, Tensor};

use crate::policy::{Decoder, MaskedTokens, PackedPass, Policy, Weights};
use crate::stop::{StopFlag, Stopped};
use crate::update::micro_batches;

/// Weight of the value head, `[1, hidden]`.
pub const HEAD_WEIGHT: &str = "value_head.weight";
/// Bias of the value head, `[1]`.
pub const HEAD_BIAS: &str = "value_head.bias";
/// Standard deviation of a new head's weights, as in `transformers`' token classification heads.
const HEAD_DEVIATION: f64 = 0.02;

/// Separates the random draws of the critic's adapters from those of the policy's.
const ADAPTERS_STREAM: u64 = 0x6372_6974_6963;

/// A model that values tokens.
#[derive(Debug)]
pub struct Critic {
    /// A model with the policy's architecture but no vocabulary head. Its trained parameters include the value
    /// head.
    pub network: Policy,
}

impl Critic {
    /// Copies `policy` and gives the copy a new value head, drawn by `seed`. If the policy has adapters, the critic
    /// gets its own adapters on the same linear modules of the layers, of the same sizes, and shares the frozen weights
    /// without copying them.
    pub fn of_policy(policy: &Policy, seed: u64) -> Self {
        let leaf = |tensor: &Tensor| tensor.detach().copy().set_requires_grad(true);
        let base_weight = |name: &str, tensor: &Tensor| match &policy.lora {
            // What is trained whole goes on changing in the policy.
            Some(lora) => match lora.parameters.get(name) {
                Some(whole) => whole.detach().copy(),
                None => tensor.shallow_clone(),
            },
            None => leaf(tensor),
        };
        let parameters: std::collections::BTreeMap<String, Tensor> = policy
            .parameters
            .iter()
            .filter(|(name, _)| name.as_str() != "lm_head.weight")
            .map(|(name, tensor)| (name.clone(), base_weight(name, tensor)))
            .collect();
        let mut config = policy.config.clone();
        // The vocabulary head is never computed. With tied embeddings no weights of it are expected.
        config.tied_embeddings = true;
        let device = policy.compute.device;
        let weight = normal_values(config.hidden_size as usize, seed);
        let weight = Tensor::from_slice(&weight).unsqueeze(0).to_device(device);
        let bias = Tensor::zeros([1], (Kind::Float, device));
        let mut network = Policy { config, compute: policy.compute, parameters, lora: None };
        if let Some(lora) = &policy.lora {
            let adapters_seed = splitmix::finalise(seed ^ ADAPTERS_STREAM);
            network.adapt(lora.another(&network.config, adapters_seed));
        }
        let trained = network.trained_mut();
        trained.insert(HEAD_WEIGHT.to_owned(), leaf(&weight));
        trained.insert(HEAD_BIAS.to_owned(), leaf(&bias));
        Self { network }
    }

    /// Computes the values before the tokens of each sequence's mask (never the first token), in packing order and
    /// with gradients. `weights` are those of the network.
    pub fn values<'m>(
        &self,
        decoder: &'m Decoder,
        weights: &'m Weights,
        sequences: &[MaskedTokens<'_>],
    ) -> ValuedPass<'m> {
        let pass = PackedPass::with_gradients(decoder, weights, sequences);
        let hidden = pass.hidden.detach().set_requires_grad(true);
        ValuedPass { values: self.head(&hidden), hidden, pass }
    }

    /// Maps `[targets, hidden]` to values `[targets]`, f32.
    fn head(&self, hidden: &Tensor) -> Tensor {
        let parameter = |name: &str| &self.network.trained()[name];
        let hidden = hidden.to_kind(Kind::Float);
        hidden.linear(parameter(HEAD_WEIGHT), Some(parameter(HEAD_BIAS))).squeeze_dim(1)
    }

    /// Computes the values of each sequence, without gradients.
    ///
    /// # Errors
    /// Returns [`Stopped`] between two micro-batches.
    pub fn sequence_values(
        &self,
        decoder: &Decoder,
        sequences: &[MaskedTokens<'_>],
        tokens_per_micro_batch: usize,
        stop: &StopFlag,
    ) -> Result<Vec<Vec<f32>>, Stopped> {
        let mut results = vec![Vec::new(); sequences.len()];
        tch::no_grad(|| {
            let weights = self.network.weights();
            for batch in micro_batches(sequences, tokens_per_micro_batch) {
                stop.check()?;
                let packed: Vec<_> = batch.iter().map(|&index| sequences[index]).collect();
                let pass = PackedPass::without_gradients(decoder, &weights, &packed);
                let on_host = self.head(&pass.hidden).to_device(Device::Cpu).contiguous();
                let mut values = vec![0.0_f32; on_host.numel()];
                on_host.copy_data(&mut values, on_host.numel());
                let mut rest = values.as_slice();
                for &index in &batch {
                    let (own, others) = rest.split_at(valued_tokens(sequences[index].1));
                    results[index] = own.to_vec();
                    rest = others;
                }
            }
            Ok(results)
        })
    }
}

/// Values that can propagate gradients into the model.
#[derive(Debug)]
pub struct ValuedPass<'m> {
    /// `[targets]`, f32, in the graph of the value head.
    pub values: Tensor,
    hidden: Tensor,
    pass: PackedPass<'m>,
}

impl ValuedPass<'_> {
    /// Adds the gradient of `loss`, a function of the values, to the gradients of the parameters.
    pub fn backward(self, loss: &Tensor) {
        loss.backward();
        self.pass.backward(&self.hidden.grad());
    }
}

/// Counts the tokens of a mask that have a value: all except the very first.
pub(crate) fn valued_tokens(mask: &[bool]) -> usize {
    mask.iter().skip(1).filter(|&&valued| valued).count()
}

/// Draws normally distributed numbers by `seed` (Box and Muller).
fn normal_values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_add(splitmix::INCREMENT);
    let mut uniform =
        move || ((splitmix::next(&mut state) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    (0..count)
        .map(|_| {
            let radius = (-2.0 * uniform().ln()).sqrt();
            let angle = std::f64::consts::TAU * uniform();
            (HEAD_DEVIATION * radius * angle.cos()) as f32
        })
        .collect()
}
