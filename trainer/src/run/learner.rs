//! The part of a run that learns: the policy, the reference that the divergence is measured from, the critic, and
//! their optimizers.
//!
//! **Invariant:** a loss or gradient that is not finite changes no weight.
//! **Invariant:** a stop ends the updates of a step only before the first one is applied: no run could resume from
//! weights between two updates.

use super::model::LoadedModel;
use super::optimizer::{Applied, LearningRate, OptimizerSettings};
use super::training::advantages::{Estimator, Valued, Values};
use crate::algo::{Aggregation, GaeSteps, token_weights};
use crate::critic::{
    Critic, CriticSequence, CriticStatistics, CriticUpdateConfig, critic_gradient,
};
use crate::policy::{Lora, MaskedTokens, Policy, Weights};
use crate::stop::{StopFlag, Stopped, Uninterruptible};
use crate::update::{
    AdamW, PolicyUpdateConfig, PolicyUpdateStatistics, TrainSequence, UpdateError, policy_gradient,
    sequence_log_probs,
};

/// The settings by which the policy and its critic learn.
#[derive(Clone, Debug)]
pub(crate) struct LearnerSettings {
    pub(crate) update: PolicyUpdateConfig,
    pub(crate) schedule: UpdateSchedule,
    pub(crate) aggregation: Aggregation,
    /// The constant of [`Aggregation::SequenceMeanTokenSumNorm`].
    pub(crate) norm_tokens: usize,
    pub(crate) rate: LearningRate,
    pub(crate) optimizer: OptimizerSettings,
    /// `true` if something needs the divergence from the model where training began.
    pub(crate) keeps_reference: bool,
    pub(crate) estimator: Estimator<CriticSettings>,
}

/// The settings by which the critic learns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CriticSettings {
    pub(crate) update: CriticUpdateConfig,
    pub(crate) rate: LearningRate,
    /// Seed of the value head.
    pub(crate) seed: u64,
    /// Steps at the beginning in which the critic learns alone.
    pub(crate) warmup_steps: u64,
}

/// The division of a step's trajectories into updates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UpdateSchedule {
    /// Trajectories per update; 0 takes the whole step's.
    pub(crate) trajectories_per_update: usize,
    /// Times that each trajectory is trained on.
    pub(crate) epochs: usize,
}

impl UpdateSchedule {
    fn per_update(self, trajectories: usize) -> usize {
        match self.trajectories_per_update {
            0 => trajectories.max(1),
            limit => limit,
        }
    }

    /// Returns `true` if a step of this many trajectories makes more than one update.
    pub(crate) fn has_several_updates(self, trajectories: usize) -> bool {
        self.per_update(trajectories) < trajectories || self.epochs > 1
    }
}

/// The model where training began, from which the divergence is measured.
enum Reference {
    /// A copy of its weights.
    Frozen(Weights),
    /// The frozen weights that the policy computes with as well, and the adapters of the beginning if they changed
    /// anything: nothing large is kept a second time.
    OverBase(Option<Lora>),
}

impl Reference {
    fn copy(policy: &Policy) -> Self {
        match &policy.lora {
            Some(lora) => Self::OverBase((!lora.is_zero()).then(|| lora.deep_copy())),
            None => Self::Frozen(policy.frozen_weights()),
        }
    }
}

/// PPO's critic with its optimizer.
#[derive(Debug)]
pub(crate) struct TrainedCritic {
    pub(crate) model: Critic,
    pub(crate) optimizer: AdamW,
    settings: CriticSettings,
}

/// Means over the policy updates of a step.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PolicyUpdates {
    pub(crate) statistics: PolicyUpdateStatistics,
    pub(crate) grad_norm: f64,
    /// The rate of the last update.
    pub(crate) learning_rate: f64,
}

/// Means over the critic updates of a step; zeros without a critic.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CriticUpdates {
    pub(crate) statistics: CriticStatistics,
    pub(crate) grad_norm: f64,
}

/// The reason why a step's updates ended early.
#[derive(Debug)]
pub(crate) enum UpdateFault {
    /// A stop came before the first update was applied.
    Stopped(Stopped),
    /// An update was refused; its batch can show why.
    NotFinite { error: UpdateError, batch: RefusedBatch },
}

/// The batch of an update that was refused.
#[derive(Debug)]
pub(crate) enum RefusedBatch {
    Policy(Vec<TrainSequence>),
    Critic(Vec<CriticSequence>),
}

impl From<Stopped> for UpdateFault {
    fn from(stopped: Stopped) -> Self {
        Self::Stopped(stopped)
    }
}

/// The policy with everything that learns from its trajectories.
pub(crate) struct Learner {
    pub(crate) model: LoadedModel,
    reference: Option<Reference>,
    pub(crate) optimizer: AdamW,
    /// The estimator of advantages. PPO's holds the critic.
    pub(crate) estimator: Estimator<TrainedCritic>,
    settings: LearnerSettings,
}

