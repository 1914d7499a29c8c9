//! The gradient of one policy update.

use tch::{Device, Kind, Tensor};

use super::micro_batch::micro_batches;
use super::sequence::TrainSequence;
use crate::algo::{
    KlEstimator, LikelihoodGate, Objective, PolicyInputs, TokenLayout, kl_estimate,
    likelihood_loss, policy_loss, truncated_importance,
};
use crate::policy::{
    Decoder, MaskedTokens, Policy, ScoredPass, TokenStatistics, Weights, token_statistics,
};
use crate::stop::{StopFlag, Stopped};

/// The coefficient and the gate of the term that preserves the likelihood of good trajectories.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LikelihoodTerm {
    pub coefficient: f64,
    pub gate: LikelihoodGate,
}

/// The parts of the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolicyUpdateConfig {
    pub objective: Objective,
    /// Weight of the divergence from the reference in the loss; 0 if it is subtracted from the rewards instead.
    pub kl_coefficient: f64,
    pub kl_estimator: KlEstimator,
    pub entropy_coefficient: f64,
    /// Largest weight that corrects a token for its sampler; `None` means no correction.
    pub importance_most: Option<f64>,
    pub likelihood: Option<LikelihoodTerm>,
    /// The sampler's temperature. Logits are divided by it here as well.
    pub temperature: f64,
    pub tokens_per_micro_batch: usize,
}

/// Statistics of one update: means over its trained tokens, except for losses and counts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PolicyUpdateStatistics {
    pub policy_loss: f64,
    /// Likelihood term, before its coefficient.
    pub likelihood_loss: f64,
    /// Divergence from the frozen reference; 0 without a KL term.
    pub kl: f64,
    /// Mean entropy in nats.
    pub entropy: f64,
    pub clip_fraction: f64,
    /// Mean of |trainer's log-prob - sampler's|.
    pub log_prob_gap: f64,
    /// Mean weight that corrected tokens for the sampler; 1 without a correction.
    pub importance: f64,
    /// Mean log-prob of the tokens with a positive advantage; 0 if there are none.
    pub positive_log_prob: f64,
    pub trained_tokens: usize,
    /// Number of trained tokens with a positive advantage.
    pub positive_tokens: usize,
    /// Number of tokens in the passes, trained or not.
    pub tokens: usize,
}

impl PolicyUpdateStatistics {
    /// Returns the name and value of the first part of the loss that is not finite.
    pub fn not_finite(&self) -> Option<(&'static str, f64)> {
        [
            ("policy loss", self.policy_loss),
            ("divergence from the reference", self.kl),
            ("entropy", self.entropy),
            ("likelihood term", self.likelihood_loss),
        ]
        .into_iter()
        .find(|(_, value)| !value.is_finite())
    }

    /// Adds the statistics of another pass or update, except its counts of all and of trained tokens.
    pub fn add(&mut self, pass: &Self) {
        self.policy_loss += pass.policy_loss;
        self.likelihood_loss += pass.likelihood_loss;
        self.kl += pass.kl;
        self.entropy += pass.entropy;
        self.clip_fraction += pass.clip_fraction;
        self.log_prob_gap += pass.log_prob_gap;
        self.importance += pass.importance;
        self.positive_log_prob += pass.positive_log_prob;
        self.positive_tokens += pass.positive_tokens;
    }

    /// Turns sums over tokens into means.
    fn divide(&mut self) {
        let count = self.trained_tokens.max(1) as f64;
        for sum in [
            &mut self.kl,
            &mut self.entropy,
            &mut self.clip_fraction,
            &mut self.log_prob_gap,
            &mut self.importance,
        ] {
            *sum /= count;
        }
        self.positive_log_prob /= self.positive_tokens.max(1) as f64;
    }
}

