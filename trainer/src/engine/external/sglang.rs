//! SGLang's HTTP interface in version 0.5.23: `/generate` with token ids, and `/update_weights_from_disk`.

use serde_json::{Value, json};

use super::protocol::{
    Call, SampledTurn, ServedModel, TurnEnding, TurnRequest, WeightUpdate, ids_at, log_prob,
    text_at,
};

/// Every sampling setting is sent. SGLang reads missing ones from the model folder's `generation_config.json`,
/// and would then sample from another distribution than the trained one.
pub(super) fn generate(turn: &TurnRequest) -> Call {
    let sampling = json!({
        "max_new_tokens": turn.max_new_tokens,
        "temperature": turn.sampling.temperature,
        "top_p": turn.sampling.top_p,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "sampling_seed": turn.seed,
        "n": 1,
        "stop": turn.stop_at,
        "stop_token_ids": turn.end_ids,
        "no_stop_trim": true,
        "skip_special_tokens": false,
        "spaces_between_special_tokens": false,
    });
    let body = json!({
        "input_ids": turn.prompt,
        "sampling_params": sampling,
        "return_logprob": true,
        "logprob_start_len": -1,
        "stream": false,
    });
    Call::post("/generate", body)
}

pub(super) fn read(answer: &Value) -> Result<SampledTurn, String> {
    let meta = &answer["meta_info"];
    let ending = match text_at(&meta["finish_reason"], "type")? {
        "stop" => TurnEnding::Stop,
        "length" => TurnEnding::Length,
        "abort" => TurnEnding::Aborted,
        other => {
            return Err(format!("finish_reason.type is {other:?}, expected stop, length or abort"));
        }
    };
    let token_ids = ids_at(answer, "output_ids")?;
    let listed = meta["output_token_logprobs"].as_array().cloned().unwrap_or_default();
    let mut log_probs = Vec::with_capacity(listed.len());
    for (entry, &token) in listed.iter().zip(&token_ids) {
        if entry[1].as_u64() != Some(u64::from(token)) {
            return Err(format!(
                "the log-prob {entry} belongs to another token than the sampled {token}"
            ));
        }
        log_probs.push(log_prob(&entry[0])?);
    }
    let weights = meta["weight_version"].as_str().map(str::to_owned);
    Ok(SampledTurn { token_ids, log_probs, ending, weights })
}

pub(super) fn ask_served() -> Call {
    Call::get("/model_info")
}

pub(super) fn read_served(answer: &Value) -> Result<ServedModel, String> {
    Ok(ServedModel { model: text_at(answer, "model_path")?.to_owned(), max_context_tokens: None })
}

/// Running turns are aborted, because nobody waits for them any more.
pub(super) fn update(folder: &str, name: &str) -> WeightUpdate {
    let load = json!({
        "model_path": folder,
        "weight_version": name,
        "abort_all_requests": true,
        "flush_cache": true,
    });
    WeightUpdate {
        calls: vec![
            Call::post("/pause_generation", json!({"mode": "abort"})),
            Call::post("/update_weights_from_disk", load),
        ],
        resume: Call::post("/continue_generation", json!({})),
    }
}

pub(super) fn refusal(answer: &Value) -> Option<String> {
    (answer["success"] == false).then(|| answer["message"].to_string())
}
