//! The number of updates, trajectories and tokens of a run.

use crate::config::{Config, KlPlacement};
use crate::update::warmed_up;

/// The counts of a run that trains on every trajectory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    pub step_trajectories: u64,
    pub update_trajectories: u64,
    pub step_updates: u64,
    /// Updates of the policy in the whole run.
    pub updates: u64,
    /// Updates of the critic; 0 without a critic.
    pub critic_updates: u64,
    pub searches_most: u64,
    pub generations_most: u64,
    /// Checkpoints that exist after the run.
    pub checkpoints: u64,
    /// Learning rates of the first update, the last update of the warm-up, and the last update of the run.
    pub rates: [f64; 3],
}

/// Counts the updates and trajectories that `config` requests.
pub fn plan(config: &Config) -> Plan {
    let training = &config.training;
    let steps = training.steps as u64;
    let step_updates = config.step_updates() as u64;
    let has_critic = config.algorithm.advantage.has_critic();
    let policy_steps = steps.saturating_sub(config.critic.warmup_steps as u64);
    let updates = step_updates.saturating_mul(policy_steps);
    let rate = |update: u64| warmed_up(training.learning_rate, training.warmup_updates, update);
    let warmed = (training.warmup_updates as u64).clamp(1, updates.max(1));
    let checkpoints = match training.save_every_steps as u64 {
        0 => 1,
        every => steps.div_ceil(every),
    };
    Plan {
        step_trajectories: config.step_trajectories() as u64,
        update_trajectories: config.update_trajectories() as u64,
        step_updates,
        updates,
        critic_updates: if has_critic { step_updates.saturating_mul(steps) } else { 0 },
        searches_most: config.rollout.max_turns as u64,
        generations_most: config.rollout.max_turns as u64 + 1,
        checkpoints,
        rates: [rate(0), rate(warmed - 1), rate(updates.saturating_sub(1))],
    }
}

/// Upper bounds on a step's tokens and operations, reached if every episode fills its context.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tokens {
    pub rollout: u64,
    /// Floating-point operations of sampling: 2 per parameter and token.
    pub rollout_operations: f64,
    /// Operations of log-probs and values without gradients: 2 per parameter and token, for each pass.
    pub scoring_operations: f64,
    /// Operations of forward and backward passes: 6 per parameter and token in each epoch, for policy and critic.
    pub update_operations: f64,
}

/// Computes the cost of a step with `parameters` and a context of `context_tokens`: 2 operations per parameter
/// and token forward and 4 backward (arXiv 2001.08361, section 2.1), without attention.
pub fn tokens(config: &Config, parameters: u64, context_tokens: usize) -> Tokens {
    let training = &config.training;
    let trajectories = config.step_trajectories() as u64;
    let rounds =
        if config.algorithm.dynamic_sampling { config.algorithm.sampling_rounds } else { 1 };
    let trained = trajectories.saturating_mul(context_tokens as u64);
    let rollout = trained.saturating_mul(rounds as u64);
    let forward = 2.0 * parameters as f64;
    let has_critic = config.algorithm.advantage.has_critic();
    let reference = training.kl_coefficient > 0.0;
    let old = config.step_updates() > 1 || config.algorithm.kl_placement == KlPlacement::Reward;
    let scorings = u8::from(reference) + u8::from(old) + u8::from(has_critic);
    let models = if has_critic { 2.0 } else { 1.0 };
    Tokens {
        rollout,
        rollout_operations: forward * rollout as f64,
        scoring_operations: forward * f64::from(scorings) * trained as f64,
        update_operations: 3.0
            * forward
            * models
            * training.epochs_per_step as f64
            * trained as f64,
    }
}
