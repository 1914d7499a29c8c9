//! Saved checkpoints against folders that transformers wrote.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{SaveForm, restore_policy, save, save_for_rollouts};
use crate::golden;
use crate::policy::tests::adapter_kinds::{KINDS, folder};
use crate::policy::tests::adapters::{adapted, logits};
use crate::policy::tests::{CHECKPOINTS, F32, gap, tiny};
use crate::policy::{ModelPlace, Policy, weight_files};

/// Returns type, shape and bytes of every tensor in a folder.
fn tensors(folder: &Path) -> BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> {
    let mut tensors = BTreeMap::new();
    for path in weight_files(folder).unwrap() {
        let bytes = fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        for (name, view) in file.tensors() {
            tensors.insert(name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()));
        }
    }
    tensors
}

fn place(folder: &Path) -> ModelPlace {
    ModelPlace::find(folder, None).unwrap()
}

fn config(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap()
}

/// Returns every file of a folder by its name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

#[test]
fn a_saved_checkpoint_equals_that_of_transformers() {
    for checkpoint in CHECKPOINTS {
        let recorded = golden::path(checkpoint);
        let (policy, _) = tiny(checkpoint, F32);
        let run = TempDir::new().unwrap();
        let (first, second) = (run.path().join("step-1"), run.path().join("step-2"));
        save(&first, &policy, &place(&recorded), SaveForm::WHOLE, None).unwrap();
        assert_eq!(config(&first), config(&recorded), "{checkpoint}");
        let (saved, expected) = (tensors(&first), tensors(&recorded));
        assert!(saved.keys().eq(expected.keys()), "{checkpoint}: {:?}", saved.keys());
        for (name, tensor) in &expected {
            assert!(&saved[name] == tensor, "{checkpoint}: {name}");
        }
        let again = Policy::load(&first, F32).unwrap();
        save(&second, &again, &place(&first), SaveForm::WHOLE, None).unwrap();
        assert!(files(&first) == files(&second), "{checkpoint} changes when it is saved again");
    }
}

/// Unused keys are kept, and the type of the weights is the written one.
#[test]
fn a_saved_configuration_keeps_its_keys() {
    let source = TempDir::new().unwrap();
    let recorded = golden::path(CHECKPOINTS[0]);
    fs::copy(recorded.join("model.safetensors"), source.path().join("model.safetensors")).unwrap();
    for key in ["dtype", "torch_dtype"] {
        let mut written = config(&recorded);
        let keys = written.as_object_mut().unwrap();
        keys.remove("dtype");
        keys.remove("torch_dtype");
        keys.insert(key.to_owned(), json!("bfloat16"));
        keys.insert("transformers.js_config".to_owned(), json!({"kept": [1, null]}));
        fs::write(source.path().join("config.json"), written.to_string()).unwrap();
        let policy = Policy::load(source.path(), F32).unwrap();
        let saved = source.path().join("step-1");
        save(&saved, &policy, &place(source.path()), SaveForm::WHOLE, None).unwrap();
        written[key] = json!("float32");
        assert_eq!(config(&saved), written);
    }
}

/// A merged model, also one for servers, computes what the adapters compute over their base. Adapters come back from
/// the folder next to it.
#[test]
fn every_kind_of_adapters_is_saved_merged_and_restored() {
    for kind in KINDS {
        let (mut policy, decoder, expected) = adapted(&folder(kind), F32);
        let recorded = &expected.tensors["logits.0"];
        let place = place(&golden::path(&folder(kind)));
        let scratch = TempDir::new().unwrap();
        let [merged, rollouts] = ["merged", "rollouts"].map(|name| scratch.path().join(name));
        save(&merged, &policy, &place, SaveForm::WHOLE, None).unwrap();
        save_for_rollouts(&rollouts, &policy, &place).unwrap();
        for saved in [&merged, &rollouts] {
            let loaded = Policy::load(saved, F32).unwrap();
            let gap = gap(&logits(&loaded, &decoder, &expected)[0], recorded);
            assert!(gap < 1e-4, "{kind}, {}: {gap}", saved.display());
        }
        assert!(tensors(&merged).keys().eq(policy.parameters.keys()), "{kind}");
        let is_tied = config(&merged)["tie_word_embeddings"] == true;
        assert_eq!(is_tied, policy.config.tied_embeddings, "{kind}");
        tch::no_grad(|| {
            for tensor in policy.trained_mut().values_mut() {
                let _ = tensor.zero_();
            }
        });
        restore_policy(&merged, &mut policy).unwrap();
        let gap = gap(&logits(&policy, &decoder, &expected)[0], recorded);
        assert!(gap < 1e-4, "{kind}, restored: {gap}");
    }
}
