//! The guard against collapse, and the checkpoints that a run keeps.

use crate::checkpoint::Retention;
use crate::config::Config;
use crate::run::training::guard::{GuardSettings, Limits};

/// Returns how the guard judges steps.
pub(crate) fn guard(config: &Config) -> GuardSettings {
    let guard = &config.guard;
    GuardSettings {
        action: guard.action,
        patience_steps: guard.patience_steps,
        baseline_steps: guard.baseline_steps,
        limits: Limits {
            entropy_fall: guard.entropy_fall,
            max_entropy: guard.max_entropy,
            log_prob_drop: guard.log_prob_drop,
            max_kl: guard.max_kl,
            grad_norm_rise: guard.grad_norm_rise,
            uniform_share: guard.uniform_share,
            invalid_rise: guard.invalid_rise,
            searches_fall: guard.searches_fall,
            searches_rise: guard.searches_rise,
            abnormal_rise: guard.abnormal_rise,
        },
        delay_steps: config.rollout.max_staleness,
        learning_rate_factor: guard.learning_rate_factor,
        kl_factor: guard.kl_factor,
        max_rollbacks: guard.max_rollbacks,
        steps: config.training.steps as u64,
    }
}

/// Returns which checkpoints a run keeps.
pub(crate) fn retention(config: &Config) -> Retention {
    Retention { last: config.checkpoint.keep_last, best: config.checkpoint.keep_best }
}
