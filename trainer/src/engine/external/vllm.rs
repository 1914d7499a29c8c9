//! vLLM's HTTP interface in version 0.32: `/v1/completions` with token ids, and the requests of its
//! development mode (`VLLM_SERVER_DEV_MODE=1`) that replace weights.

use serde_json::{Value, json};

use super::protocol::{
    Call, SampledTurn, ServedModel, TurnEnding, TurnRequest, WeightUpdate, ids_at, log_prob,
    text_at,
};

/// Every sampling setting is sent. vLLM reads missing ones from the model folder's `generation_config.json`,
/// and would then sample from another distribution than the trained one.
pub(super) fn generate(turn: &TurnRequest, model: &str) -> Call {
    let body = json!({
        "model": model,
        "prompt": turn.prompt,
        "max_tokens": turn.max_new_tokens,
        "temperature": turn.sampling.temperature,
        "top_p": turn.sampling.top_p,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "seed": turn.seed,
        "n": 1,
        "stream": false,
        "logprobs": 0,
        "return_token_ids": true,
        "stop": turn.stop_at,
        "stop_token_ids": turn.end_ids,
        "include_stop_str_in_output": true,
        // Stop strings are searched in the text, which would otherwise lack tags that are special tokens.
        "skip_special_tokens": false,
        "spaces_between_special_tokens": false,
    });
    Call::post("/v1/completions", body)
}

pub(super) fn read(answer: &Value) -> Result<SampledTurn, String> {
    let choice = &answer["choices"][0];
    if !choice.is_object() {
        return Err(format!("choices is {}, expected one choice", answer["choices"]));
    }
    let ending = match text_at(choice, "finish_reason")? {
        "stop" => TurnEnding::Stop,
        "length" => TurnEnding::Length,
        "abort" => TurnEnding::Aborted,
        other => return Err(format!("finish_reason is {other:?}, expected stop, length or abort")),
    };
    let token_ids = ids_at(choice, "token_ids")?;
    let log_probs = match choice["logprobs"]["token_logprobs"].as_array() {
        Some(values) => values.iter().map(log_prob).collect::<Result<_, _>>()?,
        // An aborted turn without a token has no log-probs.
        None if token_ids.is_empty() => Vec::new(),
        None => return Err(format!("logprobs is {}, expected token_logprobs", choice["logprobs"])),
    };
    Ok(SampledTurn { token_ids, log_probs, ending, weights: None })
}

pub(super) fn ask_served() -> Call {
    Call::get("/v1/models")
}

/// The first model is the one that the server was started with; adapters follow it.
pub(super) fn read_served(answer: &Value) -> Result<ServedModel, String> {
    let first = &answer["data"][0];
    let model = text_at(first, "id")?.to_owned();
    let max_context_tokens = first["max_model_len"].as_u64().map(|tokens| tokens as usize);
    Ok(ServedModel { model, max_context_tokens })
}

pub(super) fn ask_weights() -> Call {
    Call::get("/weight_info")
}

/// Running turns are aborted, because nobody waits for them any more.
pub(super) fn update(folder: &str, name: &str) -> WeightUpdate {
    let reload = json!({"method": "reload_weights", "kwargs": {"weights_path": folder}});
    WeightUpdate {
        calls: vec![
            Call::post("/pause?mode=abort", Value::Null),
            Call::post("/collective_rpc", reload),
            Call::post("/reset_prefix_cache", Value::Null),
            Call::post("/update_weight_version", json!({ "new_version": name })),
        ],
        resume: Call::post("/resume", Value::Null),
    }
}
