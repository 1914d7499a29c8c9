//! Folders with odd keys, compared with what transformers computes from them, and the lists of keys compared with the
//! fields of its classes; see tests/golden/README.md.

use std::collections::BTreeMap;

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tch::Tensor;
use tempfile::TempDir;

use super::{F32, packed_logits};
use crate::golden;
use crate::policy::family::FAMILIES;
use crate::policy::{Decoder, ModelConfig, Policy, known_keys, write_weights};

const TOLERANCE: f64 = 1e-4;
const HEAD: &str = "lm_head.weight";
const EMBEDDING: &str = "model.embed_tokens.weight";

#[derive(Deserialize)]
struct Recording {
    ids: Vec<u32>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    checkpoint: String,
    changes: Map<String, Value>,
    removed: Vec<String>,
    /// Rows of `lm_head.weight`: those of the embedding, or the same in reverse order.
    head: Option<String>,
    log_probs: Vec<f64>,
    greedy: Vec<u32>,
}

/// Writes the folder of a case.
fn folder(case: &Case) -> TempDir {
    let folder = TempDir::new().unwrap();
    let source = golden::path(&case.checkpoint);
    let config = std::fs::read(source.join("config.json")).unwrap();
    let mut config: Map<String, Value> = serde_json::from_slice(&config).unwrap();
    config.retain(|key, _| !case.removed.contains(key));
    config.extend(case.changes.clone());
    std::fs::write(folder.path().join("config.json"), Value::Object(config).to_string()).unwrap();
    let mut bytes = std::fs::read(source.join("model.safetensors")).unwrap();
    if let Some(head) = &case.head {
        bytes = with_head(&bytes, head == "reversed");
    }
    std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    folder
}

/// Adds a head to the tensors of a file.
fn with_head(bytes: &[u8], is_reversed: bool) -> Vec<u8> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let embedding = file.tensor(EMBEDDING).unwrap();
    let row_bytes = embedding.data().len() / embedding.shape()[0];
    let mut rows: Vec<&[u8]> = embedding.data().chunks(row_bytes).collect();
    if is_reversed {
        rows.reverse();
    }
    let rows = rows.concat();
    let mut tensors: Vec<(String, TensorView<'_>)> = file.tensors();
    let head = TensorView::new(embedding.dtype(), embedding.shape().to_vec(), &rows).unwrap();
    tensors.push((HEAD.to_owned(), head));
    safetensors::serialize(tensors, None).unwrap()
}

/// Computes the log-probs of `ids` after the first, and a greedy continuation.
fn compute(policy: &Policy, ids: &[u32], greedy: usize) -> (Vec<f64>, Vec<u32>) {
    let decoder = Decoder::new(&policy.config, policy.config.max_positions, F32.device);
    let mut all = ids.to_vec();
    let logits = |ids: &[u32]| packed_logits(policy, &decoder, &[ids]).remove(0);
    let log_probs = logits(&all).log_softmax(-1, tch::Kind::Float);
    let scored = ids[1..].iter().enumerate();
    let scored = scored.map(|(row, &id)| log_probs.double_value(&[row as i64, i64::from(id)]));
    let scored = scored.collect();
    for _ in 0..greedy {
        let last = logits(&all).select(0, -1).argmax(0, false);
        all.push(u32::try_from(last.int64_value(&[])).unwrap());
    }
    (scored, all.split_off(ids.len()))
}

#[test]
fn folders_compute_what_transformers_computes_from_them() {
    let recording: Recording = golden::read("model-folders.json");
    assert!(recording.cases.len() > 25);
    for case in &recording.cases {
        let folder = folder(case);
        let policy = Policy::load(folder.path(), F32)
            .unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let (log_probs, greedy) =
            tch::no_grad(|| compute(&policy, &recording.ids, case.greedy.len()));
        assert_eq!(log_probs.len(), case.log_probs.len());
        for (row, (ours, theirs)) in log_probs.iter().zip(&case.log_probs).enumerate() {
            assert!(
                (ours - theirs).abs() < TOLERANCE,
                "{}, row {row}: {ours}, {theirs}",
                case.name
            );
        }
        assert_eq!(greedy, case.greedy, "{}", case.name);
    }
}