impl Learner {
    /// Begins at the model as it was loaded, which is also the reference.
    pub(crate) fn start(settings: LearnerSettings, model: LoadedModel) -> Self {
        let reference = settings.keeps_reference.then(|| Reference::copy(&model.policy));
        let optimizer = settings.optimizer.start(model.policy.trained());
        let estimator = settings.estimator.map_critic(|critic| {
            let model = Critic::of_policy(&model.policy, critic.seed);
            let optimizer = settings.optimizer.start(model.network.trained());
            TrainedCritic { model, optimizer, settings: *critic }
        });
        Self { model, reference, optimizer, estimator, settings }
    }

    /// Multiplies the learning rates and the weight of the divergence in the loss by factors.
    pub(crate) fn scale(&mut self, learning_rate: f64, kl: f64) {
        self.settings.rate.peak *= learning_rate;
        self.settings.update.kl_coefficient *= kl;
        if let Some(critic) = self.estimator.critic_mut() {
            critic.settings.rate.peak *= learning_rate;
        }
    }

    /// Returns how the trajectories of a step are divided into updates.
    pub(crate) fn schedule(&self) -> UpdateSchedule {
        self.settings.schedule
    }

    /// Returns `true` if the policy learns in the step after `steps` steps, and not the critic alone.
    pub(crate) fn trains_policy(&self, steps: u64) -> bool {
        self.estimator.critic().is_none_or(|critic| steps >= critic.settings.warmup_steps)
    }

    /// Computes the log-probs of the trained tokens under the current policy, with adapters apart from the weights, as
    /// in an update.
    ///
    /// # Errors
    /// [`Stopped`] between two micro-batches.
    pub(crate) fn log_probs(
        &self,
        sequences: &[TrainSequence],
        stop: &StopFlag,
    ) -> Result<Vec<Vec<f32>>, Stopped> {
        let weights = tch::no_grad(|| self.model.policy.weights());
        self.log_probs_under(&weights, sequences, stop)
    }

    /// Computes the log-probs of the trained tokens under the reference; `None` if no divergence is measured.
    ///
    /// # Errors
    /// [`Stopped`] between two micro-batches.
    pub(crate) fn reference_log_probs(
        &self,
        sequences: &[TrainSequence],
        stop: &StopFlag,
    ) -> Result<Option<Vec<Vec<f32>>>, Stopped> {
        let log_probs = match &self.reference {
            None => return Ok(None),
            Some(Reference::Frozen(weights)) => self.log_probs_under(weights, sequences, stop)?,
            Some(Reference::OverBase(adapters)) => {
                let policy = &self.model.policy;
                let weights = tch::no_grad(|| policy.weights_with(adapters.as_ref()));
                self.log_probs_under(&weights, sequences, stop)?
            }
        };
        Ok(Some(log_probs))
    }

    fn log_probs_under(
        &self,
        weights: &Weights,
        sequences: &[TrainSequence],
        stop: &StopFlag,
    ) -> Result<Vec<Vec<f32>>, Stopped> {
        let PolicyUpdateConfig { temperature, tokens_per_micro_batch, .. } = self.settings.update;
        let decoder = &self.model.decoder;
        sequence_log_probs(decoder, weights, sequences, temperature, tokens_per_micro_batch, stop)
    }

    /// Returns the estimator of advantages; PPO's with the critic's values of each sequence. The critic values
    /// sampled tokens, and in Search-R1's manner all tokens after the prompt.
    ///
    /// # Errors
    /// [`Stopped`] between two micro-batches.
    pub(crate) fn values(
        &self,
        sequences: &[TrainSequence],
        stop: &StopFlag,
    ) -> Result<Estimator<Values>, Stopped> {
        self.estimator.try_map_critic(|steps, critic| {
            let mask = |sequence: &TrainSequence| match steps {
                GaeSteps::Masked => sequence.mask.clone(),
                GaeSteps::All => sequence.response_mask(),
            };
            let masks: Vec<Vec<bool>> = sequences.iter().map(mask).collect();
            let packed: Vec<MaskedTokens<'_>> = sequences
                .iter()
                .zip(&masks)
                .map(|(sequence, mask)| (&sequence.token_ids[..], &mask[..]))
                .collect();
            let (decoder, budget) =
                (&self.model.decoder, critic.settings.update.tokens_per_micro_batch);
            let values = critic.model.sequence_values(decoder, &packed, budget, stop)?;
            let valued = masks.into_iter().zip(values);
            Ok(valued.map(|(mask, values)| Valued { mask, values }).collect())
        })
    }

