//! The gradient of one policy update.

use tch::{Kind, Tensor};

use super::micro_batch::{TrainSequence, micro_batches};
use crate::algo::{ClipRange, KlEstimator, clipped_policy_loss, kl_estimate};
use crate::policy::{Decoder, Policy, Weights, token_statistics};
use crate::stop::{StopFlag, Stopped};

/// What the loss is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolicyUpdateConfig {
    pub clip: ClipRange,
    pub kl_coefficient: f64,
    pub kl_estimator: KlEstimator,
    pub entropy_coefficient: f64,
    /// The sampler's; logits are divided by it here as well.
    pub temperature: f64,
    pub tokens_per_micro_batch: usize,
}

/// Means over the trained tokens of one update, but for the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PolicyUpdateStatistics {
    pub policy_loss: f64,
    /// Divergence from the frozen reference; 0 without a KL term.
    pub kl: f64,
    /// In nats.
    pub entropy: f64,
    pub clip_fraction: f64,
    /// Mean of |trainer's log-prob - sampler's|.
    pub log_prob_gap: f64,
    pub trained_tokens: usize,
    /// All tokens passed forward and backward.
    pub tokens: usize,
}

/// Adds the gradient of the update over `sequences` to the parameters.
///
/// Loss: `Σ w (policy loss + kl_coefficient · KL - entropy_coefficient · H)` with each
/// sequence's own token weight `w` (see [`crate::algo::token_weights`]).
///
/// # Errors
/// [`Stopped`] between two micro-batches: the gradient is then that of a part and of no use.
pub fn policy_gradient(
    policy: &Policy,
    decoder: &Decoder,
    sequences: &[TrainSequence],
    config: &PolicyUpdateConfig,
    stop: &StopFlag,
) -> Result<PolicyUpdateStatistics, Stopped> {
    let trained: Vec<usize> = sequences.iter().map(TrainSequence::trained_tokens).collect();
    let lengths: Vec<usize> = sequences.iter().map(|one| one.token_ids.len()).collect();
    let mut statistics = PolicyUpdateStatistics {
        trained_tokens: trained.iter().sum(),
        tokens: lengths.iter().sum(),
        ..PolicyUpdateStatistics::default()
    };
    for batch in micro_batches(&lengths, config.tokens_per_micro_batch) {
        if batch.iter().all(|&index| trained[index] == 0) {
            continue;
        }
        stop.check()?;
        let members: Vec<&TrainSequence> = batch.iter().map(|&index| &sequences[index]).collect();
        let pass = micro_batch_pass(policy, decoder, &members, config);
        statistics.policy_loss += pass.policy_loss;
        statistics.kl += pass.kl;
        statistics.entropy += pass.entropy;
        statistics.clip_fraction += pass.clip_fraction;
        statistics.log_prob_gap += pass.log_prob_gap;
    }
    let count = statistics.trained_tokens.max(1) as f64;
    statistics.kl /= count;
    statistics.entropy /= count;
    statistics.clip_fraction /= count;
    statistics.log_prob_gap /= count;
    Ok(statistics)
}

/// One forward and backward pass; everything but the loss is summed over tokens.
fn micro_batch_pass(
    policy: &Policy,
    decoder: &Decoder,
    members: &[&TrainSequence],
    config: &PolicyUpdateConfig,
) -> PolicyUpdateStatistics {
    let device = policy.compute.device;
    let packed: Vec<_> = members.iter().map(|sequence| sequence.packed()).collect();
    let with_entropy = config.entropy_coefficient != 0.0;
    let weights = policy.weights();
    let scored = token_statistics(decoder, &weights, &packed, config.temperature, with_entropy);
    let per_token = |value: fn(&TrainSequence) -> f64| {
        let values: Vec<f32> = members
            .iter()
            .flat_map(|sequence| {
                std::iter::repeat_n(value(sequence) as f32, sequence.trained_tokens())
            })
            .collect();
        Tensor::from_slice(&values).to_device(device)
    };
    let joined = |part: &dyn Fn(&TrainSequence) -> Option<&Vec<f32>>| {
        let parts: Option<Vec<&Vec<f32>>> = members.iter().map(|sequence| part(sequence)).collect();
        let values: Option<Vec<f32>> =
            parts.map(|parts| parts.into_iter().flatten().copied().collect());
        values.map(|values| Tensor::from_slice(&values).to_device(device))
    };
    let old = joined(&|sequence| sequence.old_log_probs.as_ref())
        .unwrap_or_else(|| scored.log_probs.detach());
    let advantages = per_token(|sequence| sequence.advantage);
    let loss = clipped_policy_loss(&scored.log_probs, &old, &advantages, config.clip);
    let mut penalties = loss.losses.zeros_like();
    let mut kl_sum = 0.0;
    if let Some(reference) = joined(&|sequence| sequence.reference_log_probs.as_ref()) {
        let kl = kl_estimate(config.kl_estimator, &scored.log_probs, &reference);
        kl_sum = kl.sum(Kind::Float).double_value(&[]);
        penalties += kl * config.kl_coefficient;
    }
    if with_entropy {
        penalties -= &scored.entropies * config.entropy_coefficient;
    }
    let token_weight = per_token(|sequence| sequence.weight);
    ((&loss.losses + penalties) * &token_weight).sum(Kind::Float).backward();
    let sum = |tensor: &Tensor| tensor.sum(Kind::Float).double_value(&[]);
    let sampler = joined(&|sequence| Some(&sequence.sampler_log_probs));
    let gap = sampler.map_or(0.0, |sampler| sum(&(scored.log_probs.detach() - sampler).abs()));
    PolicyUpdateStatistics {
        policy_loss: sum(&(loss.losses.detach() * token_weight)),
        kl: kl_sum,
        entropy: sum(&scored.entropies.detach()),
        clip_fraction: sum(&loss.clipped),
        log_prob_gap: gap,
        trained_tokens: 0,
        tokens: 0,
    }
}

/// Log-probs of the trained tokens of each sequence under `weights`, without gradients.
///
/// # Errors
/// [`Stopped`] between two micro-batches.
pub fn sequence_log_probs(
    decoder: &Decoder,
    weights: &Weights,
    sequences: &[TrainSequence],
    temperature: f64,
    tokens_per_micro_batch: usize,
    stop: &StopFlag,
) -> Result<Vec<Vec<f32>>, Stopped> {
    let lengths: Vec<usize> = sequences.iter().map(|one| one.token_ids.len()).collect();
    let mut results = vec![Vec::new(); sequences.len()];
    tch::no_grad(|| {
        for batch in micro_batches(&lengths, tokens_per_micro_batch) {
            stop.check()?;
            let packed: Vec<_> = batch.iter().map(|&index| sequences[index].packed()).collect();
            let scored = token_statistics(decoder, weights, &packed, temperature, false);
            let mut values = vec![0.0_f32; scored.log_probs.numel()];
            let host = scored.log_probs.to_device(tch::Device::Cpu).contiguous();
            host.copy_data(&mut values, scored.log_probs.numel());
            let mut rest = values.as_slice();
            for &index in &batch {
                let (own, others) = rest.split_at(sequences[index].trained_tokens());
                results[index] = own.to_vec();
                rest = others;
            }
        }
        Ok(results)
    })
}
