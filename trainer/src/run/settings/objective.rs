//! Losses, advantages, divergence and optimizers.

use crate::algo::{
    AdvantageEstimator, ClipRange, Discount, GaeSteps, KlTarget, Objective, TokenEstimator,
};
use crate::config::{Compat, Config, KlControllerKind, KlPlacement, PolicyLossKind};
use crate::critic::CriticUpdateConfig;
use crate::run::learner::{CriticSettings, LearnerSettings, UpdateSchedule};
use crate::run::optimizer::{LearningRate, OptimizerSettings};
use crate::run::training::advantages::Estimator;
use crate::run::training::divergence::{Divergence, KlWeight};
use crate::run::training::score::Scoring;
use crate::update::{AdamWConfig, LikelihoodTerm, MomentsStorage, PolicyUpdateConfig};

use super::reward;

/// The rules of a step apart from its updates.
#[derive(Clone, Debug)]
pub(crate) struct StepSettings {
    pub(crate) scoring: Scoring,
    /// Leaves out groups whose rewards are all equal.
    pub(crate) drops_uniform_groups: bool,
    pub(crate) divergence: Divergence,
}

/// The settings of the warm start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WarmStart {
    pub(crate) seed: u64,
    pub(crate) demonstrations: usize,
    /// Share of the demonstrations that answer without a search.
    pub(crate) direct_fraction: f64,
    pub(crate) epochs: usize,
    pub(crate) trajectories_per_update: usize,
    pub(crate) rate: LearningRate,
    pub(crate) optimizer: OptimizerSettings,
    pub(crate) tokens_per_micro_batch: usize,
}

/// Returns the terms of the policy's loss.
pub(crate) fn policy_update(config: &Config) -> PolicyUpdateConfig {
    let (training, algorithm) = (&config.training, &config.algorithm);
    let in_loss = algorithm.kl_placement == KlPlacement::Loss;
    let likelihood = LikelihoodTerm {
        coefficient: algorithm.likelihood_coefficient,
        gate: algorithm.likelihood_gate,
    };
    PolicyUpdateConfig {
        objective: policy_loss(config),
        kl_coefficient: if in_loss { training.kl_coefficient } else { 0.0 },
        kl_estimator: training.kl_estimator,
        entropy_coefficient: training.entropy_coefficient,
        importance_most: (algorithm.importance_most > 0.0).then_some(algorithm.importance_most),
        likelihood: (likelihood.coefficient > 0.0).then_some(likelihood),
        temperature: config.rollout.temperature,
        tokens_per_micro_batch: config.update.tokens_per_micro_batch,
    }
}

fn policy_loss(config: &Config) -> Objective {
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

/// Returns the optimizer of the policy, of the critic and of the warm start.
pub(crate) fn optimizer(config: &Config) -> OptimizerSettings {
    let optimizer = &config.optimizer;
    OptimizerSettings {
        constants: AdamWConfig {
            beta1: optimizer.beta1,
            beta2: optimizer.beta2,
            epsilon: optimizer.epsilon,
            weight_decay: optimizer.weight_decay,
        },
        moments: if optimizer.offload {
            MomentsStorage::Host
        } else {
            MomentsStorage::WithParameters
        },
        max_grad_norm: optimizer.max_grad_norm,
    }
}

/// Returns how the policy and its critic learn.
pub(crate) fn learner(config: &Config) -> LearnerSettings {
    let training = &config.training;
    LearnerSettings {
        update: policy_update(config),
        schedule: UpdateSchedule {
            trajectories_per_update: training.trajectories_per_update,
            epochs: training.epochs_per_step,
        },
        aggregation: training.loss_aggregation,
        norm_tokens: config.norm_tokens(),
        rate: LearningRate {
            peak: training.learning_rate,
            warmup_updates: training.warmup_updates,
        },
        optimizer: optimizer(config),
        keeps_reference: training.kl_coefficient > 0.0,
        estimator: estimator(config),
    }
}

/// Returns how rewards become advantages, with the settings of the critic where there is one.
fn estimator(config: &Config) -> Estimator<CriticSettings> {
    let algorithm = &config.algorithm;
    match algorithm.advantage {
        AdvantageEstimator::Outcome(estimator) => {
            Estimator::Outcome { estimator, normalise_by_std: config.training.normalise_by_std }
        }
        AdvantageEstimator::Token(TokenEstimator::ReinforcePlusPlus) => {
            Estimator::ReinforcePlusPlus { gamma: algorithm.gamma }
        }
        AdvantageEstimator::Token(TokenEstimator::Gae) => Estimator::Gae {
            discount: Discount { gamma: algorithm.gamma, lambda: algorithm.lambda },
            steps: match config.compat {
                Compat::None => GaeSteps::Masked,
                Compat::SearchR1 => GaeSteps::All,
            },
            critic: CriticSettings {
                update: CriticUpdateConfig {
                    clip: config.critic.clip,
                    tokens_per_micro_batch: config.update.tokens_per_micro_batch,
                },
                rate: LearningRate {
                    peak: config.critic.learning_rate,
                    warmup_updates: config.critic.warmup_updates,
                },
                seed: config.seed,
                warmup_steps: config.critic.warmup_steps as u64,
            },
        },
    }
}

/// Returns the rules of a training step apart from its updates.
///
/// # Errors
/// Those of [`reward::scoring`].
pub(crate) fn step(config: &Config) -> anyhow::Result<StepSettings> {
    Ok(StepSettings {
        scoring: reward::scoring(config)?,
        drops_uniform_groups: config.algorithm.dynamic_sampling
            || config.training.skip_uniform_groups,
        divergence: match config.algorithm.kl_placement {
            KlPlacement::Loss => Divergence::InLoss,
            KlPlacement::Reward => Divergence::InReward(config.training.kl_estimator),
        },
    })
}

/// Returns the weight of the divergence before the first step.
pub(crate) fn kl_weight(config: &Config) -> KlWeight {
    let algorithm = &config.algorithm;
    let target = KlTarget { divergence: algorithm.kl_target, horizon: algorithm.kl_horizon as f64 };
    KlWeight {
        configured: config.training.kl_coefficient,
        adapted: None,
        scale: 1.0,
        target: match algorithm.kl_controller {
            KlControllerKind::Fixed => None,
            KlControllerKind::Adaptive => Some(target),
        },
    }
}

/// Returns how the warm start learns.
pub(crate) fn warm_start(config: &Config) -> WarmStart {
    let sft = &config.sft;
    WarmStart {
        seed: config.seed,
        demonstrations: sft.demonstrations,
        direct_fraction: sft.direct_fraction,
        epochs: sft.epochs,
        trajectories_per_update: sft.trajectories_per_update,
        rate: LearningRate { peak: sft.learning_rate, warmup_updates: sft.warmup_updates },
        optimizer: optimizer(config),
        tokens_per_micro_batch: config.update.tokens_per_micro_batch,
    }
}
