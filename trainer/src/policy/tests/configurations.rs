//! Configurations of published models, in the forms that several versions of transformers write.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::policy::{Biases, LayerConfig, ModelConfig, Rope, RopeScaling};

#[track_caller]
fn read(config: &Value) -> ModelConfig {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    ModelConfig::read(folder.path()).unwrap()
}

/// Applies `changes` to a copy of `base`.
fn changed(base: &Value, changes: &Value) -> Value {
    let mut config = base.clone();
    for (key, value) in changes.as_object().unwrap() {
        config[key.as_str()] = value.clone();
    }
    config
}

const FULL: LayerConfig = LayerConfig { rotary: true, window: None };

fn plain(theta: f64) -> Rope {
    Rope { theta, scaling: RopeScaling::Default }
}

/// The dimensions of Llama-3.2-1B.
fn llama() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": false,
        "attention_dropout": 0.0, "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048,
        "intermediate_size": 8192, "max_position_embeddings": 131_072, "mlp_bias": false,
        "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8,
        "pretraining_tp": 1, "rms_norm_eps": 1e-5, "rope_theta": 500_000.0,
        "tie_word_embeddings": true, "torch_dtype": "bfloat16", "vocab_size": 128_256,
    })
}

#[test]
fn llama_is_read_with_its_scaled_rotary_embeddings() {
    let scaling = json!({"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                         "original_max_position_embeddings": 8192, "rope_type": "llama3"});
    let older = read(&changed(&llama(), &json!({"rope_scaling": scaling})));
    assert_eq!(older.layers, vec![FULL; 16]);
    assert_eq!((older.heads, older.key_value_heads, older.head_dim), (32, 8, 64));
    assert!(older.tied_embeddings && !older.query_key_norm);
    assert_eq!(older.biases, Biases::default());
    let expected = RopeScaling::Llama3 {
        factor: 32.0,
        low_frequency_factor: 1.0,
        high_frequency_factor: 4.0,
        original_positions: 8192.0,
    };
    assert_eq!(older.rope, Rope { theta: 500_000.0, scaling: expected });

    let mut newer = changed(&llama(), &json!({"rope_parameters": scaling, "rope_theta": null}));
    newer["rope_parameters"]["rope_theta"] = json!(500_000.0);
    assert_eq!(read(&newer).rope, older.rope);
}

#[test]
fn keys_that_llama_2_does_not_have_get_their_defaults() {
    let config = read(&json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": 4096, "intermediate_size": 11_008, "max_position_embeddings": 4096,
        "num_attention_heads": 32, "num_hidden_layers": 32, "rms_norm_eps": 1e-5,
        "rope_scaling": null, "vocab_size": 32_000,
    }));
    assert_eq!((config.key_value_heads, config.head_dim), (32, 128));
    assert_eq!(config.rope, plain(10_000.0));
    assert!(!config.tied_embeddings);
}

#[test]
fn qwen2_has_biases_and_windows_only_where_they_are_used() {
    let published = json!({
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "attention_dropout": 0.0,
        "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 11_008,
        "max_position_embeddings": 32_768, "max_window_layers": 34, "num_attention_heads": 16,
        "num_hidden_layers": 36, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0, "sliding_window": 32_768, "tie_word_embeddings": true,
        "torch_dtype": "bfloat16", "use_cache": true, "use_mrope": false,
        "use_sliding_window": false, "vocab_size": 151_936,
    });
    let config = read(&published);
    assert_eq!(config.layers, vec![FULL; 36]);
    assert_eq!(config.biases, Biases { query_key_value: true, ..Biases::default() });
    assert_eq!((config.head_dim, config.rope), (128, plain(1_000_000.0)));

    let config = read(&changed(&published, &json!({"use_sliding_window": true})));
    let windows: Vec<Option<i64>> = config.layers.iter().map(|layer| layer.window).collect();
    assert!(windows[..34].iter().all(Option::is_none), "{windows:?}");
    assert_eq!(windows[34..], [Some(32_768); 2]);
}

#[test]
fn yarn_defaults_to_what_the_paper_recommends() {
    let scaling =
        json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768});
    let config = read(&changed(&llama(), &json!({"rope_scaling": scaling})));
    let RopeScaling::Yarn { attention_factor, beta_fast, beta_slow, truncate, .. } =
        config.rope.scaling
    else {
        panic!("{:?}", config.rope);
    };
    // 0.1 ln 4 + 1
    assert!((attention_factor - 1.138_629_436).abs() < 1e-9, "{attention_factor}");
    assert_eq!((beta_fast, beta_slow, truncate), (32.0, 1.0, true));
}

#[test]
fn qwen3_norms_its_heads_and_gives_them_a_width() {
    let config = read(&json!({
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "attention_bias": false,
        "attention_dropout": 0.0, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024,
        "intermediate_size": 3072, "max_position_embeddings": 40_960, "max_window_layers": 28,
        "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-6, "rope_scaling": null, "rope_theta": 1_000_000,
        "sliding_window": null, "tie_word_embeddings": true, "use_sliding_window": false,
        "vocab_size": 151_936,
    }));
    assert!(config.query_key_norm);
    assert_eq!(config.head_dim, 128);
    assert_eq!(config.biases, Biases::default());
    assert_eq!(config.layers, vec![FULL; 28]);
}

#[test]
fn mistral_has_a_window_on_every_layer_or_none() {
    let published = json!({
        "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_act": "silu",
        "hidden_size": 4096, "intermediate_size": 14_336, "max_position_embeddings": 32_768,
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5, "rope_theta": 10_000.0, "sliding_window": 4096,
        "tie_word_embeddings": false, "vocab_size": 32_000,
    });
    let windowed = LayerConfig { rotary: true, window: Some(4096) };
    assert_eq!(read(&published).layers, vec![windowed; 32]);
    let config = read(&changed(&published, &json!({"sliding_window": null, "head_dim": 128})));
    assert_eq!(config.layers, vec![FULL; 32]);
}

#[test]
fn smollm3_leaves_positions_out_of_every_fourth_layer() {
    let mut published = json!({
        "architectures": ["SmolLM3ForCausalLM"], "model_type": "smollm3", "attention_bias": false,
        "attention_dropout": 0.0, "hidden_act": "silu", "hidden_size": 2048,
        "intermediate_size": 11_008, "max_position_embeddings": 65_536, "max_window_layers": 28,
        "mlp_bias": false, "no_rope_layer_interval": 4, "no_rope_layers": [1, 1, 1, 0, 1, 1, 1, 0],
        "num_attention_heads": 16, "num_hidden_layers": 8, "num_key_value_heads": 4,
        "pretraining_tp": 2, "rms_norm_eps": 1e-6, "rope_scaling": null, "rope_theta": 5_000_000.0,
        "sliding_window": null, "use_sliding_window": false, "vocab_size": 128_256,
    });
    let listed = read(&published);
    let rotary: Vec<bool> = listed.layers.iter().map(|layer| layer.rotary).collect();
    assert_eq!(rotary, [true, true, true, false, true, true, true, false]);
    assert!(listed.tied_embeddings, "tied unless the file says otherwise");
    published["no_rope_layers"] = Value::Null;
    assert_eq!(read(&published).layers, listed.layers);
}