/// Adds the gradient of the update over `sequences` to the parameters.
///
/// The loss is `Σ w (importance · policy loss + kl_coefficient · KL - entropy_coefficient · H)` with each sequence's
/// token weight `w` (see [`crate::algo::token_weights`]), plus the likelihood term over all trained tokens of the
/// update.
///
/// # Errors
/// Returns [`Stopped`] between two micro-batches. The gradient is then incomplete and of no use.
pub fn policy_gradient(
    policy: &Policy,
    decoder: &Decoder,
    sequences: &[TrainSequence],
    config: &PolicyUpdateConfig,
    stop: &StopFlag,
) -> Result<PolicyUpdateStatistics, Stopped> {
    let trained: Vec<usize> = sequences.iter().map(TrainSequence::trained_tokens).collect();
    let packed: Vec<MaskedTokens<'_>> = sequences.iter().map(TrainSequence::packed).collect();
    let weights = policy.weights();
    let mut statistics = PolicyUpdateStatistics {
        trained_tokens: trained.iter().sum(),
        tokens: packed.iter().map(|(ids, _)| ids.len()).sum(),
        ..PolicyUpdateStatistics::default()
    };
    for batch in micro_batches(&packed, config.tokens_per_micro_batch) {
        if batch.iter().all(|&index| trained[index] == 0) {
            continue;
        }
        stop.check()?;
        let members: Vec<&TrainSequence> = batch.iter().map(|&index| &sequences[index]).collect();
        let packed = PackedTokens::new(&members, policy.compute.device);
        let terms = packed.loss(&weights, decoder, config, statistics.trained_tokens);
        statistics.add(&terms.statistics);
        terms.backward();
    }
    statistics.divide();
    Ok(statistics)
}

/// The trained tokens of one micro-batch. Every tensor is `[tokens]`.
pub(super) struct PackedTokens<'s> {
    members: &'s [&'s TrainSequence],
    layout: TokenLayout,
    advantages: Tensor,
    weights: Tensor,
    old: Option<Tensor>,
    reference: Option<Tensor>,
    sampler: Option<Tensor>,
    device: Device,
}

/// The loss of a micro-batch and its statistics, summed over tokens.
pub(super) struct LossTerms<'m> {
    loss: Tensor,
    pub(super) statistics: PolicyUpdateStatistics,
    scored: ScoredPass<'m>,
}

impl LossTerms<'_> {
    /// Adds the gradient of the loss to the gradients of the parameters.
    pub(super) fn backward(self) {
        self.scored.backward(&self.loss);
    }
}

