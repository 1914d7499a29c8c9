//! The report as JSON: the same facts as numbers, in bytes, tokens, operations and seconds.

use serde_json::{Map, Value, json};

use super::{Facts, Memory, ModelSource, Part, RetrieverReply, memory, plan, tokens, warnings};
use crate::config::Config;

/// Returns the output of `trainer lint --json`. Unknown values are `null`.
pub fn report_json(config: &Config, facts: &Facts) -> Value {
    let plan = plan(config);
    let [first, warmed, last] = plan.rates;
    let measured = facts.measured.map(|measured| {
        json!({
            "steps": measured.steps,
            "step_seconds": measured.step_seconds,
            "peak_memory_mib": measured.peak_mib,
        })
    });
    let (memory, work) = match &facts.model {
        ModelSource::Known(model) => {
            let context = config.context_tokens(model.config.max_positions);
            let tokens = tokens(config, model.config.parameter_count(), context);
            let work = json!({
                "context_tokens": context,
                "step_tokens_most": tokens.rollout,
                "rollout_operations": tokens.rollout_operations,
                "scoring_operations": tokens.scoring_operations,
                "update_operations": tokens.update_operations,
            });
            (memory_json(&memory(config, model)), work)
        }
        ModelSource::Unknown(_) => (Value::Null, Value::Null),
    };
    let unknown = match &facts.model {
        ModelSource::Known(_) => Value::Null,
        ModelSource::Unknown(reason) => json!(reason),
    };
    json!({
        "objective": config.objective_in_words(),
        "step": {
            "trajectories": plan.step_trajectories,
            "update_trajectories": plan.update_trajectories,
            "updates": plan.step_updates,
            "searches_most": plan.searches_most,
            "generations_most": plan.generations_most,
        },
        "run": {
            "steps": config.training.steps,
            "updates": plan.updates,
            "critic_updates": plan.critic_updates,
            "checkpoints": plan.checkpoints,
            "questions": facts.questions,
        },
        "learning_rate": {"first": first, "after_warmup": warmed, "last": last},
        "episode_tokens_most": config.episode_tokens_most(),
        "memory_bytes": memory,
        "work": work,
        "model_unknown": unknown,
        "retrievers": facts.retrievers.iter().map(retriever_json).collect::<Vec<_>>(),
        "measured": measured,
        "warnings": warnings(config, facts),
    })
}

fn retriever_json(reply: &RetrieverReply) -> Value {
    match reply {
        RetrieverReply::Silent(reason)
        | RetrieverReply::Unusable(reason)
        | RetrieverReply::Mixed(reason) => json!({"error": reason}),
        RetrieverReply::Passages { url, question, passages, milliseconds } => json!({
            "url": url,
            "question": question,
            "seconds": *milliseconds as f64 / 1000.0,
            "passages": passages,
        }),
    }
}

fn memory_json(memory: &Memory) -> Value {
    let phase = |parts: &[Part]| {
        let named = |part: &Part| (part.name.replace(' ', "_"), Value::from(part.bytes));
        Value::Object(parts.iter().map(named).collect::<Map<String, Value>>())
    };
    json!({
        "held": phase(&memory.held),
        "host": phase(&memory.host),
        "log_probs": phase(&memory.scoring),
        "update": phase(&memory.update),
        "checkpoint": phase(&memory.checkpoint),
    })
}
