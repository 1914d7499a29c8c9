//! Round trips of model folders, and the messages for folders that cannot be read.

use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tch::{Kind, Tensor};
use tempfile::TempDir;

use super::{CHECKPOINTS, F32, tiny};
use crate::golden;
use crate::policy::{Policy, weight_files, write_weights};

const SAMPLE: &str = "llama-tiny-tied";
const INDEX: &str = "model.safetensors.index.json";

/// Copies a recorded checkpoint into a new folder.
fn copy() -> TempDir {
    let folder = TempDir::new().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(golden::path(SAMPLE).join(file), folder.path().join(file)).unwrap();
    }
    folder
}

/// Returns the message with which a folder is refused.
#[track_caller]
fn refusal(folder: &Path) -> String {
    Policy::load(folder, F32).unwrap_err().to_string()
}

#[track_caller]
fn check_refusal(folder: &TempDir, parts: &[&str]) {
    let message = refusal(folder.path());
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

/// Copies a checkpoint without the tensor `name`, or with another type and shape of it.
fn with_tensor(name: &str, stored: Option<(Dtype, Vec<usize>)>) -> TempDir {
    let folder = copy();
    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert!(file.tensor(name).is_ok(), "{name}");
    let mut views: Vec<(String, TensorView<'_>)> =
        file.tensors().into_iter().filter(|(other, _)| other != name).collect();
    let zeros = vec![0_u8; 1 << 16];
    if let Some((dtype, shape)) = stored {
        let length = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        let view = TensorView::new(dtype, shape, &zeros[..length]).unwrap();
        views.push((name.to_owned(), view));
    }
    let rewritten = safetensors::serialize(views, None).unwrap();
    std::fs::write(&path, rewritten).unwrap();
    folder
}

/// Size limits for splitting weights, each with the least number of files it must give.
const SHARDS: [(usize, usize); 3] = [(usize::MAX, 1), (5_000, 2), (1, 10)];

#[test]
fn weights_are_read_as_they_were_written() {
    for checkpoint in CHECKPOINTS {
        let (policy, _) = tiny(checkpoint, F32);
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            for (shard_bytes_max, files) in SHARDS {
                let folder = TempDir::new().unwrap();
                let config = golden::path(checkpoint).join("config.json");
                std::fs::copy(config, folder.path().join("config.json")).unwrap();
                write_weights(folder.path(), &policy.parameters, kind, shard_bytes_max).unwrap();
                let written = weight_files(folder.path()).unwrap().len();
                assert!(written >= files && (files > 1 || written == 1), "{checkpoint}: {written}");
                let again = Policy::load(folder.path(), F32).unwrap();
                check_cast(&again, &policy, kind, checkpoint);
            }
        }
    }
}

/// Checks that `again` holds the weights of `policy`, rounded to `kind`.
fn check_cast(again: &Policy, policy: &Policy, kind: Kind, name: &str) {
    assert!(again.parameters.keys().eq(policy.parameters.keys()), "{name}");
    assert_eq!(again.parameter_count(), policy.parameter_count());
    for (parameter, original) in &policy.parameters {
        let stored = original.to_kind(kind).to_kind(Kind::Float);
        let read = &again.parameters[parameter];
        assert_eq!(read.kind(), Kind::Float, "masters are f32");
        assert!(read.requires_grad() && read.is_leaf(), "{parameter} can be trained");
        assert!(Tensor::equal(read, &stored), "{name}: {parameter} in {kind:?}");
    }
}

/// Files are named as by transformers, `model-00001-of-00002.safetensors` and so on, and none exceeds the limit.
#[test]
fn split_weights_are_indexed() {
    let (policy, _) = tiny(SAMPLE, F32);
    let folder = TempDir::new().unwrap();
    write_weights(folder.path(), &policy.parameters, Kind::Float, 30_000).unwrap();
    let index = std::fs::read(folder.path().join(INDEX)).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    assert_eq!(index["metadata"]["total_size"], 4 * policy.parameter_count());
    let files = weight_files(folder.path()).unwrap();
    let mut named = 0;
    for (number, path) in files.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", number + 1, files.len());
        assert_eq!(path, &folder.path().join(&name));
        let bytes = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert!(file.tensors().iter().map(|(_, view)| view.data().len()).sum::<usize>() <= 30_000);
        for tensor in file.names() {
            assert_eq!(index["weight_map"][tensor], json!(name));
            named += 1;
        }
    }
    assert_eq!(named, policy.parameters.len());
}

/// Copies a checkpoint with its weights in several files and applies `change` to the index.
fn with_index(change: impl FnOnce(&mut Value)) -> TempDir {
    let (policy, _) = tiny(SAMPLE, F32);
    let folder = copy();
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    write_weights(folder.path(), &policy.parameters, Kind::Float, 30_000).unwrap();
    let path = folder.path().join(INDEX);
    let mut index: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut index);
    std::fs::write(path, index.to_string()).unwrap();
    folder
}

#[test]
fn an_index_that_does_not_fit_its_files_is_refused() {
    let name = "model.layers.1.mlp.down_proj.weight";
    let without = with_index(|index| {
        index["weight_map"].as_object_mut().unwrap().remove(name).unwrap();
    });
    check_refusal(&without, &[INDEX, &format!("tensor {name} is missing")]);
    let elsewhere = with_index(|index| index["weight_map"][name] = json!("../other.safetensors"));
    check_refusal(&elsewhere, &[INDEX, "../other.safetensors", "files in the same folder"]);
    let absent = with_index(|index| index["weight_map"][name] = json!("absent.safetensors"));
    check_refusal(&absent, &["cannot read", "absent.safetensors"]);
    let first = "model-00001-of-00004.safetensors";
    let wrong = with_index(|index| {
        assert_ne!(index["weight_map"][name], json!(first));
        index["weight_map"][name] = json!(first);
    });
    check_refusal(&wrong, &[first, &format!("tensor {name} is missing")]);
    let text = with_index(|index| *index = json!("weights"));
    check_refusal(&text, &[INDEX, "is not an index of safetensors files"]);
}

#[test]
fn a_missing_file_is_named() {
    let empty = TempDir::new().unwrap();
    check_refusal(&empty, &["cannot read", "config.json"]);
    let folder = copy();
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    check_refusal(&folder, &["cannot read", "model.safetensors"]);
}

#[test]
fn a_damaged_file_is_named() {
    let folder = copy();
    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    for kept in [0, 7, 100, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..kept]).unwrap();
        check_refusal(&folder, &["model.safetensors is not a safetensors file"]);
    }
    let folder = copy();
    std::fs::write(folder.path().join("config.json"), "{\"model_type\": ").unwrap();
    check_refusal(&folder, &["config.json is not a model configuration"]);
}

#[test]
fn a_tensor_that_is_missing_or_misshapen_is_named() {
    let name = "model.layers.1.mlp.down_proj.weight";
    check_refusal(&with_tensor(name, None), &[&format!("tensor {name} is missing")]);
    let turned = with_tensor(name, Some((Dtype::F32, vec![64, 32])));
    check_refusal(&turned, &[name, "has shape [64, 32]", "requires [32, 64]"]);
    let integers = with_tensor(name, Some((Dtype::I64, vec![32, 64])));
    check_refusal(&integers, &[name, "I64", "accepted: F32, F16, BF16"]);
}