    /// Updates the critic with a step's sequences; does nothing without a critic.
    ///
    /// # Errors
    /// A stop before the first update, and a number that is not finite.
    pub(crate) fn update_critic(
        &mut self,
        sequences: &[CriticSequence],
        updates: &mut Uninterruptible,
    ) -> Result<CriticUpdates, UpdateFault> {
        let mut sums = CriticUpdates::default();
        let Some(critic) = self.estimator.critic_mut() else { return Ok(sums) };
        let (decoder, optimizer) = (&self.model.decoder, &self.settings.optimizer);
        let UpdateSchedule { epochs, .. } = self.settings.schedule;
        let per_update = self.settings.schedule.per_update(sequences.len());
        let mut count = 0.0;
        for _ in 0..epochs {
            for part in sequences.chunks(per_update) {
                let CriticSettings { update, .. } = &critic.settings;
                let statistics =
                    critic_gradient(&critic.model, decoder, part, update, updates.stop())?;
                let applied = critic.apply(&statistics, optimizer).map_err(|error| {
                    UpdateFault::NotFinite { error, batch: RefusedBatch::Critic(part.to_vec()) }
                })?;
                updates.commit();
                sums.statistics.value_loss += statistics.value_loss;
                sums.statistics.clip_fraction += statistics.clip_fraction;
                sums.grad_norm += applied.grad_norm;
                count += 1.0;
            }
        }
        if count > 0.0 {
            sums.statistics.value_loss /= count;
            sums.statistics.clip_fraction /= count;
            sums.grad_norm /= count;
        }
        Ok(sums)
    }

    /// Updates the policy with a step's sequences.
    ///
    /// # Errors
    /// A stop before the first update, and a number that is not finite.
    pub(crate) fn update_policy(
        &mut self,
        sequences: &[TrainSequence],
        updates: &mut Uninterruptible,
    ) -> Result<PolicyUpdates, UpdateFault> {
        let UpdateSchedule { epochs, .. } = self.settings.schedule;
        let per_update = self.settings.schedule.per_update(sequences.len());
        let (mut sums, mut count) = (PolicyUpdates::default(), 0.0);
        for _ in 0..epochs {
            for part in sequences.chunks(per_update) {
                let part = self.weighted(part);
                let LoadedModel { policy, decoder, .. } = &self.model;
                let update = &self.settings.update;
                let statistics = policy_gradient(policy, decoder, &part, update, updates.stop())?;
                let applied = match self.apply_policy(&statistics) {
                    Ok(applied) => applied,
                    Err(error) => {
                        let batch = RefusedBatch::Policy(part);
                        return Err(UpdateFault::NotFinite { error, batch });
                    }
                };
                updates.commit();
                sums.grad_norm += applied.grad_norm;
                sums.learning_rate = applied.learning_rate;
                add(&mut sums.statistics, &statistics, count > 0.0);
                count += 1.0;
            }
        }
        if count > 0.0 {
            divide(&mut sums.statistics, count);
            sums.grad_norm /= count;
        }
        Ok(sums)
    }

    fn apply_policy(
        &mut self,
        statistics: &PolicyUpdateStatistics,
    ) -> Result<Applied, UpdateError> {
        if let Some((quantity, value)) = statistics.not_finite() {
            let update = self.optimizer.updates;
            return Err(UpdateError::NotFinite { quantity, update, value });
        }
        let LearnerSettings { optimizer, rate, .. } = &self.settings;
        optimizer.apply(self.model.policy.trained_mut(), &mut self.optimizer, *rate)
    }

    /// Returns the sequences of one update with the weights of their tokens.
    fn weighted(&self, part: &[TrainSequence]) -> Vec<TrainSequence> {
        let mut part = part.to_vec();
        let trained: Vec<usize> = part.iter().map(TrainSequence::trained_tokens).collect();
        let LearnerSettings { aggregation, norm_tokens, .. } = self.settings;
        for (sequence, weight) in
            part.iter_mut().zip(token_weights(aggregation, norm_tokens, &trained))
        {
            sequence.weight = weight;
        }
        part
    }
}

impl TrainedCritic {
    fn apply(
        &mut self,
        statistics: &CriticStatistics,
        optimizer: &OptimizerSettings,
    ) -> Result<Applied, UpdateError> {
        let value = statistics.value_loss;
        if !value.is_finite() {
            let update = self.optimizer.updates;
            return Err(UpdateError::NotFinite { quantity: "value loss", update, value });
        }
        let parameters = self.model.network.trained_mut();
        optimizer.apply(parameters, &mut self.optimizer, self.settings.rate)
    }
}

/// Adds the statistics of an update. Later updates of a step have moved away from the sampler, so only the first
/// one's gap of log-probs counts.
fn add(sum: &mut PolicyUpdateStatistics, update: &PolicyUpdateStatistics, is_later: bool) {
    let log_prob_gap = if is_later { sum.log_prob_gap } else { update.log_prob_gap };
    sum.add(update);
    sum.log_prob_gap = log_prob_gap;
}

fn divide(sum: &mut PolicyUpdateStatistics, updates: f64) {
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
