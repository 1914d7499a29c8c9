//! The part of a step that turns scored trajectories into new weights: log-probs, then updates of the
//! critic and of the policy.

use super::advantages::TrainBatch;
use super::{Reference, TrainedCritic, TrainingRun};
use crate::algo::{ClipRange, Objective, token_weights};
use crate::config::{Config, KlPlacement, PolicyLossKind};
use crate::critic::{CriticConfig, CriticStatistics, critic_gradient};
use crate::run::failed_batch::{self, Batch};
use crate::run::loaded_model::LoadedModel;
use crate::run::warm_start::apply_gradient;
use crate::stop::{StopFlag, Stopped};
use crate::update::{
    LikelihoodTerm, PolicyUpdateConfig, PolicyUpdateStatistics, TrainSequence, UpdateError,
    policy_gradient, sequence_log_probs, warmed_up,
};

/// What the updates of a step were like.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StepUpdates {
    /// Means over the updates.
    pub(super) policy: PolicyUpdateStatistics,
    /// Mean norm of the gradient.
    pub(super) grad_norm: f64,
    /// Of the last update.
    pub(super) learning_rate: f64,
    /// Means over the updates; zeros without a critic.
    pub(super) critic: CriticStatistics,
    pub(super) critic_grad_norm: f64,
}