impl<'s> PackedTokens<'s> {
    pub(super) fn new(members: &'s [&'s TrainSequence], device: Device) -> Self {
        let trained: Vec<usize> =
            members.iter().map(|sequence| sequence.trained_tokens()).collect();
        let joined = |part: &dyn Fn(&TrainSequence) -> Option<&Vec<f32>>| {
            let parts: Option<Vec<&Vec<f32>>> =
                members.iter().map(|sequence| part(sequence)).collect();
            let values: Option<Vec<f32>> =
                parts.map(|parts| parts.into_iter().flatten().copied().collect());
            values.map(|values| Tensor::from_slice(&values).to_device(device))
        };
        let advantages: Vec<f32> =
            members.iter().flat_map(|sequence| sequence.advantages.iter().copied()).collect();
        let weights: Vec<f32> = members
            .iter()
            .zip(&trained)
            .flat_map(|(sequence, &count)| std::iter::repeat_n(sequence.weight as f32, count))
            .collect();
        Self {
            members,
            layout: TokenLayout::new(&trained, device),
            advantages: Tensor::from_slice(&advantages).to_device(device),
            weights: Tensor::from_slice(&weights).to_device(device),
            old: joined(&|sequence| sequence.old_log_probs.as_ref()),
            reference: joined(&|sequence| sequence.reference_log_probs.as_ref()),
            sampler: joined(&|sequence| {
                let known = sequence.sampler_log_probs.len() == sequence.trained_tokens();
                known.then_some(&sequence.sampler_log_probs)
            }),
            device,
        }
    }

    /// Runs one forward pass. `update_tokens` is the number of trained tokens of the whole update.
    pub(super) fn loss<'m>(
        &self,
        weights: &'m Weights,
        decoder: &'m Decoder,
        config: &PolicyUpdateConfig,
        update_tokens: usize,
    ) -> LossTerms<'m> {
        let sequences: Vec<_> = self.members.iter().map(|sequence| sequence.packed()).collect();
        let scored = ScoredPass::new(decoder, weights, &sequences, config.temperature);
        let (loss, statistics) = self.loss_of(&scored.statistics, config, update_tokens);
        LossTerms { loss, statistics, scored }
    }

    /// Computes the loss from scored tokens.
    fn loss_of(
        &self,
        scored: &TokenStatistics,
        config: &PolicyUpdateConfig,
        update_tokens: usize,
    ) -> (Tensor, PolicyUpdateStatistics) {
        let sum = |tensor: &Tensor| tensor.sum(Kind::Float).double_value(&[]);
        let new = &scored.log_probs;
        // With one update per step, the current policy is the old one.
        let old = self.old.as_ref().map_or_else(|| new.detach(), Tensor::shallow_clone);
        let importance = match (config.importance_most, &self.sampler) {
            (Some(most), Some(sampler)) => Some(truncated_importance(&old, sampler, most)),
            _ => None,
        };
        let inputs = PolicyInputs {
            log_probs: new,
            old_log_probs: &old,
            advantages: &self.advantages,
            layout: &self.layout,
        };
        let loss = policy_loss(config.objective, &inputs, importance.as_ref());
        let positive = self.advantages.gt(0.0).to_kind(Kind::Float);
        let mut statistics = PolicyUpdateStatistics {
            policy_loss: sum(&(loss.losses.detach() * &self.weights)),
            entropy: sum(&scored.entropies.detach()),
            clip_fraction: sum(&loss.clipped),
            importance: importance.as_ref().map_or(new.numel() as f64, sum),
            positive_log_prob: sum(&(new.detach() * &positive)),
            positive_tokens: sum(&positive) as usize,
            ..PolicyUpdateStatistics::default()
        };
        if let Some(sampler) = &self.sampler {
            statistics.log_prob_gap = sum(&(new.detach() - sampler).abs());
        }
        let mut losses = loss.losses;
        if let Some(reference) = &self.reference {
            let kl = kl_estimate(config.kl_estimator, new, reference);
            statistics.kl = sum(&kl.detach());
            if config.kl_coefficient != 0.0 {
                losses += kl * config.kl_coefficient;
            }
        }
        if config.entropy_coefficient != 0.0 {
            losses -= &scored.entropies * config.entropy_coefficient;
        }
        let mut total = (losses * &self.weights).sum(Kind::Float);
        if let Some(term) = config.likelihood {
            let kept = self.likelihood(new, &old, term.gate) / update_tokens.max(1) as f64;
            statistics.likelihood_loss = kept.double_value(&[]);
            total += kept * term.coefficient;
        }
        (total, statistics)
    }

    /// Sums the likelihood term over the micro-batch.
    fn likelihood(&self, new: &Tensor, old: &Tensor, gate: LikelihoodGate) -> Tensor {
        let preserved = self.layout.means(&self.advantages).ge(0.0).to_kind(Kind::Float);
        let preserved = self.layout.spread(&preserved);
        let losses = match gate {
            LikelihoodGate::Response => likelihood_loss(new, old, &preserved, &self.layout),
            LikelihoodGate::Action => {
                let actions: Vec<usize> =
                    self.members.iter().flat_map(|sequence| sequence.action_tokens()).collect();
                let actions = TokenLayout::new(&actions, self.device);
                likelihood_loss(new, old, &preserved, &actions)
            }
        };
        losses.sum(Kind::Float)
    }
}

/// Computes the log-probs of the trained tokens of each sequence under `weights`, without gradients.
///
/// # Errors
/// Returns [`Stopped`] between two micro-batches.
pub fn sequence_log_probs(
    decoder: &Decoder,
    weights: &Weights,
    sequences: &[TrainSequence],
    temperature: f64,
    tokens_per_micro_batch: usize,
    stop: &StopFlag,
) -> Result<Vec<Vec<f32>>, Stopped> {
    let packed: Vec<MaskedTokens<'_>> = sequences.iter().map(TrainSequence::packed).collect();
    let mut results = vec![Vec::new(); sequences.len()];
    tch::no_grad(|| {
        for batch in micro_batches(&packed, tokens_per_micro_batch) {
            stop.check()?;
            let members: Vec<_> = batch.iter().map(|&index| packed[index]).collect();
            let scored = token_statistics(decoder, weights, &members, temperature);
            let mut values = vec![0.0_f32; scored.log_probs.numel()];
            let host = scored.log_probs.to_device(Device::Cpu).contiguous();
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