#[test]
fn a_head_of_its_own_is_kept_in_checkpoints() {
    let recording: Recording = golden::read("model-folders.json");
    for (head, is_tied) in [("reversed", false), ("equal", true)] {
        let case = recording.cases.iter().find(|case| case.head.as_deref() == Some(head)).unwrap();
        let folder = folder(case);
        let policy = Policy::load(folder.path(), F32).unwrap();
        assert_eq!(policy.config.tied_embeddings, is_tied);
        assert_eq!(policy.parameters.contains_key(HEAD), !is_tied);
        assert_eq!(policy.config.source["tie_word_embeddings"], json!(is_tied));

        // Split over several files, head and embedding are still compared.
        let split = TempDir::new().unwrap();
        let config = folder.path().join("config.json");
        std::fs::copy(config, split.path().join("config.json")).unwrap();
        let mut parameters: BTreeMap<String, Tensor> = policy
            .parameters
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.detach()))
            .collect();
        let embedding = parameters[EMBEDDING].shallow_clone();
        parameters.entry(HEAD.to_owned()).or_insert(embedding);
        write_weights(split.path(), &parameters, tch::Kind::Float, 30_000).unwrap();
        assert_eq!(ModelConfig::read(split.path()).unwrap().tied_embeddings, is_tied);
    }
}

#[derive(Deserialize)]
struct Keys {
    families: BTreeMap<String, Map<String, Value>>,
    generation: Vec<String>,
}

/// A new field of a class of transformers, or a new default, fails here until it has a place in the lists.
#[test]
fn every_field_of_the_configuration_classes_is_known() {
    let keys: Keys = golden::read("transformers-keys.json");
    assert_eq!(keys.families.len(), FAMILIES.len());
    for family in FAMILIES {
        let fields = &keys.families[family.model_type];
        assert!(fields.len() > 25);
        for field in fields.keys().chain(&keys.generation) {
            let is_known = known_keys::is_known(field, family.read, family.ignored);
            assert!(is_known, "{}: {field}", family.model_type);
        }
        let number = |field: &str| fields.get(field).and_then(Value::as_i64);
        assert_eq!(fields["tie_word_embeddings"], json!(family.tied_embeddings));
        assert_eq!(number("num_key_value_heads"), family.key_value_heads, "{}", family.model_type);
        assert_eq!(number("head_dim"), family.head_dim, "{}", family.model_type);
        assert_eq!(fields["hidden_act"], json!("silu"));
    }
}

/// Reads the configuration of a checkpoint with changed keys and without others.
fn changed(checkpoint: &str, changes: &Value, removed: &[&str]) -> Result<ModelConfig, String> {
    let case = Case {
        name: String::new(),
        checkpoint: checkpoint.to_owned(),
        changes: changes.as_object().unwrap().clone(),
        removed: removed.iter().map(|&key| key.to_owned()).collect(),
        head: None,
        log_probs: Vec::new(),
        greedy: Vec::new(),
    };
    ModelConfig::read(folder(&case).path()).map_err(|error| error.to_string())
}

#[test]
fn absent_keys_have_the_defaults_of_the_classes() {
    let keys: Keys = golden::read("transformers-keys.json");
    let default = |family: &str| keys.families[family]["sliding_window"].as_i64();
    let windows = |config: ModelConfig| -> Vec<Option<i64>> {
        config.layers.iter().map(|layer| layer.window).collect()
    };
    let read = changed("mistral-tiny", &json!({}), &["sliding_window"]).unwrap();
    assert_eq!(windows(read), [default("mistral"); 2]);
    let used = json!({"use_sliding_window": true, "max_window_layers": 0, "layer_types": null});
    for (checkpoint, family) in [("qwen2-tiny", "qwen2"), ("qwen3-tiny", "qwen3")] {
        let read = changed(checkpoint, &used, &["sliding_window"]).unwrap();
        assert_eq!(windows(read), [default(family); 2]);
        let mut null = used.clone();
        null["sliding_window"] = Value::Null;
        assert_eq!(windows(changed(checkpoint, &null, &[]).unwrap()), [None; 2]);
    }
    // Null means as many key heads as query heads, but absence means the class's number.
    let null = json!({"num_key_value_heads": null, "num_attention_heads": 64});
    let heads = |checkpoint, changes: &Value, removed: &[&str]| {
        changed(checkpoint, changes, removed).unwrap().key_value_heads
    };
    let wide = json!({"num_attention_heads": 64});
    for (checkpoint, family) in
        [("mistral-tiny", "mistral"), ("qwen2-tiny", "qwen2"), ("smollm3-tiny", "smollm3")]
    {
        let absent = keys.families[family]["num_key_value_heads"].as_i64().unwrap();
        let mut wide = wide.clone();
        let mut null = null.clone();
        wide["head_dim"] = json!(2);
        null["head_dim"] = json!(2);
        assert_eq!(heads(checkpoint, &wide, &["num_key_value_heads"]), absent);
        assert_eq!(heads(checkpoint, &null, &[]), 64);
    }
}