impl TrainingRun<'_> {
    /// Adds the reference's log-probs, and the old ones where something needs them before the first
    /// update: with one update the policy as it stands is the one that sampled.
    pub(super) fn with_log_probs(
        &self,
        mut batch: TrainBatch,
        stop: &StopFlag,
    ) -> Result<TrainBatch, Stopped> {
        let sequences = &mut batch.sequences;
        let budget = self.config.update.tokens_per_micro_batch;
        let temperature = self.config.rollout.temperature;
        let decoder = &self.loaded.decoder;
        if let Some(reference) = &self.reference {
            let over_base;
            let reference = match reference {
                Reference::Frozen(weights) => weights,
                Reference::OverBase(adapters) => {
                    let policy = &self.loaded.policy;
                    over_base = tch::no_grad(|| policy.weights_with(adapters.as_ref()));
                    &over_base
                }
            };
            let found =
                sequence_log_probs(decoder, reference, sequences, temperature, budget, stop)?;
            for (sequence, log_probs) in sequences.iter_mut().zip(found) {
                sequence.reference_log_probs = Some(log_probs);
            }
        }
        let per_update = self.trajectories_per_update(sequences.len());
        let several = per_update < sequences.len() || self.config.training.epochs_per_step > 1;
        if several || self.config.algorithm.kl_placement == KlPlacement::Reward {
            // As the update computes them, adapters beside the weights, not as they are rolled out.
            let weights = tch::no_grad(|| self.loaded.policy.weights());
            let found =
                sequence_log_probs(decoder, &weights, sequences, temperature, budget, stop)?;
            for (sequence, log_probs) in sequences.iter_mut().zip(found) {
                sequence.old_log_probs = Some(log_probs);
            }
        }
        Ok(batch)
    }

    fn trajectories_per_update(&self, available: usize) -> usize {
        match self.config.training.trajectories_per_update {
            0 => available.max(1),
            limit => limit,
        }
    }

    /// All updates of a step. Stops only before the first one is made: no run could go on from weights
    /// between two.
    pub(super) fn update(
        &mut self,
        batch: &TrainBatch,
        stop: &StopFlag,
    ) -> anyhow::Result<StepUpdates> {
        let mut stop = stop.clone();
        let mut done = StepUpdates::default();
        self.update_critic(batch, &mut stop, &mut done)?;
        if self.critic.is_none() || self.state.step >= self.config.critic.warmup_steps as u64 {
            self.update_policy(&batch.sequences, &mut stop, &mut done)?;
        }
        Ok(done)
    }

    fn update_critic(
        &mut self,
        batch: &TrainBatch,
        stop: &mut StopFlag,
        done: &mut StepUpdates,
    ) -> anyhow::Result<()> {
        let config = self.config;
        let per_update = self.trajectories_per_update(batch.for_critic.len());
        let Some(critic) = &mut self.critic else { return Ok(()) };
        let critic_config = CriticConfig {
            clip: config.critic.clip,
            tokens_per_micro_batch: config.update.tokens_per_micro_batch,
        };
        let mut updates = 0.0;
        for _ in 0..config.training.epochs_per_step {
            for part in batch.for_critic.chunks(per_update) {
                let decoder = &self.loaded.decoder;
                let found = critic_gradient(&critic.model, decoder, part, &critic_config, stop)?;
                let norm = match apply_critic(config, critic, &found) {
                    Ok(norm) => norm,
                    Err(error) => {
                        let batch = Batch::Critic(&critic.model, part);
                        return Err(failed(config, &self.loaded, self.state.step, &batch, error));
                    }
                };
                *stop = StopFlag::never();
                done.critic.value_loss += found.value_loss;
                done.critic.clip_fraction += found.clip_fraction;
                done.critic_grad_norm += norm;
                updates += 1.0;
            }
        }
        if updates > 0.0 {
            done.critic.value_loss /= updates;
            done.critic.clip_fraction /= updates;
            done.critic_grad_norm /= updates;
        }
        Ok(())
    }

    fn update_policy(
        &mut self,
        sequences: &[TrainSequence],
        stop: &mut StopFlag,
        done: &mut StepUpdates,
    ) -> anyhow::Result<()> {
        let config = self.config;
        let update_config = policy_update_config(config);
        let per_update = self.trajectories_per_update(sequences.len());
        let mut updates = 0.0;
        for _ in 0..config.training.epochs_per_step {
            for part in sequences.chunks(per_update) {
                let part = weighted(config, part);
                let LoadedModel { policy, decoder, .. } = &self.loaded;
                let found = policy_gradient(policy, decoder, &part, &update_config, stop)?;
                match self.apply_policy(&found) {
                    Ok((norm, rate)) => {
                        done.grad_norm += norm;
                        done.learning_rate = rate;
                    }
                    Err(error) => {
                        let batch = Batch::Policy(&part);
                        return Err(failed(config, &self.loaded, self.state.step, &batch, error));
                    }
                }
                *stop = StopFlag::never();
                add_means(&mut done.policy, &found, updates > 0.0);
                updates += 1.0;
            }
        }
        if updates > 0.0 {
            divide_means(&mut done.policy, updates);
            done.grad_norm /= updates;
        }
        Ok(())
    }
}

impl TrainingRun<'_> {
    /// Applies the policy's gradient; returns its norm and the learning rate.
    fn apply_policy(&mut self, found: &PolicyUpdateStatistics) -> Result<(f64, f64), UpdateError> {
        let training = &self.config.training;
        let update = self.optimizer.updates;
        if let Some((what, value)) = found.not_finite() {
            return Err(UpdateError::NotFinite { what, update, value });
        }
        let rate = warmed_up(training.learning_rate, training.warmup_updates, update);
        let parameters = self.loaded.policy.trained_mut();
        Ok((apply_gradient(self.config, parameters, &mut self.optimizer, rate)?, rate))
    }
}

/// Applies the critic's gradient; returns its norm.
fn apply_critic(
    config: &Config,
    critic: &mut TrainedCritic,
    found: &CriticStatistics,
) -> Result<f64, UpdateError> {
    let update = critic.optimizer.updates;
    if !found.value_loss.is_finite() {
        let value = found.value_loss;
        return Err(UpdateError::NotFinite { what: "value loss", update, value });
    }
    let rate = warmed_up(config.critic.learning_rate, config.critic.warmup_updates, update);
    apply_gradient(config, critic.model.model.trained_mut(), &mut critic.optimizer, rate)
}

