//! Checks between keys, in addition to each key's own range.

mod algorithm;
mod data;
mod engine;
mod keeping;
mod reward;

use shared::contract::client::{NAME_PREFIX, listed};

use super::problem::ProblemKind;
use super::sections::{Config, LoraConfig};
use super::value::{ConfigValue, quoted};
use crate::search::record::RecordMode;

/// A key, and the conflict that its value causes.
pub(super) type KeyConflict = (&'static str, ProblemKind);

fn conflict(
    key: &'static str,
    value: &dyn ToString,
    reason: String,
    nearest: Option<String>,
) -> KeyConflict {
    let kind =
        ProblemKind::Conflict { key: key.to_owned(), value: value.to_string(), reason, nearest };
    (key, kind)
}

/// Returns all conflicts in `config`.
pub(super) fn conflicts(config: &Config) -> Vec<KeyConflict> {
    let mut conflicts = Vec::new();
    let step_trajectories =
        config.training.prompts_per_step.saturating_mul(config.training.group_size);
    let per_update = config.training.trajectories_per_update;
    if per_update > step_trajectories {
        conflicts.push(conflict(
            "training.trajectories_per_update",
            &per_update,
            format!(
                "exceeds the {step_trajectories} trajectories of a step \
                 (`training.prompts_per_step` times `training.group_size`)"
            ),
            Some(step_trajectories.to_string()),
        ));
    }
    if config.deterministic && config.threads > 1 {
        conflicts.push(conflict(
            "threads",
            &config.threads,
            "contradicts `deterministic` = true, which computes on one thread".to_owned(),
            Some("1".to_owned()),
        ));
    }
    let retriever = &config.retriever;
    if retriever.attempt_timeout_ms > retriever.deadline_ms {
        conflicts.push(conflict(
            "retriever.attempt_timeout_ms",
            &retriever.attempt_timeout_ms,
            format!("is longer than `retriever.deadline_ms` = {}", retriever.deadline_ms),
            Some(retriever.deadline_ms.to_string()),
        ));
    }
    let rollout = &config.rollout;
    if rollout.max_passage_tokens > rollout.max_observation_tokens {
        conflicts.push(conflict(
            "rollout.max_passage_tokens",
            &rollout.max_passage_tokens,
            format!(
                "exceeds `rollout.max_observation_tokens` = {}",
                rollout.max_observation_tokens
            ),
            Some(rollout.max_observation_tokens.to_string()),
        ));
    }
    let context = rollout.max_context_tokens;
    if context > 0 && context <= rollout.max_prompt_tokens {
        conflicts.push(conflict(
            "rollout.max_context_tokens",
            &context,
            format!(
                "leaves no space after a prompt of `rollout.max_prompt_tokens` = {}",
                rollout.max_prompt_tokens
            ),
            Some("0".to_owned()),
        ));
    }
    conflicts.extend(algorithm::conflicts(config));
    conflicts.extend(data::conflicts(config));
    adapters(config, &mut conflicts);
    conflicts.extend(engine::conflicts(config));
    conflicts.extend(keeping::conflicts(config));
    conflicts.extend(reward::conflicts(config));
    conflicts.extend(retriever_url(retriever.url.as_str()));
    let record = &config.record;
    if !record.source.is_empty() && record.mode != RecordMode::Replay {
        let reason = format!("chooses what is replayed, and `record.mode` = \"{}\"", record.mode);
        let nearest = Some(quoted(""));
        conflicts.push(conflict("record.source", &quoted(&record.source), reason, nearest));
    }
    addresses(config, &mut conflicts);
    conflicts
}

/// Refuses addresses of servers without a scheme.
fn addresses(config: &Config, conflicts: &mut Vec<KeyConflict>) {
    let addresses = [
        ("retriever.otlp_endpoint", &config.retriever.otlp_endpoint),
        ("tracking.mlflow_url", &config.tracking.mlflow_url),
        ("tracking.trackio_url", &config.tracking.trackio_url),
    ];
    for (key, address) in addresses {
        if !address.is_empty() && !has_http_scheme(address) {
            let reason = "does not begin with http:// or https://".to_owned();
            let nearest = Some(quoted(&format!("http://{address}")));
            conflicts.push(conflict(key, &quoted(address), reason, nearest));
        }
    }
}

fn retriever_url(url: &str) -> Option<KeyConflict> {
    let has_scheme = |part: &str| has_http_scheme(part.strip_prefix(NAME_PREFIX).unwrap_or(part));
    let parts: Vec<&str> = listed(url).collect();
    let (reason, nearest) = if parts.len() > 1 {
        let wrong = parts.iter().find(|part| !has_scheme(part))?;
        (format!("has {}, which does not begin with http:// or https://", quoted(wrong)), None)
    } else if has_scheme(parts.first().unwrap_or(&"")) {
        return None;
    } else {
        let (prefix, plain) = match url.strip_prefix(NAME_PREFIX) {
            Some(plain) => (NAME_PREFIX, plain),
            None => ("", url),
        };
        let host = plain.rsplit_once("//").map_or(plain, |(_, host)| host);
        let nearest = (!host.is_empty()).then(|| quoted(&format!("{prefix}http://{host}")));
        ("does not begin with http:// or https://".to_owned(), nearest)
    };
    Some(conflict("retriever.url", &quoted(url), reason, nearest))
}

/// Refuses settings of adapters in a configuration without adapters.
fn adapters(config: &Config, conflicts: &mut Vec<KeyConflict>) {
    let (lora, default) = (&config.lora, LoraConfig::default());
    if lora.rank > 0 {
        return;
    }
    let alpha = changed(&lora.alpha, &default.alpha);
    let targets = changed(&lora.targets, &default.targets);
    let rslora = changed(&lora.rslora, &default.rslora);
    let merged = changed(&lora.merge_on_save, &default.merge_on_save);
    for (key, values) in [
        ("lora.alpha", alpha),
        ("lora.targets", targets),
        ("lora.rslora", rslora),
        ("lora.merge_on_save", merged),
    ] {
        if let Some((value, nearest)) = values {
            let reason = "needs adapters, and `lora.rank` = 0 trains none".to_owned();
            conflicts.push(conflict(key, &value, reason, Some(nearest)));
        }
    }
}

/// Returns a value and its default as TOML, if they differ.
fn changed<V: ConfigValue + PartialEq>(value: &V, default: &V) -> Option<(String, String)> {
    (value != default).then(|| {
        let shown = |value: &V| value.to_toml().expect("values of adapters are always set");
        (shown(value), shown(default))
    })
}

fn has_http_scheme(url: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| url.len() > scheme.len() && url.starts_with(scheme))
}

impl Config {
    /// Returns settings that are allowed but probably unintended, one line each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.rollout.top_p < 1.0 {
            warnings.push(format!(
                "`rollout.top_p` = {} does not sample from the distribution that is trained, so \
                 probability ratios are biased; set it to 1",
                self.rollout.top_p
            ));
        }
        if self.rollout.max_response_tokens > self.update.tokens_per_micro_batch {
            warnings.push(format!(
                "`update.tokens_per_micro_batch` = {} is less than one turn may sample (`rollout.\
                 max_response_tokens` = {}): long trajectories get a pass of their own and need more memory",
                self.update.tokens_per_micro_batch, self.rollout.max_response_tokens
            ));
        }
        warnings.extend(algorithm::warnings(self));
        warnings.extend(engine::warnings(self));
        warnings
    }
}
