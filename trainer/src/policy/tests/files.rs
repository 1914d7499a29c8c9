//! Round trips of model folders, and the messages for folders that cannot be read.

use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tch::{Kind, Tensor};
use tempfile::TempDir;

use super::{CHECKPOINTS, F32, tiny};
use crate::golden;
use crate::policy::checkpoint_files::is_doubtful;
use crate::policy::{Policy, stored_bytes, weight_files, write_weights};

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
    let without = with_index(|_| {});
    std::fs::remove_file(without.path().join(INDEX)).unwrap();
    check_refusal(&without, &[INDEX, "is missing, which says", first]);
}

/// A wrapper puts its name in front. transformers draws random weights for such a file, with a warning.
#[test]
fn a_tensor_under_a_longer_name_is_named() {
    let (policy, _) = tiny(SAMPLE, F32);
    let wrapped =
        |(name, tensor): (&String, &Tensor)| (format!("_orig_mod.{name}"), tensor.shallow_clone());
    for shard_bytes_max in [usize::MAX, 30_000] {
        let folder = copy();
        std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
        let tensors = policy.parameters.iter().map(wrapped).collect();
        write_weights(folder.path(), &tensors, Kind::Float, shard_bytes_max).unwrap();
        check_refusal(&folder, &["embed_tokens.weight is missing; there is _orig_mod.model."]);
        let error = stored_bytes(folder.path(), &policy.config).unwrap_err().to_string();
        assert!(error.contains("there is _orig_mod.model."), "{error}");
    }
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

/// transformers lists such tensors in a warning.
#[test]
fn tensors_that_the_model_does_not_use_are_told_unless_they_are_known_to_be_idle() {
    for idle in ["lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"] {
        assert!(!is_doubtful(idle), "{idle}");
    }
    for doubtful in ["v_head.summary.weight", "model.layers.2.mlp.up_proj.weight"] {
        assert!(is_doubtful(doubtful), "{doubtful}");
        let (mut policy, _) = tiny(SAMPLE, F32);
        let tensor = Tensor::from_slice(&[1.0f32, 2.0]);
        policy.parameters.insert(doubtful.to_owned(), tensor);
        let folder = copy();
        write_weights(folder.path(), &policy.parameters, Kind::Float, usize::MAX).unwrap();
        assert!(!Policy::load(folder.path(), F32).unwrap().parameters.contains_key(doubtful));
    }
}

/// Older tools write the size as a float, others no metadata at all. transformers reads the map alone.
#[test]
fn the_metadata_of_an_index_do_not_matter() {
    for metadata in [json!({"total_size": 92_776.0}), json!({}), Value::Null, json!({"x": [1]})] {
        let folder = with_index(|index| index["metadata"] = metadata.clone());
        Policy::load(folder.path(), F32).unwrap();
    }
    let folder = with_index(|index| {
        index.as_object_mut().unwrap().remove("metadata").unwrap();
    });
    Policy::load(folder.path(), F32).unwrap();
}

/// Copies the weights of a model without the prefix that a model without a head does not have.
fn without_prefix(shard_bytes_max: usize) -> TempDir {
    let (policy, _) = tiny(SAMPLE, F32);
    let folder = copy();
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let bare = policy.parameters.iter().map(|(name, tensor)| {
        (name.strip_prefix("model.").unwrap().to_owned(), tensor.shallow_clone())
    });
    write_weights(folder.path(), &bare.collect(), Kind::Float, shard_bytes_max).unwrap();
    folder
}

/// `AutoModel` saves `embed_tokens.weight` and `layers.0…`. transformers adds the prefix for a model with a head.
#[test]
fn weights_without_the_prefix_of_the_model_are_read() {
    let (policy, _) = tiny(SAMPLE, F32);
    for shard_bytes_max in [usize::MAX, 30_000] {
        let folder = without_prefix(shard_bytes_max);
        let read = Policy::load(folder.path(), F32).unwrap();
        assert!(read.parameters == policy.parameters);
        assert!(stored_bytes(folder.path(), &policy.config).unwrap() > 0);
    }
    // The head is not one of the base model's tensors, so an untied model lacks it.
    let folder = without_prefix(usize::MAX);
    let path = folder.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(
        path,
        text.replace("\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false"),
    )
    .unwrap();
    check_refusal(&folder, &["tensor lm_head.weight is missing"]);
}

/// A pickle can run code. The message has a command that converts it.
#[test]
fn pickled_weights_are_refused_with_a_command() {
    for pickle in ["pytorch_model.bin", "pytorch_model.bin.index.json"] {
        let folder = copy();
        std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
        std::fs::write(folder.path().join(pickle), b"\x80\x02}q\x00.").unwrap();
        let parts =
            [pickle, "is a pickle", "accepted: safetensors files", "python3 -c", "save_file"];
        check_refusal(&folder, &parts);
    }
    let folder = TempDir::new().unwrap();
    let recorded = golden::path("lora-tiny-llama");
    let text = std::fs::read_to_string(recorded.join("adapter_config.json")).unwrap();
    let base = recorded.join("../llama-tiny-untied").canonicalize().unwrap();
    let text = text.replace("../llama-tiny-untied", base.to_str().unwrap());
    std::fs::write(folder.path().join("adapter_config.json"), text).unwrap();
    std::fs::write(folder.path().join("adapter_model.bin"), b"\x80\x02}q\x00.").unwrap();
    check_refusal(&folder, &["adapter_model.bin is a pickle", "python3 -c"]);
}
