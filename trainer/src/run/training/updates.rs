//! The part of a step that turns scored trajectories into new weights: log-probs, then updates.

use super::TrainingRun;
use crate::algo::{Aggregation, ClipRange, KlEstimator, token_weights};
use crate::config::{Config, KlEstimator as KlChoice, LossAggregation};
use crate::run::loaded_model::LoadedModel;
use crate::run::warm_start::apply_gradient;
use crate::stop::{StopFlag, Stopped};
use crate::update::{
    PolicyUpdateConfig, PolicyUpdateStatistics, TrainSequence, policy_gradient, sequence_log_probs,
    warmed_up,
};

impl TrainingRun<'_> {
    /// Adds the reference's log-probs, and the old ones where a step has several updates: with one
    /// update the policy as it stands is the one that sampled.
    pub(super) fn with_log_probs(
        &self,
        mut sequences: Vec<TrainSequence>,
        stop: &StopFlag,
    ) -> Result<Vec<TrainSequence>, Stopped> {
        let budget = self.config.update.tokens_per_micro_batch;
        let temperature = self.config.rollout.temperature;
        let decoder = &self.loaded.decoder;
        if let Some(reference) = &self.reference {
            let found =
                sequence_log_probs(decoder, reference, &sequences, temperature, budget, stop)?;
            for (sequence, log_probs) in sequences.iter_mut().zip(found) {
                sequence.reference_log_probs = Some(log_probs);
            }
        }
        let per_update = self.trajectories_per_update(sequences.len());
        if per_update < sequences.len() || self.config.grpo.epochs_per_step > 1 {
            let weights = self.loaded.policy.detached_weights();
            let found =
                sequence_log_probs(decoder, &weights, &sequences, temperature, budget, stop)?;
            for (sequence, log_probs) in sequences.iter_mut().zip(found) {
                sequence.old_log_probs = Some(log_probs);
            }
        }
        Ok(sequences)
    }

    fn trajectories_per_update(&self, available: usize) -> usize {
        match self.config.grpo.trajectories_per_update {
            0 => available.max(1),
            limit => limit,
        }
    }

    /// All updates of a step; returns mean statistics, mean gradient norm and last learning rate.
    /// Stops only before the first one is made: no run could go on from weights between two.
    pub(super) fn update(
        &mut self,
        sequences: &[TrainSequence],
        stop: &StopFlag,
    ) -> anyhow::Result<(PolicyUpdateStatistics, f64, f64)> {
        let config = self.config;
        let update_config = policy_update_config(config);
        let per_update = self.trajectories_per_update(sequences.len());
        let mut mean = PolicyUpdateStatistics::default();
        let (mut norms, mut learning_rate, mut updates) = (0.0, 0.0, 0.0);
        let mut stop = stop.clone();
        for _ in 0..config.grpo.epochs_per_step {
            for batch in sequences.chunks(per_update) {
                let mut batch = batch.to_vec();
                let trained: Vec<usize> = batch.iter().map(TrainSequence::trained_tokens).collect();
                let weights = token_weights(aggregation(config), &trained);
                for (sequence, weight) in batch.iter_mut().zip(weights) {
                    sequence.weight = weight;
                }
                let LoadedModel { policy, decoder, .. } = &self.loaded;
                let statistics = policy_gradient(policy, decoder, &batch, &update_config, &stop)?;
                let update = self.optimizer.updates;
                learning_rate =
                    warmed_up(config.grpo.learning_rate, config.grpo.warmup_updates, update);
                norms +=
                    apply_gradient(config, &mut self.loaded, &mut self.optimizer, learning_rate)?;
                stop = StopFlag::never();
                if updates == 0.0 {
                    // Later updates have moved away from the sampler: only here is it a gap.
                    mean.log_prob_gap = statistics.log_prob_gap;
                }
                mean.policy_loss += statistics.policy_loss;
                mean.kl += statistics.kl;
                mean.entropy += statistics.entropy;
                mean.clip_fraction += statistics.clip_fraction;
                updates += 1.0;
            }
        }
        if updates > 0.0 {
            for sum in [
                &mut mean.policy_loss,
                &mut mean.kl,
                &mut mean.entropy,
                &mut mean.clip_fraction,
                &mut norms,
            ] {
                *sum /= updates;
            }
        }
        Ok((mean, norms, learning_rate))
    }
}

fn policy_update_config(config: &Config) -> PolicyUpdateConfig {
    let grpo = &config.grpo;
    PolicyUpdateConfig {
        clip: ClipRange { low: grpo.clip_low, high: grpo.clip_high },
        kl_coefficient: grpo.kl_coefficient,
        kl_estimator: match grpo.kl_estimator {
            KlChoice::K1 => KlEstimator::K1,
            KlChoice::Abs => KlEstimator::Abs,
            KlChoice::K2 => KlEstimator::K2,
            KlChoice::K3 => KlEstimator::K3,
        },
        entropy_coefficient: grpo.entropy_coefficient,
        temperature: config.rollout.temperature,
        tokens_per_micro_batch: config.update.tokens_per_micro_batch,
    }
}

fn aggregation(config: &Config) -> Aggregation {
    match config.grpo.loss_aggregation {
        LossAggregation::TokenMean => Aggregation::TokenMean,
        LossAggregation::SeqMeanTokenMean => Aggregation::SequenceMeanTokenMean,
        LossAggregation::SeqMeanTokenSum => Aggregation::SequenceMeanTokenSum,
    }
}
