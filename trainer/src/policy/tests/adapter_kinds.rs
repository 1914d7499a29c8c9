//! Checks of the kinds of adapters that PEFT writes against its recordings: sizes by pattern, chosen modules, magnitudes,
//! the head and the embedding, biases, and parameters that are trained whole.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tch::Kind;
use tempfile::TempDir;

use super::adapters::{adapted, logits, tensors};
use super::{BF16, F32, gap, tiny};
use crate::golden;
use crate::policy::{
    ADAPTER_CONFIG_FILE, ADAPTER_FILE, AdapterFolder, ModelPlace, Policy, ScoredPass,
    token_statistics, write_adapters,
};

pub(crate) const KINDS: [&str; 13] = [
    "expression",
    "layers",
    "excluded",
    "biases",
    "saved",
    "saved-head",
    "saved-embedding",
    "saved-shared",
    "head",
    "embedding",
    "embedding-shared",
    "magnitudes",
    "head-apart",
];
const TOLERANCE: f64 = 1e-4;

/// Returns the name of a kind's folder.
pub(crate) fn folder(kind: &str) -> String {
    format!("lora-kinds/{kind}")
}

#[test]
fn every_kind_computes_what_peft_computes_separate_and_merged() {
    for kind in KINDS {
        let (policy, decoder, expected) = adapted(&folder(kind), F32);
        let merged = Policy::load(&golden::path(&folder(kind)), F32).unwrap();
        let recorded = &expected.tensors["logits.0"];
        for (form, policy) in [("separate", &policy), ("merged", &merged)] {
            let gap = gap(&logits(policy, &decoder, &expected)[0], recorded);
            assert!(gap < TOLERANCE, "{kind}, {form}: {gap}");
        }
        let (plain, _) = tiny(&expected.checkpoint, F32);
        let changed = gap(&logits(&plain, &decoder, &expected)[0], recorded);
        assert!(changed > 0.05, "{kind} changes nothing: {changed}");
    }
}

#[test]
fn every_kind_has_the_gradients_of_autograd() {
    for kind in KINDS {
        let (policy, decoder, expected) = adapted(&folder(kind), F32);
        let ids = &expected.sequences[0];
        let mask = vec![true; ids.len()];
        let weights = policy.weights();
        // Weights are cast once for several micro-batches: a second pass must be possible and adds the same.
        for pass in 1..=2 {
            let scored = ScoredPass::new(&decoder, &weights, &[(ids, &mask)], 1.0);
            let loss = -scored.statistics.log_probs.mean(Kind::Float);
            let off = loss.double_value(&[]) - expected.mean_nll;
            assert!(off.abs() < 1e-5, "{kind}: {off}");
            scored.backward(&loss);
            let recorded = expected.tensors.keys().filter(|name| name.starts_with("gradient."));
            assert_eq!(recorded.count(), policy.trained().len(), "{kind}");
            for (parameter, tensor) in policy.trained() {
                let gradient = &expected.tensors[&format!("gradient.{parameter}")];
                let scale = gradient.abs().max().double_value(&[]);
                assert!(scale > 1e-6, "{kind}: {parameter} has a gradient");
                let gap = gap(&tensor.grad(), &(gradient * pass)) / scale;
                assert!(gap < TOLERANCE, "{kind}: {parameter} is off by {gap} in pass {pass}");
            }
        }
        assert!(policy.parameters.values().all(|frozen| !frozen.grad().defined()), "{kind}");
    }
}

/// Layers that are computed again in the backward pass have the same gradients.
#[test]
fn every_kind_trains_with_recomputed_layers() {
    for kind in KINDS {
        let (policy, mut decoder, expected) = adapted(&folder(kind), F32);
        decoder.recomputes_layers = true;
        let ids = &expected.sequences[0];
        let mask = vec![true; ids.len()];
        let weights = policy.weights();
        let scored = ScoredPass::new(&decoder, &weights, &[(ids, &mask)], 1.0);
        let loss = -scored.statistics.log_probs.mean(Kind::Float);
        scored.backward(&loss);
        for (parameter, tensor) in policy.trained() {
            let gradient = &expected.tensors[&format!("gradient.{parameter}")];
            let gap = gap(&tensor.grad(), gradient) / gradient.abs().max().double_value(&[]);
            assert!(gap < TOLERANCE, "{kind}: {parameter} is off by {gap}");
        }
    }
}

