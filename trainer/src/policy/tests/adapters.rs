//! Checks of low-rank adapters against recordings from PEFT, of their files and of their initialisation.

use std::collections::BTreeMap;
use std::fs;

use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::{Value, json};
use tch::{Kind, Tensor};
use tempfile::TempDir;

use super::{BF16, F32, gap, packed_logits, tiny};
use crate::golden;
use crate::policy::{
    ADAPTER_CONFIG_FILE, ADAPTER_FILE, AdapterConfig, AdapterFolder, BaseName, Compute, Decoder,
    Lora, LoraTargets, ModelPlace, Policy, ScoredPass, Weights, base_name, token_statistics,
    write_adapters,
};

const RECORDINGS: [&str; 2] = ["lora-tiny-llama", "lora-tiny-qwen2"];
const TOLERANCE: f64 = 1e-4;

/// The results that PEFT computed.
#[derive(Deserialize)]
pub(crate) struct Expected {
    pub(crate) checkpoint: String,
    pub(crate) sequences: Vec<Vec<u32>>,
    pub(super) mean_nll: f64,
    pub(crate) losses: BTreeMap<String, f64>,
    #[serde(skip)]
    pub(crate) tensors: BTreeMap<String, Tensor>,
}

pub(super) fn tensors(path: &std::path::Path) -> BTreeMap<String, Tensor> {
    let bytes = fs::read(path).unwrap();
    let tensor = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        let shape: Vec<i64> = view.shape().iter().map(|&size| size as i64).collect();
        (name, Tensor::from_data_size(view.data(), &shape, Kind::Float))
    };
    SafeTensors::deserialize(&bytes).unwrap().tensors().into_iter().map(tensor).collect()
}

/// Loads a recorded model with separate adapters.
pub(crate) fn adapted(name: &str, compute: Compute) -> (Policy, Decoder, Expected) {
    let folder = golden::path(name);
    let place = ModelPlace::find(&folder, None).unwrap();
    let mut policy = Policy::load_base(&place, compute).unwrap();
    policy.adapt(place.adapters.unwrap().read(&policy.config).unwrap());
    let decoder = Decoder::new(&policy.config, policy.config.max_positions, compute.device);
    let mut expected: Expected = golden::read(&format!("{name}/expected.json"));
    expected.tensors = tensors(&folder.join("expected.safetensors"));
    (policy, decoder, expected)
}

pub(crate) fn logits(policy: &Policy, decoder: &Decoder, expected: &Expected) -> Vec<Tensor> {
    let sequences: Vec<&[u32]> = expected.sequences.iter().map(Vec::as_slice).collect();
    tch::no_grad(|| packed_logits(policy, decoder, &sequences))
}

#[test]
fn logits_are_those_of_peft_separate_and_merged() {
    for name in RECORDINGS {
        let (policy, decoder, expected) = adapted(name, F32);
        let merged = Policy::load(&golden::path(name), F32).unwrap();
        assert!(merged.lora.is_none());
        let (plain, _) = tiny(&expected.checkpoint, F32);
        for (form, policy) in [("separate", &policy), ("merged", &merged)] {
            for (index, logits) in logits(policy, &decoder, &expected).iter().enumerate() {
                let gap = gap(logits, &expected.tensors[&format!("logits.{index}")]);
                assert!(gap < TOLERANCE, "{name}, {form}, sequence {index}: {gap}");
            }
        }
        let unadapted = logits(&plain, &decoder, &expected);
        assert!(gap(&unadapted[0], &expected.tensors["logits.0"]) > 0.1, "{name} changes nothing");
    }
}

#[test]
fn gradients_of_a_and_b_are_those_of_autograd_and_the_base_has_none() {
    for name in RECORDINGS {
        let (policy, decoder, expected) = adapted(name, F32);
        let masks: Vec<Vec<bool>> =
            expected.sequences.iter().map(|ids| vec![true; ids.len()]).collect();
        let packed: Vec<(&[u32], &[bool])> = expected
            .sequences
            .iter()
            .zip(&masks)
            .map(|(ids, mask)| (ids.as_slice(), mask.as_slice()))
            .collect();
        let weights = policy.weights();
        let scored = ScoredPass::new(&decoder, &weights, &packed, 1.0);
        let loss = -scored.statistics.log_probs.mean(Kind::Float);
        assert!((loss.double_value(&[]) - expected.mean_nll).abs() < 1e-5, "{name}");
        scored.backward(&loss);
        let recorded = expected.tensors.keys().filter(|name| name.starts_with("gradient."));
        assert_eq!(recorded.count(), policy.trained().len(), "{name}");
        for (parameter, tensor) in policy.trained() {
            let gradient = &expected.tensors[&format!("gradient.{parameter}")];
            let scale = gradient.abs().max().double_value(&[]);
            assert!(scale > 1e-5, "{name}: {parameter} has a gradient");
            let gap = gap(&tensor.grad(), gradient) / scale;
            assert!(gap < TOLERANCE, "{name}: {parameter} is off by {gap}");
        }
        assert!(policy.parameters.values().all(|frozen| !frozen.grad().defined()), "{name}");
        assert!(policy.parameters.values().all(|frozen| !frozen.requires_grad()), "{name}");
    }
}