#[test]
fn keys_that_change_the_result_are_refused_by_name() {
    let cases = [
        ("llama-tiny-tied", json!({"is_causal": false}), "is_causal = false"),
        ("qwen2-tiny", json!({"is_causal": null}), "is_causal = null"),
        ("llama-tiny-tied", json!({"logit_scale": 2.0}), "logit_scale = 2.0"),
        ("qwen3-tiny", json!({"final_logit_softcapping": 30}), "final_logit_softcapping = 30"),
        ("llama-tiny-tied", json!({"sliding_window": 4}), "sliding_window = 4"),
        (
            "llama-tiny-tied",
            json!({"layer_types": ["sliding_attention", "full_attention"]}),
            "layer_types",
        ),
        ("mistral-tiny", json!({"layer_types": ["full_attention"]}), "layer_types"),
        ("mistral-tiny", json!({"layer_types": vec!["full_attention"; 3]}), "layer_types"),
        (
            "mistral-tiny",
            json!({"layer_types": vec!["sliding_attention"; 2], "sliding_window": null}),
            "layer_types",
        ),
        (
            "llama-tiny-tied",
            json!({"per_layer_config": {"0": {"rms_norm_eps": 0.5}}}),
            "per_layer_config",
        ),
        (
            "llama-tiny-tied",
            json!({"transformers_weights": "other.safetensors"}),
            "transformers_weights",
        ),
        ("qwen3-tiny", json!({"head_dim": null}), "head_dim = null"),
        ("qwen2-tiny", json!({"add_cross_attention": true}), "add_cross_attention = true"),
        ("qwen2-tiny", json!({"is_encoder_decoder": true}), "is_encoder_decoder = true"),
        ("smollm3-tiny", json!({"quantization": {"bits": 4}}), "quantization"),
        (
            "llama-tiny-tied",
            json!({"_attn_implementation": "paged|custom"}),
            "_attn_implementation",
        ),
        (
            "llama-tiny-llama3",
            json!({"rope_parameters": {"rope_type": "default", "mrope_section": [2, 2]}}),
            "rope_parameters.mrope_section = [2,2]",
        ),
        (
            "qwen2-tiny",
            json!({"rope_parameters": {"rope_type": "longrope", "long_factor": [2.0], "factor": 4.0}}),
            "rope_parameters.rope_type = longrope",
        ),
        (
            "qwen2-tiny",
            json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}),
            "rope_parameters.full_attention",
        ),
        (
            "qwen2-tiny",
            json!({"rope_parameters": {"rope_type": "yarn"}}),
            "rope_parameters.factor is missing",
        ),
    ];
    for (checkpoint, changes, part) in cases {
        let message = changed(checkpoint, &changes, &[]).unwrap_err();
        assert!(message.contains("config.json") && message.contains(part), "{changes}: {message}");
    }
}

/// Keys of configurations on the hub, among them those of older versions and of other programs.
#[test]
fn keys_of_published_files_are_accepted() {
    let published = json!({
        "_name_or_path": "meta-llama/Llama-3.2-1B", "auto_map": {"AutoConfig": "configuration.Config"},
        "torch_dtype": "bfloat16", "dtype": "bfloat16", "transformers_version": "4.47.1", "use_cache": false,
        "pretraining_tp": 1, "unsloth_fixed": true, "unsloth_version": "2026.10.9", "is_llama_config": true,
        "rope_interleaved": false, "transformers.js_config": {"dtype": "q4"}, "bos_token_id": 1, "pad_token_id": 0,
        "_attn_implementation_autoset": true, "attn_implementation": "flash_attention_2", "max_length": 4096,
        "temperature": 0.6, "top_p": 0.9, "do_sample": true, "gradient_checkpointing": false, "use_mrope": false,
        "tokenizer_class": "LlamaTokenizer", "max_sequence_length": 2048, "sliding_window": null,
        "is_causal": true, "an_unknown_key": null, "pruned_heads": {}, "is_encoder_decoder": false,
        "id2label": {"0": "LABEL_0"}, "task_specific_params": null, "max_window_layers": 28,
        "use_sliding_window": false, "output_attentions": false, "torchscript": false,
    });
    for checkpoint in
        ["llama-tiny-tied", "qwen2-tiny", "qwen3-tiny", "mistral-tiny", "smollm3-tiny"]
    {
        let mut changes = published.clone();
        if checkpoint == "qwen2-tiny" || checkpoint == "qwen3-tiny" {
            changes["layer_types"] = json!(["full_attention", "full_attention"]);
        }
        changed(checkpoint, &changes, &[]).unwrap();
    }
}