/// The weights of rollouts have every change merged.
#[test]
fn every_kind_rolls_out_what_it_trains() {
    for kind in KINDS {
        for (compute, tolerance) in [(F32, 1e-4), (BF16, 0.6)] {
            let (policy, decoder, expected) = adapted(&folder(kind), compute);
            let ids = &expected.sequences[0];
            let mask = vec![true; ids.len()];
            let score = |weights| token_statistics(&decoder, &weights, &[(ids, &mask)], 1.0);
            let (merged, beside) = (score(policy.detached_weights()), score(policy.weights()));
            let gap = gap(&merged.log_probs, &beside.log_probs);
            assert!(gap < tolerance, "{kind}, {compute:?}: {gap}");
            let copied = score(policy.frozen_weights());
            assert!(super::gap(&copied.log_probs, &beside.log_probs) < 1e-9, "{kind}");
        }
    }
}

#[test]
fn every_kind_is_written_as_peft_writes_it() {
    for kind in KINDS {
        let (policy, _, _) = adapted(&folder(kind), F32);
        let (own, theirs) = (TempDir::new().unwrap(), golden::path(&folder(kind)));
        let lora = policy.lora.as_ref().unwrap();
        write_adapters(own.path(), lora).unwrap();
        let again = AdapterFolder::find(own.path()).unwrap().unwrap();
        let read = again.read(&policy.config).unwrap();
        assert!(read.is_like(lora), "{kind}");
        for (name, tensor) in &lora.parameters {
            assert_eq!(tensor, &read.parameters[name], "{kind}: {name}");
        }
        let file = own.path().join(ADAPTER_FILE);
        assert_eq!(tensors(&file), tensors(&theirs.join(ADAPTER_FILE)), "{kind}");
        let keys = |folder: &Path| -> Value {
            let text = fs::read(folder.join(ADAPTER_CONFIG_FILE)).unwrap();
            serde_json::from_slice(&text).unwrap()
        };
        let (own, theirs) = (keys(own.path()), keys(&theirs));
        for (key, value) in own.as_object().unwrap() {
            assert_eq!(value, &theirs[key], "{kind}: {key}");
        }
    }
}

/// A set of adapters with another key, in a folder of its own.
fn changed(kind: &str, key: &str, value: Value) -> TempDir {
    let (recorded, scratch) = (golden::path(&folder(kind)), TempDir::new().unwrap());
    fs::copy(recorded.join(ADAPTER_FILE), scratch.path().join(ADAPTER_FILE)).unwrap();
    let text = fs::read(recorded.join(ADAPTER_CONFIG_FILE)).unwrap();
    let mut keys: Value = serde_json::from_slice(&text).unwrap();
    let base = recorded.join(keys["base_model_name_or_path"].as_str().unwrap());
    keys["base_model_name_or_path"] = base.canonicalize().unwrap().to_str().unwrap().into();
    keys[key] = value;
    fs::write(scratch.path().join(ADAPTER_CONFIG_FILE), keys.to_string()).unwrap();
    scratch
}

