//! Refused configurations. Each message names the key, the value and the accepted values.

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::golden;
use crate::policy::ModelConfig;

/// Applies `change` to a recorded configuration and returns the message with which it is refused.
#[track_caller]
fn refusal(checkpoint: &str, change: impl FnOnce(&mut Map<String, Value>)) -> String {
    let bytes = std::fs::read(golden::path(checkpoint).join("config.json")).unwrap();
    let mut config: Map<String, Value> = serde_json::from_slice(&bytes).unwrap();
    change(&mut config);
    let folder = TempDir::new().unwrap();
    let text = serde_json::to_vec(&config).unwrap();
    std::fs::write(folder.path().join("config.json"), text).unwrap();
    ModelConfig::read(folder.path()).unwrap_err().to_string()
}

/// Checks the messages of several changes. A case is a key, a value, and parts of the message besides the key.
#[track_caller]
fn check_refusals<const N: usize>(checkpoint: &str, cases: [(&str, Value, &[&str]); N]) {
    for (key, value, parts) in cases {
        let shown = value.to_string();
        let message = refusal(checkpoint, |config| {
            config.insert(key.to_owned(), value);
        });
        for part in ["config.json", key].iter().chain(parts) {
            assert!(message.contains(part), "{key} = {shown}: {part:?} is not in {message:?}");
        }
    }
}

#[test]
fn a_configuration_without_a_key_names_it() {
    let keys = [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "max_position_embeddings",
        "rms_norm_eps",
        "model_type",
    ];
    for key in keys {
        let message = refusal("llama-tiny-tied", |config| {
            config.remove(key).unwrap();
        });
        let expected = format!("config.json: {key} is missing; accepted: a");
        assert!(message.contains(&expected), "{message}");
    }
}

#[test]
fn impossible_dimensions_are_refused() {
    check_refusals(
        "llama-tiny-tied",
        [
            ("num_key_value_heads", json!(3), &["3", "accepted: a divisor of num_attention_heads"]),
            ("num_attention_heads", json!(0), &["0", "accepted: a whole number of at least 1"]),
            ("num_hidden_layers", json!(0), &["0", "accepted: a whole number of at least 1"]),
            ("vocab_size", json!(-1), &["-1", "accepted: a whole number of at least 1"]),
            ("hidden_size", json!(32.5), &["32.5", "accepted: a whole number of at least 1"]),
            ("head_dim", json!(7), &["7", "accepted: an even number"]),
            ("rms_norm_eps", json!("tiny"), &["tiny", "accepted: a number above 0"]),
        ],
    );
    let message = refusal("llama-tiny-tied", |config| {
        config.remove("head_dim");
        config.insert("num_attention_heads".to_owned(), json!(6));
        config.insert("num_key_value_heads".to_owned(), json!(2));
    });
    assert!(message.contains("num_attention_heads = 6"), "{message}");
    assert!(message.contains("accepted: a divisor of hidden_size"), "{message}");
}

#[test]
fn an_unsupported_architecture_is_refused_with_the_supported_ones() {
    let families = "accepted: llama, qwen2, qwen3, mistral, smollm3";
    check_refusals(
        "llama-tiny-tied",
        [
            ("model_type", json!("gemma3_text"), &["gemma3_text", families]),
            ("architectures", json!(["LlamaForSequenceClassification"]), &["LlamaForCausalLM"]),
            ("hidden_act", json!("gelu"), &["gelu", "accepted: silu"]),
            ("attention_bias", json!("yes"), &["yes", "accepted: true or false"]),
            ("attention_dropout", json!(0.1), &["0.1", "accepted: 0"]),
            ("quantization_config", json!({"bits": 4}), &["bits", "accepted: nothing", "BF16"]),
            ("partial_rotary_factor", json!(0.5), &["0.5", "accepted: 1"]),
        ],
    );
}

#[test]
fn unsupported_rotary_embeddings_are_refused() {
    let types = "accepted: default, linear, llama3 or yarn";
    for key in ["rope_scaling", "rope_parameters"] {
        let stretched = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0,
                               "high_freq_factor": 4.0});
        check_refusals(
            "llama-tiny-tied",
            [
                (
                    key,
                    json!({"rope_type": "dynamic", "factor": 2.0}),
                    &[".rope_type = dynamic", types],
                ),
                (key, json!({"type": "longrope"}), &[".type = longrope", types]),
                (key, json!({"rope_type": "linear"}), &[".factor is missing", "a number above 0"]),
                (key, json!({"rope_type": "linear", "factor": 0}), &[".factor = 0", "above 0"]),
                (key, stretched, &[".high_freq_factor = 4.0", "above low_freq_factor"]),
                (
                    key,
                    json!({"partial_rotary_factor": 0.5}),
                    &[".partial_rotary_factor = 0.5", "1"],
                ),
                (key, json!([2.0]), &["[2.0]", "accepted: null or an object"]),
            ],
        );
    }
}

#[test]
fn incomplete_descriptions_of_layers_are_refused() {
    let both = "full_attention or sliding_attention for each";
    let unset = "unless there is a sliding window";
    check_refusals(
        "qwen2-tiny",
        [
            ("layer_types", json!(["full_attention"]), &[both]),
            ("layer_types", json!(["full_attention", "chunked_attention"]), &["chunked", both]),
            ("layer_types", json!(["full_attention", "sliding_attention"]), &[unset]),
            ("use_sliding_window", json!(1), &["1", "accepted: true or false"]),
        ],
    );
    check_refusals(
        "smollm3-tiny",
        [
            ("no_rope_layers", json!([1, 1, 1]), &["0 or 1 for each of num_hidden_layers"]),
            ("no_rope_layers", json!([1, 1, 1, 2]), &["0 or 1 for each of num_hidden_layers"]),
        ],
    );
    check_refusals("mistral-tiny", [("sliding_window", json!(0), &["0", "at least 1"])]);
}