/// Keeps the batch of an update that came out not finite, and says what to do. `step` counts the steps
/// that are done.
fn failed(
    config: &Config,
    loaded: &LoadedModel,
    step: u64,
    batch: &Batch<'_>,
    error: UpdateError,
) -> anyhow::Error {
    let step = step + 1;
    let kept = match failed_batch::save(config, loaded, step, batch, &error) {
        Ok(folder) => {
            let folder = folder.display();
            format!("its batch is kept: `trainer replay {folder}` says where the number arises")
        }
        Err(reason) => format!("its batch could not be kept: {reason:#}"),
    };
    let advice = "to go on from the last checkpoint, run the same command with a lower \
                  training.learning_rate (or critic.learning_rate), a lower optimizer.max_grad_norm or \
                  model.dtype = \"f32\"";
    anyhow::Error::new(error).context(format!("step {step} failed; {kept}; {advice}"))
}

/// The sequences of one update with the weights of their tokens.
fn weighted(config: &Config, part: &[TrainSequence]) -> Vec<TrainSequence> {
    let mut part = part.to_vec();
    let trained: Vec<usize> = part.iter().map(TrainSequence::trained_tokens).collect();
    let weights = token_weights(config.training.loss_aggregation, config.norm_tokens(), &trained);
    for (sequence, weight) in part.iter_mut().zip(weights) {
        sequence.weight = weight;
    }
    part
}

fn add_means(sum: &mut PolicyUpdateStatistics, found: &PolicyUpdateStatistics, is_later: bool) {
    // Later updates have moved away from the sampler: only the first one's is a gap.
    let gap = if is_later { sum.log_prob_gap } else { found.log_prob_gap };
    sum.add(found);
    sum.log_prob_gap = gap;
}

fn divide_means(sum: &mut PolicyUpdateStatistics, updates: f64) {
    for value in [
        &mut sum.policy_loss,
        &mut sum.likelihood_loss,
        &mut sum.kl,
        &mut sum.entropy,
        &mut sum.clip_fraction,
        &mut sum.importance,
        &mut sum.positive_log_prob,
    ] {
        *value /= updates;
    }
}

pub(in crate::run) fn policy_update_config(config: &Config) -> PolicyUpdateConfig {
    let (training, algorithm) = (&config.training, &config.algorithm);
    let in_loss = algorithm.kl_placement == KlPlacement::Loss;
    let likelihood = LikelihoodTerm {
        coefficient: algorithm.likelihood_coefficient,
        gate: algorithm.likelihood_gate,
    };
    PolicyUpdateConfig {
        objective: objective(config),
        kl_coefficient: if in_loss { training.kl_coefficient } else { 0.0 },
        kl_estimator: training.kl_estimator,
        entropy_coefficient: training.entropy_coefficient,
        importance_most: (algorithm.importance_most > 0.0).then_some(algorithm.importance_most),
        likelihood: (likelihood.coefficient > 0.0).then_some(likelihood),
        temperature: config.rollout.temperature,
        tokens_per_micro_batch: config.update.tokens_per_micro_batch,
    }
}

fn objective(config: &Config) -> Objective {
    let clip = ClipRange { low: config.training.clip_low, high: config.training.clip_high };
    let algorithm = &config.algorithm;
    match algorithm.policy_loss {
        PolicyLossKind::Clip => {
            let dual = (algorithm.dual_clip > 0.0).then_some(algorithm.dual_clip);
            Objective::Clipped { clip, dual }
        }
        PolicyLossKind::Gspo => Objective::SequenceRatio { clip },
        PolicyLossKind::Cispo => Objective::ClippedWeight { clip },
        PolicyLossKind::Sapo => Objective::SoftGate {
            positive: algorithm.sapo_positive,
            negative: algorithm.sapo_negative,
        },
        PolicyLossKind::Gmpo => Objective::GeometricMean { clip },
        PolicyLossKind::Reinforce => Objective::Plain,
    }
}
