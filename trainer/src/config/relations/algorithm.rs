//! Conflicts between parts of an algorithm.

use super::super::choice::{KlControllerKind, KlPlacement, PolicyLossKind};
use super::super::sections::Config;
use super::super::value::quoted;
use super::{KeyConflict, conflict};
use crate::algo::Aggregation;

/// Returns all conflicts between settings of the algorithm.
pub(super) fn conflicts(config: &Config) -> Vec<KeyConflict> {
    let mut conflicts = Vec::new();
    groups(config, &mut conflicts);
    carried(config, &mut conflicts);
    ahead(config, &mut conflicts);
    losses(config, &mut conflicts);
    divergence(config, &mut conflicts);
    critic(config, &mut conflicts);
    overlong(config, &mut conflicts);
    conflicts
}

fn groups(config: &Config, conflicts: &mut Vec<KeyConflict>) {
    let advantage = config.algorithm.advantage;
    if advantage.compares_groups() {
        if config.training.group_size < 2 {
            conflicts.push(conflict(
                "training.group_size",
                &config.training.group_size,
                format!(
                    "leaves nothing to compare: `algorithm.advantage` = {} compares the \
                     trajectories of a question",
                    quoted(advantage.as_str())
                ),
                Some("2".to_owned()),
            ));
        }
        return;
    }
    let reason = format!(
        "selects groups, which `algorithm.advantage` = {} does not compare",
        quoted(advantage.as_str())
    );
    for (key, is_on) in [
        ("algorithm.dynamic_sampling", config.algorithm.dynamic_sampling),
        ("training.skip_uniform_groups", config.training.skip_uniform_groups),
    ] {
        if is_on {
            conflicts.push(conflict(key, &true, reason.clone(), Some("false".to_owned())));
        }
    }
}

/// Refuses rollouts that run ahead if a step's questions depend on earlier steps: the step's number must decide
/// them.
fn ahead(config: &Config, conflicts: &mut Vec<KeyConflict>) {
    let value = &config.rollout.max_staleness;
    if *value == 0 {
        return;
    }
    for (is_on, reason) in [
        (
            config.rollout.carried_groups > 0,
            "plans whole steps, but `rollout.carried_groups` leaves groups to the next step",
        ),
        (
            config.algorithm.dynamic_sampling,
            "plans steps before `algorithm.dynamic_sampling` = true decides which groups to replace",
        ),
    ] {
        if is_on {
            let remedy = Some("0".to_owned());
            conflicts.push(conflict("rollout.max_staleness", value, reason.to_owned(), remedy));
        }
    }
}

/// Refuses carried groups where a step must not depend on which groups are slow.
fn carried(config: &Config, conflicts: &mut Vec<KeyConflict>) {
    if config.rollout.carried_groups == 0 {
        return;
    }
    for (is_on, reason) in [
        (config.deterministic, "depends on time, which `deterministic` = true excludes"),
        (
            config.algorithm.dynamic_sampling,
            "ends a rollout early, but `algorithm.dynamic_sampling` = true starts further ones",
        ),
    ] {
        if is_on {
            let value = &config.rollout.carried_groups;
            let remedy = Some("0".to_owned());
            conflicts.push(conflict("rollout.carried_groups", value, reason.to_owned(), remedy));
        }
    }
}

fn losses(config: &Config, conflicts: &mut Vec<KeyConflict>) {
    let algorithm = &config.algorithm;
    let loss = algorithm.policy_loss;
    let aggregation = config.training.loss_aggregation;
    if loss.is_of_sequences() && aggregation != Aggregation::SequenceMeanTokenMean {
        conflicts.push(conflict(
            "training.loss_aggregation",
            &quoted(aggregation.as_str()),
            format!(
                "does not fit `algorithm.policy_loss` = {}, a loss of whole trajectories",
                quoted(loss.as_str())
            ),
            Some(quoted(Aggregation::SequenceMeanTokenMean.as_str())),
        ));
    }
    if algorithm.dual_clip > 0.0 && loss != PolicyLossKind::Clip {
        conflicts.push(conflict(
            "algorithm.dual_clip",
            &algorithm.dual_clip,
            format!(
                "is for `algorithm.policy_loss` = \"clip\" only, not {}",
                quoted(loss.as_str())
            ),
            Some("0.0".to_owned()),
        ));
    }
    if algorithm.dual_clip > 0.0 && algorithm.dual_clip <= 1.0 {
        conflicts.push(conflict(
            "algorithm.dual_clip",
            &algorithm.dual_clip,
            "would bound the loss of unchanged probabilities; accepted is a number above 1, or 0"
                .to_owned(),
            Some("3.0".to_owned()),
        ));
    }
    if algorithm.norm_tokens > 0 && aggregation != Aggregation::SequenceMeanTokenSumNorm {
        conflicts.push(conflict(
            "algorithm.norm_tokens",
            &algorithm.norm_tokens,
            format!(
                "is for `training.loss_aggregation` = \"seq-mean-token-sum-norm\" only, not {}",
                quoted(aggregation.as_str())
            ),
            Some("0".to_owned()),
        ));
    }
}