/// Rollout weights have the adapters merged, in the compute type.
#[test]
fn rollouts_compute_what_training_computes() {
    for name in RECORDINGS {
        for (compute, tolerance) in [(F32, 1e-4), (BF16, 0.6)] {
            let (mut policy, decoder, expected) = adapted(name, compute);
            let beside = logits(&policy, &decoder, &expected);
            let targets: Vec<(&[u32], Vec<bool>)> =
                expected.sequences.iter().map(|ids| (&ids[..], vec![true; ids.len()])).collect();
            let packed: Vec<(&[u32], &[bool])> =
                targets.iter().map(|(ids, mask)| (*ids, &mask[..])).collect();
            let score =
                |weights: &Weights| token_statistics(&decoder, weights, &packed, 1.0).log_probs;
            let (merged, trained) = (score(&policy.detached_weights()), score(&policy.weights()));
            let distance = gap(&merged, &trained);
            assert!(distance < tolerance, "{name}, {compute:?}: {distance}");
            // Training the adapters does not change the copy.
            let before = policy.detached_weights();
            tch::no_grad(|| {
                for tensor in policy.trained_mut().values_mut() {
                    let _ = tensor.g_mul_scalar_(-1.5);
                }
            });
            assert!(
                gap(&score(&before), &merged) < 1e-12,
                "{name}: rollouts moved with the adapters"
            );
            let after = logits(&policy, &decoder, &expected);
            assert!(gap(&after[0], &beside[0]) > 0.1, "{name}: nothing moved");
        }
    }
}

const CONFIG: AdapterConfig =
    AdapterConfig { rank: 8, alpha: 16.0, rank_stabilised: false, targets: LoraTargets::ALL };

fn fresh(policy: &Policy, config: AdapterConfig, seed: u64) -> Lora {
    let base = BaseName { name: "base".to_owned(), revision: None };
    Lora::new(&policy.config, config, base, seed)
}

#[test]
fn new_adapters_change_nothing_and_are_drawn_by_the_seed() {
    let (mut policy, decoder) = tiny("qwen2-tiny", F32);
    let expected: Expected = golden::read("lora-tiny-qwen2/expected.json");
    let before = logits(&policy, &decoder, &expected);
    let [first, same, other] = [1, 1, 2].map(|seed| fresh(&policy, CONFIG, seed));
    assert!(first.is_zero());
    assert_eq!(first.parameters.len(), 2 * 7 * policy.config.layers.len());
    let mut distinct = std::collections::BTreeSet::new();
    for (name, tensor) in &first.parameters {
        assert_eq!(tensor, &same.parameters[name], "{name}");
        if name.ends_with("lora_A.weight") {
            assert!(tensor != &other.parameters[name], "{name}");
            distinct.insert(tensor.double_value(&[0, 0]).to_bits());
            // Uniform between plus and minus 1 / sqrt(inputs), so the deviation is that bound over sqrt(3).
            let bound = 1.0 / (tensor.size()[1] as f64).sqrt();
            let largest = tensor.abs().max().double_value(&[]);
            assert!(largest <= bound && largest > 0.9 * bound, "{name}: {largest} of {bound}");
            let deviation = tensor.std(false).double_value(&[]) * 3.0_f64.sqrt() / bound;
            assert!((deviation - 1.0).abs() < 0.2, "{name}: {deviation}");
        }
    }
    assert_eq!(distinct.len(), first.parameters.len() / 2, "modules share their draws");
    policy.adapt(first);
    for (after, before) in logits(&policy, &decoder, &expected).iter().zip(&before) {
        assert!(gap(after, before) < 1e-12);
    }
}

#[test]
fn the_scale_is_that_of_the_papers() {
    assert!((CONFIG.scale() - 2.0).abs() < 1e-12);
    let stabilised = AdapterConfig { rank: 16, rank_stabilised: true, ..CONFIG };
    assert!((stabilised.scale() - 4.0).abs() < 1e-12);
}

