//! Presets: named sets of values that replace the defaults. Files, variables and arguments override them.
//!
//! docs/algorithms.md lists the sources of the values and the values that are not known.

use super::choice::Preset;

type Values = &'static [(&'static str, &'static str)];

/// The values that all scripts of Search-R1 share.
const SEARCH_R1: Values = &[
    ("compat", "\"search-r1\""),
    ("retriever.top_k", "3"),
    ("rollout.max_prompt_tokens", "2048"),
    ("rollout.max_response_tokens", "500"),
    ("rollout.max_observation_tokens", "500"),
    ("rollout.max_context_tokens", "4096"),
    ("rollout.temperature", "1.0"),
    ("reward.kind", "\"em\""),
    ("optimizer.weight_decay", "0.01"),
    ("optimizer.max_grad_norm", "1.0"),
    ("training.prompts_per_step", "512"),
    ("training.trajectories_per_update", "256"),
    ("training.epochs_per_step", "1"),
    ("training.learning_rate", "1e-6"),
    ("training.clip_low", "0.2"),
    ("training.clip_high", "0.2"),
    ("training.kl_coefficient", "0.001"),
    ("training.entropy_coefficient", "0.001"),
    ("training.loss_aggregation", "\"token-mean\""),
    ("algorithm.policy_loss", "\"clip\""),
    ("algorithm.importance_most", "0.0"),
    ("training.save_every_steps", "100"),
];

/// Search-R1's GRPO scripts: five trajectories per question, ten updates per step.
const SEARCH_R1_GRPO: Values = &[
    ("algorithm.advantage", "\"grpo\""),
    ("algorithm.kl_placement", "\"loss\""),
    ("training.group_size", "5"),
    ("training.kl_estimator", "\"k3\""),
    // A default that the scripts do not set themselves.
    ("rollout.top_p", "0.95"),
];

/// PPO as in the paper's main table: one trajectory per question, two updates per step.
const PAPER: Values = &[
    ("algorithm.advantage", "\"gae\""),
    ("algorithm.gamma", "1.0"),
    ("algorithm.lambda", "1.0"),
    ("algorithm.kl_placement", "\"reward\""),
    ("algorithm.kl_controller", "\"fixed\""),
    ("critic.learning_rate", "1e-5"),
    // .015 and .285 of 500 steps, two updates each.
    ("critic.warmup_updates", "14"),
    ("training.warmup_updates", "284"),
    ("training.steps", "500"),
    ("training.group_size", "1"),
    ("training.kl_estimator", "\"k1\""),
    ("rollout.max_turns", "4"),
    ("rollout.top_p", "1.0"),
];

const V0_1: Values = &[
    // Its groups had one member each, so an advantage equalled the score.
    ("algorithm.advantage", "\"reinforce\""),
    ("training.steps", "305"),
    // .95 of 305 steps, ten updates each.
    ("training.warmup_updates", "2890"),
    ("rollout.max_turns", "2"),
];

const V0_2: Values = &[
    ("training.steps", "1005"),
    // .285 of 1005 steps, ten updates each.
    ("training.warmup_updates", "2860"),
    ("rollout.max_turns", "2"),
];

const V0_3: Values =
    &[("training.steps", "1005"), ("training.warmup_updates", "2860"), ("rollout.max_turns", "4")];

const V0_3_FORMAT: Values = &[
    ("training.learning_rate", "5e-7"),
    ("reward.kind", "\"structured\""),
    ("reward.structure_format_score", "0.2"),
    ("reward.final_format_score", "0.1"),
    ("reward.retrieval_score", "0.1"),
];

/// This project's choice: more trajectories per question, and the known measures against collapse.
const RECOMMENDED: Values = &[
    ("algorithm.advantage", "\"grpo\""),
    ("algorithm.policy_loss", "\"clip\""),
    ("algorithm.importance_most", "2.0"),
    ("algorithm.likelihood_coefficient", "0.1"),
    ("algorithm.likelihood_gate", "\"action\""),
    ("training.steps", "200"),
    ("training.prompts_per_step", "128"),
    ("training.group_size", "16"),
    ("training.trajectories_per_update", "512"),
    ("training.learning_rate", "1e-6"),
    // Ten steps of four updates.
    ("training.warmup_updates", "40"),
    ("training.clip_low", "0.2"),
    ("training.clip_high", "0.28"),
    ("training.kl_coefficient", "0.001"),
    ("training.kl_estimator", "\"k3\""),
    ("training.entropy_coefficient", "0.0"),
    ("training.loss_aggregation", "\"token-mean\""),
    ("training.skip_uniform_groups", "true"),
    ("rollout.max_turns", "4"),
    ("rollout.temperature", "1.0"),
    ("rollout.top_p", "1.0"),
];

/// Returns keys and their values as TOML; later values override earlier ones.
pub(super) fn values(preset: Preset) -> Vec<(&'static str, &'static str)> {
    let lists: &[Values] = match preset {
        Preset::None => &[],
        Preset::Paper => &[SEARCH_R1, PAPER],
        Preset::SearchR1V01 => &[SEARCH_R1, SEARCH_R1_GRPO, V0_1],
        Preset::SearchR1V02 => &[SEARCH_R1, SEARCH_R1_GRPO, V0_2],
        Preset::SearchR1V03 => &[SEARCH_R1, SEARCH_R1_GRPO, V0_3],
        Preset::SearchR1V03Format => &[SEARCH_R1, SEARCH_R1_GRPO, V0_3, V0_3_FORMAT],
        Preset::Recommended => &[RECOMMENDED],
    };
    lists.iter().copied().flatten().copied().collect()
}