fn divergence(config: &Config, conflicts: &mut Vec<KeyConflict>) {
    let algorithm = &config.algorithm;
    if algorithm.kl_placement == KlPlacement::Reward && config.training.kl_coefficient <= 0.0 {
        conflicts.push(conflict(
            "algorithm.kl_placement",
            &quoted("reward"),
            "needs `training.kl_coefficient` above 0: there is no divergence to subtract"
                .to_owned(),
            Some(quoted("loss")),
        ));
    }
    if algorithm.kl_controller == KlControllerKind::Adaptive
        && algorithm.kl_placement != KlPlacement::Reward
    {
        conflicts.push(conflict(
            "algorithm.kl_controller",
            &quoted("adaptive"),
            "controls the divergence in the reward: it needs `algorithm.kl_placement` = \"reward\""
                .to_owned(),
            Some(quoted("fixed")),
        ));
    }
}

fn critic(config: &Config, conflicts: &mut Vec<KeyConflict>) {
    let steps = config.critic.warmup_steps;
    let advantage = config.algorithm.advantage;
    if steps > 0 && !advantage.has_critic() {
        conflicts.push(conflict(
            "critic.warmup_steps",
            &steps,
            format!(
                "needs a critic; `algorithm.advantage` = {} does not have one, \"gae\" does",
                quoted(advantage.as_str())
            ),
            Some("0".to_owned()),
        ));
    } else if steps >= config.training.steps {
        conflicts.push(conflict(
            "critic.warmup_steps",
            &steps,
            format!("leaves the policy untrained: `training.steps` = {}", config.training.steps),
            Some((config.training.steps - 1).to_string()),
        ));
    }
}

fn overlong(config: &Config, conflicts: &mut Vec<KeyConflict>) {
    let algorithm = &config.algorithm;
    let limit = config.overlong_limit_tokens();
    if algorithm.overlong_buffer_tokens > limit {
        conflicts.push(conflict(
            "algorithm.overlong_buffer_tokens",
            &algorithm.overlong_buffer_tokens,
            format!("exceeds the limit of {limit} tokens that it ends at"),
            Some(limit.to_string()),
        ));
    }
}

/// Returns the warnings about settings of the algorithm.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let algorithm = &config.algorithm;
    let training = &config.training;
    let mut warnings = Vec::new();
    let one_update = training.trajectories_per_update == 0 && training.epochs_per_step == 1;
    if config.rollout.max_staleness > 0 && algorithm.importance_most == 0.0 {
        warnings.push(format!(
            "`algorithm.importance_most` = 0 with `rollout.max_staleness` = {}: nothing corrects for the \
             older policy that samples; set it to 2",
            config.rollout.max_staleness
        ));
    }
    if algorithm.likelihood_coefficient > 0.0 && one_update {
        warnings.push(
            "`algorithm.likelihood_coefficient` has no effect with one update per step: nothing has \
             become less likely yet; set `training.trajectories_per_update` or `training.epochs_per_step`"
                .to_owned(),
        );
    }
    if config.algorithm.policy_loss == PolicyLossKind::Reinforce && !one_update {
        warnings.push(
            "`algorithm.policy_loss` = \"reinforce\" uses no probability ratio: all updates of a step \
             except the first are biased"
                .to_owned(),
        );
    }
    warnings
}

impl Config {
    /// Returns the maximum number of tokens that an episode can sample.
    pub fn sampled_tokens_most(&self) -> usize {
        (self.rollout.max_turns + 1).saturating_mul(self.rollout.max_response_tokens)
    }

    /// Returns the length of the longest episode that the limits of its parts allow.
    pub fn episode_tokens_most(&self) -> usize {
        let rollout = &self.rollout;
        let observations = rollout.max_turns.saturating_mul(rollout.max_observation_tokens);
        rollout
            .max_prompt_tokens
            .saturating_add(self.sampled_tokens_most())
            .saturating_add(observations)
    }

    /// Returns the context length of an episode with a model that allows `model_limit` tokens.
    pub fn context_tokens(&self, model_limit: usize) -> usize {
        match self.rollout.max_context_tokens {
            0 => self.episode_tokens_most(),
            limit => limit,
        }
        .min(model_limit)
    }

    /// Returns the number of sampled tokens at which the length penalty reaches its full size.
    pub fn overlong_limit_tokens(&self) -> usize {
        match self.algorithm.overlong_limit_tokens {
            0 => self.sampled_tokens_most(),
            limit => limit,
        }
    }

    /// Returns the constant of "seq-mean-token-sum-norm".
    pub fn norm_tokens(&self) -> usize {
        match self.algorithm.norm_tokens {
            0 => self.sampled_tokens_most(),
            tokens => tokens,
        }
    }
}
