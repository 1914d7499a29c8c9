//! The reward of a trajectory, the services that add to it, and the penalty for its length.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use shared::contract::retry::RetryPolicy;

use crate::algo::OverlongPenalty;
use crate::config::{Compat, Config};
use crate::reward::outside::{
    CORRECTNESS_TEMPLATE, EndpointSettings, JudgeRules, JudgeSettings, OutsideRewards,
    RUBRIC_TEMPLATE, ServiceSettings,
};
use crate::reward::{MeasureWeights, RewardReading, RewardRules, StructuredScores};
use crate::run::training::score::Scoring;

/// Name of the file of verdicts in a run's folder.
const VERDICTS_FILE: &str = "verdicts.jsonl";

/// Returns how `config` rewards a trajectory.
pub(crate) fn reward(config: &Config) -> RewardRules {
    let reward = &config.reward;
    let phrases = reward.abstentions.split(';').map(str::trim);
    RewardRules {
        kind: reward.kind,
        reading: match config.compat {
            Compat::None => RewardReading::Sampled,
            Compat::SearchR1 => RewardReading::Reference,
        },
        wrong_answer_score: reward.wrong_answer_score,
        structured: StructuredScores {
            structure: reward.structure_format_score,
            final_answer: reward.final_format_score,
            retrieval: reward.retrieval_score,
        },
        weights: MeasureWeights {
            kind: reward.kind_weight,
            exact_match: reward.em_weight,
            sub_exact_match: reward.sub_em_weight,
            f1: reward.f1_weight,
        },
        search_cost: reward.search_cost,
        abstentions: phrases.filter(|phrase| !phrase.is_empty()).map(str::to_owned).collect(),
        abstention_score: reward.abstention_score,
    }
}

/// Returns how `config` scores the trajectories of a training step, with the services that it names opened.
///
/// # Errors
/// A service that cannot be used, and a file of a judge that cannot be read.
pub(crate) fn scoring(config: &Config) -> anyhow::Result<Scoring> {
    let buffer_tokens = config.algorithm.overlong_buffer_tokens;
    Ok(Scoring {
        reward: reward(config),
        outside: outside(config)?.map(Arc::new),
        overlong: (buffer_tokens > 0).then(|| OverlongPenalty {
            limit_tokens: config.overlong_limit_tokens(),
            buffer_tokens,
            most: config.algorithm.overlong_penalty,
        }),
    })
}

fn outside(config: &Config) -> anyhow::Result<Option<OutsideRewards>> {
    let (own, judge) = (&config.reward_http, &config.judge);
    let service = (!own.url.is_empty()).then(|| ServiceSettings {
        endpoint: EndpointSettings {
            url: own.url.clone(),
            api_key: key_in(&own.api_key_variable),
            attempt_timeout: Duration::from_millis(own.attempt_timeout_ms),
            retry: retry(own.deadline_ms),
            max_in_flight: own.max_in_flight,
        },
        weight: own.weight,
        batch: own.batch,
    });
    let judge = if judge.url.is_empty() {
        None
    } else {
        let rubric = judge.rubric.as_deref().map(|path| text_of("judge.rubric", path));
        let rubric = rubric.transpose()?;
        let template = match &judge.template {
            Some(path) => text_of("judge.template", path)?,
            None if rubric.is_some() => RUBRIC_TEMPLATE.to_owned(),
            None => CORRECTNESS_TEMPLATE.to_owned(),
        };
        Some(JudgeSettings {
            endpoint: EndpointSettings {
                url: completions_of(&judge.url),
                api_key: key_in(&judge.api_key_variable),
                attempt_timeout: Duration::from_millis(judge.attempt_timeout_ms),
                retry: retry(judge.deadline_ms),
                max_in_flight: judge.max_in_flight,
            },
            weight: judge.weight,
            rules: JudgeRules {
                model: judge.model.clone(),
                template,
                rubric,
                max_tokens: judge.max_tokens,
            },
            verdicts: judge.verdicts.clone().unwrap_or_else(|| config.run_dir.join(VERDICTS_FILE)),
        })
    };
    if service.is_none() && judge.is_none() {
        return Ok(None);
    }
    Ok(Some(OutsideRewards::new(service, judge)?))
}

/// Returns the address of completions below a base address with or without `/v1`.
fn completions_of(url: &str) -> String {
    let base = url.trim_end_matches('/').trim_end_matches("/chat/completions");
    let version = if base.ends_with("/v1") { "" } else { "/v1" };
    format!("{base}{version}/chat/completions")
}

fn key_in(variable: &str) -> Option<String> {
    (!variable.is_empty()).then(|| std::env::var(variable).ok()).flatten()
}

fn retry(deadline_ms: u64) -> RetryPolicy {
    RetryPolicy { deadline: Duration::from_millis(deadline_ms), ..RetryPolicy::default() }
}

fn text_of(key: &str, path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{key} = {}", path.display()))
}
