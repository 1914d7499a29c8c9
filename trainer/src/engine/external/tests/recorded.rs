//! Requests that a real vLLM answered, and its answers.

use serde_json::Value;

use super::super::protocol::{Call, TurnEnding, TurnRequest, weights_name};
use super::*;

fn recorded() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/vllm-answers.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[track_caller]
fn assert_same(call: &Call, recorded: &Value) {
    assert_eq!(recorded["method"], call.method.as_str());
    assert_eq!(recorded["path"], call.path);
    assert_eq!(recorded["body"], call.body);
    assert_eq!(recorded["status"], 200);
}

#[test]
fn our_requests_are_those_that_were_answered() {
    let recorded = recorded();
    let turn = TurnRequest {
        prompt: vec![504, 3575, 282, 4649, 314],
        max_new_tokens: 12,
        sampling: Sampling { temperature: 0.0, top_p: 1.0 },
        seed: 7,
        stop_at: Vec::new(),
        end_ids: Vec::new(),
    };
    let dialect = Dialect::Vllm;
    assert_same(&dialect.generate(&turn, "policy"), &recorded["length"]);
    assert_same(&dialect.ask_served(), &recorded["served"]);
    assert_same(&dialect.ask_weights(), &recorded["weights_at_first"]);
    let steps = recorded["update"].as_array().unwrap();
    let folder = steps[1]["body"]["kwargs"]["weights_path"].as_str().unwrap();
    let update = dialect.update(folder, "run-1");
    assert_eq!(steps.len(), update.calls.len() + 1);
    for (call, step) in update.calls.iter().chain([&update.resume]).zip(steps) {
        assert_same(call, step);
    }
}

#[test]
fn answers_are_read() {
    let recorded = recorded();
    let read = |name: &str| Dialect::Vllm.read(&recorded[name]["answer"]).unwrap();
    let length = read("length");
    assert_eq!(
        (length.ending, length.token_ids.len(), length.log_probs.len()),
        (TurnEnding::Length, 12, 12)
    );
    assert!((length.log_probs[0] + 0.265_976).abs() < 1e-5);
    let stopped = read("stop_token");
    assert_eq!(
        (stopped.ending, &stopped.token_ids[..]),
        (TurnEnding::Stop, &length.token_ids[..3])
    );
    // The weights were replaced, and then the first ones were loaded again.
    assert!((read("after_update").log_probs[0] - length.log_probs[0]).abs() > 1e-3);
    assert_eq!(read("after_update_back"), length);
    // The same seed gives the same sample.
    assert_eq!(read("sampled"), read("sampled_again"));
    // By default, vLLM reports log-probs before the temperature.
    assert!((read("cooler").log_probs[0] - length.log_probs[0]).abs() < 1e-6);
    let weights = |name: &str| weights_name(&recorded[name]["answer"]).unwrap();
    assert_eq!(
        (weights("weights_at_first").as_str(), weights("weights_after").as_str()),
        ("default", "run-1")
    );
    let served = Dialect::Vllm.read_served(&recorded["served"]["answer"]).unwrap();
    assert_eq!((served.model.as_str(), served.max_context_tokens), ("policy", Some(1024)));
}

/// The text is cut at the stop string, but the ids include the whole last token: everything that the model
/// sampled is kept.
#[test]
fn the_token_that_completes_a_stop_string_is_kept_whole() {
    let recorded = recorded();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache/models/smollm2-135m-instruct");
    let tokenizer = Tokenizer::from_folder(Path::new(folder)).unwrap();
    let tag = recorded["stop_string"]["body"]["stop"][0].as_str().unwrap().to_owned();
    let cut = recorded["stop_string"]["answer"]["choices"][0]["text"].as_str().unwrap();
    let sampled = Dialect::Vllm.read(&recorded["stop_string"]["answer"]).unwrap();
    let ids = sampled.token_ids.clone();
    let rule = StopRule { stop_at: vec![tag.clone()], cut_after: Vec::new() };
    let (turn, stop) = replay(request(0, "Q", rule), sampled, 100, &tokenizer).unwrap();
    assert_eq!((stop, &turn.token_ids), (StopReason::Tag(tag.clone()), &ids));
    let whole = tokenizer.decode(&ids).unwrap();
    assert!(cut.ends_with(&tag) && whole.starts_with(cut) && whole.len() > cut.len(), "{whole:?}");
}

#[test]
fn an_invalid_answer_is_refused_with_the_value_found() {
    let recorded = recorded();
    let mut answer = recorded["length"]["answer"].clone();
    let refusal = |answer: &Value| Dialect::Vllm.read(answer).unwrap_err();
    answer["choices"][0]["token_ids"][0] = (-1).into();
    assert!(refusal(&answer).contains("token_ids"));
    let mut answer = recorded["length"]["answer"].clone();
    answer["choices"][0]["logprobs"]["token_logprobs"][0] = Value::Null;
    assert!(refusal(&answer).contains("null is not a log-prob"));
    answer["choices"][0]["logprobs"] = Value::Null;
    assert!(refusal(&answer).contains("logprobs is null"));
    let mut answer = recorded["length"]["answer"].clone();
    answer["choices"][0]["token_ids"] = serde_json::json!([1]);
    assert!(refusal(&answer).contains("1 token ids came with 12 log-probs"));
    assert!(refusal(&recorded["too_long"]["answer"]).contains("choices is null"));
}