#[test]
fn a_kind_that_does_not_fit_its_file_is_refused_by_name() {
    for (kind, key, value, parts) in [
        ("expression", "target_modules", json!("(q_proj"), &["target_modules", "(q_proj"][..]),
        ("expression", "target_modules", json!(".*nothing"), &["target_modules is \".*nothing\""]),
        ("expression", "rank_pattern", json!({"[": 2}), &["rank_pattern", "expressions of Python"]),
        ("expression", "rank_pattern", json!({"k_proj": "2"}), &["rank_pattern", "above 0"]),
        ("expression", "rank_pattern", json!({}), &["has shape"]),
        ("expression", "layers_to_transform", json!([1]), &["layers_to_transform is [1]", "list"]),
        ("layers", "layers_to_transform", json!("all"), &["layers_to_transform is \"all\""]),
        ("layers", "bias", json!("some"), &["bias is \"some\"", "lora_only"]),
        ("layers", "bias", json!("none"), &["a tensor is base_model.model.model.layers."]),
        ("layers", "unheard_of", json!(3), &["unheard_of is 3", "does not know"]),
        ("layers", "lora_bias", json!(true), &["lora_bias is true"]),
        ("layers", "trainable_token_indices", json!([1]), &["trainable_token_indices is [1]"]),
        ("layers", "velora_config", json!({"x": 1}), &["velora_config is"]),
        ("biases", "use_dora", json!(false), &["lora_magnitude_vector"]),
        ("saved", "modules_to_save", json!(["v_proj", "norm"]), &["v_proj.weight is missing"]),
        ("embedding-shared", "use_dora", json!(true), &["use_dora is true", "ensure_weight_tying"]),
        ("head", "modules_to_save", json!(["q_proj"]), &["q_proj.weight is missing"]),
        ("head", "modules_to_save", json!(["_proj"]), &["modules_to_save is", "target_modules"]),
    ] {
        let scratch = changed(kind, key, value.clone());
        let message = Policy::load(scratch.path(), F32).unwrap_err().to_string();
        for part in parts {
            assert!(message.contains(part), "{kind}, {key} = {value}: {part:?} not in {message:?}");
        }
    }
}

/// PEFT saves a frozen head and embedding with adapters if the vocabulary was enlarged. They replace those of the base.
#[test]
fn frozen_weights_of_the_file_replace_those_of_the_base() {
    let scratch = changed("saved-head", "modules_to_save", Value::Null);
    let policy = Policy::load(scratch.path(), F32).unwrap();
    let saved = tensors(&scratch.path().join(ADAPTER_FILE));
    let embedding = &policy.parameters["model.embed_tokens.weight"];
    assert_eq!(embedding, &saved["base_model.model.lm_head.weight"]);
    assert!(policy.config.tied_embeddings);
}

/// Of two patterns that match, the first in the file decides, whatever their order in the alphabet.
#[test]
fn the_first_pattern_of_the_file_decides() {
    let scratch = changed("expression", "alpha_pattern", json!({}));
    let path = scratch.path().join(ADAPTER_CONFIG_FILE);
    let text = fs::read_to_string(&path).unwrap();
    let place = |patterns: &str| {
        let keys = text.replace("\"alpha_pattern\":{}", &format!("\"alpha_pattern\":{patterns}"));
        fs::write(&path, keys).unwrap();
        Policy::load(scratch.path(), F32).unwrap().merged_parameters()
    };
    let up = "model.layers.1.mlp.up_proj.weight";
    let [short, long, both] = [
        place(r#"{"up_proj": 9}"#),
        place(r#"{"mlp.up_proj": 1}"#),
        place(r#"{"up_proj": 9, "mlp.up_proj": 1}"#),
    ];
    assert_eq!(both[up], short[up]);
    assert!(both[up] != long[up]);
}

/// A base that the file does not name is the one of `model.base`, and saved adapters name it.
#[test]
fn an_unnamed_base_is_that_of_the_configuration() {
    for unnamed in [Value::Null, json!("")] {
        let scratch = changed("layers", "base_model_name_or_path", unnamed.clone());
        let message = ModelPlace::find(scratch.path(), None).unwrap_err().to_string();
        for part in ["base_model_name_or_path is", "model.base", &unnamed.to_string()] {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
        let base = golden::path("qwen2-tiny");
        let place = ModelPlace::find(scratch.path(), Some(&base)).unwrap();
        let policy = Policy::load_base(&place, F32).unwrap();
        let lora = place.adapters.unwrap().read(&policy.config).unwrap();
        assert_eq!(lora.base.name, base.canonicalize().unwrap().to_str().unwrap());
    }
}
