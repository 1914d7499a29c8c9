//! What is refused, and what is allowed but most likely not meant.

use super::{Facts, plan};
use crate::config::{Config, Origin, Problem, ProblemKind};

/// What cannot work with this model.
pub fn problems(config: &Config, facts: &Facts) -> Vec<Problem> {
    let Some(model) = facts.model.known() else { return Vec::new() };
    let positions = model.config.max_positions;
    let rollout = &config.rollout;
    let mut found = Vec::new();
    let mut refuse = |key: &str, value: usize, reason: &str, nearest: usize| {
        found.push(Problem {
            origin: Origin::Default,
            kind: ProblemKind::Conflict {
                key: key.to_owned(),
                value: value.to_string(),
                reason: format!("{reason} of the model (max_position_embeddings = {positions})"),
                nearest: Some(nearest.to_string()),
            },
        });
    };
    if rollout.max_prompt_tokens >= positions {
        let reason = "leaves no room for a turn within the positions";
        refuse("rollout.max_prompt_tokens", rollout.max_prompt_tokens, reason, positions / 2);
    }
    if rollout.max_context_tokens > positions {
        let reason = "exceeds the positions";
        refuse("rollout.max_context_tokens", rollout.max_context_tokens, reason, positions);
    }
    found
}

/// Key, value and what to do, one line each; what is known already comes first.
pub fn warnings(config: &Config, facts: &Facts) -> Vec<String> {
    let mut found = facts.warnings.clone();
    warmups(config, &mut found);
    if config.optimizer.offload && facts.model.known().is_some_and(|model| model.on_host) {
        found.push(
            "`optimizer.offload` = true changes nothing here: the model is in the host's memory; \
             leave it out"
                .to_owned(),
        );
    }
    let plan = plan(config);
    let left = plan.step_trajectories % plan.update_trajectories.max(1);
    if left > 0 {
        found.push(format!(
            "`training.trajectories_per_update` = {} does not divide the {} trajectories of a step: \
             those of its last update, {left}, weigh more; take a divisor",
            plan.update_trajectories, plan.step_trajectories
        ));
    }
    if let Some(questions) = facts.questions
        && questions < config.training.prompts_per_step
    {
        found.push(format!(
            "`training.prompts_per_step` = {} exceeds the {questions} questions of `data.train`: a step \
             asks some of them twice; take at most {questions}",
            config.training.prompts_per_step
        ));
    }
    let (rollout, most) = (&config.rollout, config.episode_tokens_most());
    let limit = facts.model.known().map_or(usize::MAX, |model| model.config.max_positions);
    let context = config.context_tokens(limit);
    if context < most {
        let by = if context == rollout.max_context_tokens {
            format!("`rollout.max_context_tokens` = {context}")
        } else {
            format!("the model's max_position_embeddings = {context}")
        };
        found.push(format!(
            "{by} is less than the {most} tokens of the longest episode: its later observations are \
             shortened or it ends early; lower `rollout.max_turns`, `rollout.max_response_tokens` or \
             `rollout.max_observation_tokens`"
        ));
    }
    let passages = config.retriever.top_k.saturating_mul(rollout.max_passage_tokens);
    if passages > rollout.max_observation_tokens {
        found.push(format!(
            "`rollout.max_observation_tokens` = {} is less than `retriever.top_k` x \
             `rollout.max_passage_tokens` = {passages}: long passages are cut further; raise it or \
             lower one of these",
            rollout.max_observation_tokens
        ));
    }
    found
}

fn warmups(config: &Config, found: &mut Vec<String>) {
    let plan = plan(config);
    let has_critic = config.algorithm.advantage.has_critic();
    for (key, warmup, updates, is_used) in [
        ("training", config.training.warmup_updates, plan.updates, true),
        ("critic", config.critic.warmup_updates, plan.critic_updates, has_critic),
    ] {
        if is_used && warmup as u64 > updates {
            found.push(format!(
                "`{key}.warmup_updates` = {warmup} is longer than the run, {updates} updates: \
                 `{key}.learning_rate` is never reached; take at most {updates}"
            ));
        }
    }
}
