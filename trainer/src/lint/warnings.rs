//! Settings that are refused, and settings that are allowed but probably unintended.

use super::{Facts, RetrieverReply, plan};
use crate::config::{Config, Origin, Problem, ProblemKind, counted};

/// Returns the settings that cannot work with this model, or with this retriever.
pub fn problems(config: &Config, facts: &Facts) -> Vec<Problem> {
    let mut problems = Vec::new();
    for reply in &facts.retrievers {
        let reason = match reply {
            RetrieverReply::Unusable(reason) => format!("does not answer searches: {reason}"),
            RetrieverReply::Mixed(reason) => format!("is a mix: {reason}"),
            RetrieverReply::Passages { .. } | RetrieverReply::Silent(_) => continue,
        };
        let value = format!("{:?}", config.retriever.url.as_str());
        problems.push(Problem::of_value("retriever.url", value, reason));
    }
    let Some(model) = facts.model.known() else { return problems };
    let positions = model.config.max_positions;
    let rollout = &config.rollout;
    let mut refuse = |key: &str, value: usize, reason: &str, nearest: usize| {
        problems.push(Problem {
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
        let reason = "leaves no space for a turn within the positions";
        refuse("rollout.max_prompt_tokens", rollout.max_prompt_tokens, reason, positions / 2);
    }
    if rollout.max_context_tokens > positions {
        let reason = "exceeds the positions";
        refuse("rollout.max_context_tokens", rollout.max_context_tokens, reason, positions);
    }
    problems
}

/// Returns the warnings, one line each with key, value and remedy; those of `facts` come first.
pub fn warnings(config: &Config, facts: &Facts) -> Vec<String> {
    let mut warnings = facts.warnings.clone();
    warmups(config, &mut warnings);
    retrievers(config, facts, &mut warnings);
    if config.optimizer.offload && facts.model.known().is_some_and(|model| model.on_host) {
        warnings.push(
            "`optimizer.offload` = true has no effect: the model is in host memory; remove it"
                .to_owned(),
        );
    }
    let plan = plan(config);
    let left = plan.step_trajectories % plan.update_trajectories.max(1);
    if left > 0 {
        warnings.push(format!(
            "`training.trajectories_per_update` = {} does not divide the {} trajectories of a step: \
             the last update has only {left}, so they weigh more; use a divisor",
            plan.update_trajectories, plan.step_trajectories
        ));
    }
    if let Some(questions) = facts.questions
        && questions < config.training.prompts_per_step
    {
        warnings.push(format!(
            "`training.prompts_per_step` = {} exceeds the {questions} questions of `data.train`: a step \
             asks some of them twice; use at most {questions}",
            config.training.prompts_per_step
        ));
    }
    let (rollout, most) = (&config.rollout, config.episode_tokens_most());
    let limit = facts.model.known().map_or(usize::MAX, |model| model.config.max_positions);
    let context = config.context_tokens(limit);
    if context < most {
        let limit = if context == rollout.max_context_tokens {
            format!("`rollout.max_context_tokens` = {context}")
        } else {
            format!("the model's max_position_embeddings = {context}")
        };
        warnings.push(format!(
            "{limit} is less than the {most} tokens of the longest possible episode: its later observations are \
             shortened, or it ends early; lower `rollout.max_turns`, `rollout.max_response_tokens` or \
             `rollout.max_observation_tokens`"
        ));
    }
    let passages = config.retriever.top_k.saturating_mul(rollout.max_passage_tokens);
    if passages > rollout.max_observation_tokens {
        warnings.push(format!(
            "`rollout.max_observation_tokens` = {} is less than `retriever.top_k` x \
             `rollout.max_passage_tokens` = {passages}: long passages are cut further; raise it or \
             lower one of the others",
            rollout.max_observation_tokens
        ));
    }
    warnings
}

fn retrievers(config: &Config, facts: &Facts, warnings: &mut Vec<String>) {
    let (url, top_k) = (config.retriever.url.as_str(), config.retriever.top_k);
    for reply in &facts.retrievers {
        let warning = match reply {
            RetrieverReply::Silent(reason) => format!(
                "`retriever.url` = {url:?} was not checked: {reason}; start the retriever, or skip this with \
                 `--searches none`"
            ),
            RetrieverReply::Passages { passages, question, .. } if passages.is_empty() => format!(
                "`retriever.url` = {url:?} finds nothing for the question {question:?}: does it have the right \
                 corpus?"
            ),
            RetrieverReply::Passages { passages, .. } if passages.len() > top_k => format!(
                "`retriever.top_k` = {top_k} has no effect: the retriever sent {}",
                counted(passages.len() as u64, "passage")
            ),
            RetrieverReply::Passages { .. }
            | RetrieverReply::Unusable(_)
            | RetrieverReply::Mixed(_) => continue,
        };
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
}

fn warmups(config: &Config, warnings: &mut Vec<String>) {
    let plan = plan(config);
    let has_critic = config.algorithm.advantage.has_critic();
    for (key, warmup, updates, is_used) in [
        ("training", config.training.warmup_updates, plan.updates, true),
        ("critic", config.critic.warmup_updates, plan.critic_updates, has_critic),
    ] {
        if is_used && warmup as u64 > updates {
            warnings.push(format!(
                "`{key}.warmup_updates` = {warmup} is longer than the run, {}: \
                 `{key}.learning_rate` is never reached; use at most {updates}",
                counted(updates, "update")
            ));
        }
    }
}