#[test]
fn written_adapters_are_read_again() {
    for name in RECORDINGS {
        let (policy, _, _) = adapted(name, F32);
        let folder = TempDir::new().unwrap();
        let lora = policy.lora.as_ref().unwrap();
        write_adapters(folder.path(), lora).unwrap();
        let again = AdapterFolder::find(folder.path()).unwrap().unwrap();
        assert_eq!(again.base.as_ref(), Some(&lora.base), "{name}");
        let recorded = tensors(&golden::path(name).join(ADAPTER_FILE));
        assert_eq!(tensors(&folder.path().join(ADAPTER_FILE)), recorded, "{name}");
        let read = again.read(&policy.config).unwrap();
        assert!(read.is_like(lora) && read.config() == lora.config(), "{name}");
        assert!(read.parameters.keys().eq(lora.parameters.keys()));
    }
}

/// Copies the recorded adapters into a folder and applies `change` to their configuration.
fn changed(change: impl FnOnce(&mut Value)) -> TempDir {
    let (recorded, folder) = (golden::path("lora-tiny-llama"), TempDir::new().unwrap());
    fs::copy(recorded.join(ADAPTER_FILE), folder.path().join(ADAPTER_FILE)).unwrap();
    let text = fs::read(recorded.join(ADAPTER_CONFIG_FILE)).unwrap();
    let mut keys: Value = serde_json::from_slice(&text).unwrap();
    keys["base_model_name_or_path"] = golden::path("llama-tiny-untied").to_str().unwrap().into();
    change(&mut keys);
    fs::write(folder.path().join(ADAPTER_CONFIG_FILE), keys.to_string()).unwrap();
    folder
}

#[test]
fn adapters_of_another_kind_are_refused_by_name() {
    Policy::load(changed(|_| {}).path(), F32).unwrap();
    for (key, value, parts) in [
        ("peft_type", json!("LOHA"), &["peft_type is \"LOHA\"", "\"LORA\""][..]),
        ("use_dora", json!(true), &["lora_magnitude_vector is missing"]),
        ("use_dora", json!(1), &["use_dora is 1", "true or false"]),
        ("rank_pattern", json!({"q_proj": 9}), &["q_proj.lora_A.weight has shape [3, 24]"]),
        ("init_lora_weights", json!("pissa"), &["init_lora_weights is \"pissa\""]),
        ("modules_to_save", json!(["lm_head"]), &["base_model.model.lm_head.weight is missing"]),
        ("r", json!(0), &["r is 0", "at least 1"]),
        ("r", json!(4), &["lora_A.weight has shape [3, 24]", "[4, 24]"]),
        ("use_rslora", json!("yes"), &["use_rslora is \"yes\"", "true or false"]),
        ("lora_alpha", Value::Null, &["lora_alpha is null", "above 0"]),
        ("target_modules", json!(["c_attn"]), &["target_modules is [\"c_attn\"]", "lm_head"]),
        ("target_modules", json!(3), &["target_modules is 3", "expression"]),
        ("target_modules", json!(["q_proj"]), &["a tensor is base_model.model.model.layers.0."]),
        ("target_modules", json!("all-linear"), &["down_proj.lora_A.weight is missing"]),
        ("base_model_name_or_path", json!("no/where"), &["\"no/where\"", "model.base"]),
        ("base_model_name_or_path", Value::Null, &["base_model_name_or_path is null"]),
    ] {
        let shown = value.to_string();
        let folder = changed(|keys| keys[key] = value);
        let message = Policy::load(folder.path(), F32).unwrap_err().to_string();
        for part in parts {
            assert!(message.contains(part), "{key} = {shown}: {part:?} is not in {message:?}");
        }
    }
    let folder = changed(|_| {});
    let other = ModelPlace::find(folder.path(), Some(&golden::path("qwen2-tiny"))).unwrap();
    let model = Policy::load_base(&other, F32).unwrap();
    let message = other.adapters.unwrap().read(&model.config).unwrap_err().to_string();
    assert!(message.contains("has shape"), "{message}");
    fs::write(folder.path().join(ADAPTER_CONFIG_FILE), "[").unwrap();
    let message = Policy::load(folder.path(), F32).unwrap_err().to_string();
    assert!(message.contains("adapter_config.json: the file is not a JSON object"), "{message}");
}

#[test]
fn a_base_of_the_hub_is_named_as_there() {
    let cached = "hub/models--org--some--name/snapshots/0123abcd";
    let named = base_name(std::path::Path::new(cached));
    assert_eq!(
        (named.name.as_str(), named.revision.as_deref()),
        ("org/some--name", Some("0123abcd"))
    );
    let local = TempDir::new().unwrap();
    let named = base_name(local.path());
    let whole = fs::canonicalize(local.path()).unwrap();
    assert_eq!((named.name, named.revision), (whole.to_str().unwrap().to_owned(), None));
}
