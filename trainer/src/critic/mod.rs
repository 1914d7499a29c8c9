//! The critic: how much reward is still expected before each token.
//!
//! Owns: a model of the policy's architecture with weights of its own and a value head in place of the
//! vocabulary's, and the gradient of its loss. Refuses to know about rewards or policies.

mod gradient;
#[cfg(test)]
mod tests;

pub use gradient::{CriticSequence, CriticStatistics, CriticUpdateConfig, critic_gradient};

use shared::splitmix;
use tch::{Device, Kind, Tensor};

use crate::policy::{Decoder, Lora, MaskedTokens, PackedPass, Policy, Weights};
use crate::stop::{StopFlag, Stopped};
use crate::update::micro_batches;

/// Weight of the value head, `[1, hidden]`.
pub const HEAD_WEIGHT: &str = "value_head.weight";
/// Bias of the value head, `[1]`.
pub const HEAD_BIAS: &str = "value_head.bias";
/// Standard deviation of a new head's weights, as in `transformers`' heads for tokens.
const HEAD_DEVIATION: f64 = 0.02;

/// Sets the draws of the critic's adapters apart from those of the policy's.
const ADAPTERS_STREAM: u64 = 0x6372_6974_6963;

/// A model that values tokens.
#[derive(Debug)]
pub struct Critic {
    /// The policy's architecture without its vocabulary head; what is trained of it holds the value
    /// head.
    pub network: Policy,
}

impl Critic {
    /// A copy of `policy` with a new value head, which `seed` decides. Beside a policy with adapters it
    /// has adapters of its own, of the same sizes, over the same frozen weights, which are not copied.
    pub fn of_policy(policy: &Policy, seed: u64) -> Self {
        let leaf = |tensor: &Tensor| tensor.detach().copy().set_requires_grad(true);
        let of_model = |tensor: &Tensor| match policy.lora {
            Some(_) => tensor.shallow_clone(),
            None => leaf(tensor),
        };
        let parameters: std::collections::BTreeMap<String, Tensor> = policy
            .parameters
            .iter()
            .filter(|(name, _)| name.as_str() != "lm_head.weight")
            .map(|(name, tensor)| (name.clone(), of_model(tensor)))
            .collect();
        let mut config = policy.config.clone();
        // No head of the vocabulary is computed: the embedding stands in for one that is not there.
        config.tied_embeddings = true;
        let device = policy.compute.device;
        let weight = normal_values(config.hidden_size as usize, seed);
        let weight = Tensor::from_slice(&weight).unsqueeze(0).to_device(device);
        let bias = Tensor::zeros([1], (Kind::Float, device));
        let mut network = Policy { config, compute: policy.compute, parameters, lora: None };
        if let Some(Lora { config, base, .. }) = &policy.lora {
            let adapters_seed = splitmix::finalise(seed ^ ADAPTERS_STREAM);
            network.adapt(Lora::new(&network.config, *config, base.clone(), adapters_seed));
        }
        let trained = network.trained_mut();
        trained.insert(HEAD_WEIGHT.to_owned(), leaf(&weight));
        trained.insert(HEAD_BIAS.to_owned(), leaf(&bias));
        Self { network }
    }

    /// Values before the tokens at which each sequence's mask is true (never the first), in packing
    /// order, with gradients; `weights` are the model's.
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

    /// `[targets, hidden]` to `[targets]`, f32.
    fn head(&self, hidden: &Tensor) -> Tensor {
        let parameter = |name: &str| &self.network.trained()[name];
        let hidden = hidden.to_kind(Kind::Float);
        hidden.linear(parameter(HEAD_WEIGHT), Some(parameter(HEAD_BIAS))).squeeze_dim(1)
    }

    /// The values of each sequence, without gradients.
    ///
    /// # Errors
    /// [`Stopped`] between two micro-batches.
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
                let found = self.head(&pass.hidden).to_device(Device::Cpu).contiguous();
                let mut values = vec![0.0_f32; found.numel()];
                found.copy_data(&mut values, found.numel());
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

/// Values whose gradients can be sent back into the model.
#[derive(Debug)]
pub struct ValuedPass<'m> {
    /// `[targets]`, f32, in the graph of the value head.
    pub values: Tensor,
    hidden: Tensor,
    pass: PackedPass<'m>,
}

impl ValuedPass<'_> {
    /// Adds the gradient of `loss`, a function of the values, to the parameters'.
    pub fn backward(self, loss: &Tensor) {
        loss.backward();
        self.pass.backward(&self.hidden.grad());
    }
}

/// Tokens of a mask that have a value: all but the very first.
pub(crate) fn valued_tokens(mask: &[bool]) -> usize {
    mask.iter().skip(1).filter(|&&valued| valued).count()
}

/// Normally distributed numbers (Box and Muller) that `seed` decides.
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
