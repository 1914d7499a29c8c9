//! Model folders: what is written is read again, and what cannot be read says why.

use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use tch::{Kind, Tensor};
use tempfile::TempDir;

use super::{CHECKPOINTS, F32, tiny};
use crate::policy::{Policy, write_weights};
use crate::rollout::tests::golden;

const SAMPLE: &str = "llama-tiny-tied";

/// A copy of a recorded checkpoint.
fn copy() -> TempDir {
    let folder = TempDir::new().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(golden::path(SAMPLE).join(file), folder.path().join(file)).unwrap();
    }
    folder
}

/// The message with which a folder is refused.
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

/// A copy in which the tensor `name` is left out, or stored with another type and shape.
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

#[test]
fn weights_are_read_as_they_were_written() {
    for checkpoint in CHECKPOINTS {
        let (policy, _) = tiny(checkpoint, F32);
        for kind in [Kind::Float, Kind::BFloat16] {
            let folder = TempDir::new().unwrap();
            let config = golden::path(checkpoint).join("config.json");
            std::fs::copy(config, folder.path().join("config.json")).unwrap();
            write_weights(folder.path(), &policy.parameters, kind).unwrap();
            let again = Policy::load(folder.path(), F32).unwrap();
            assert!(again.parameters.keys().eq(policy.parameters.keys()), "{checkpoint}");
            assert_eq!(again.parameter_count(), policy.parameter_count());
            for (name, parameter) in &policy.parameters {
                let stored = parameter.to_kind(kind).to_kind(Kind::Float);
                let read = &again.parameters[name];
                assert_eq!(read.kind(), Kind::Float, "masters are f32");
                assert!(read.requires_grad() && read.is_leaf(), "{name} can be trained");
                assert!(Tensor::equal(read, &stored), "{checkpoint}: {name} in {kind:?}");
            }
        }
    }
}

#[test]
fn weights_keep_every_bit_of_the_recorded_file() {
    let (policy, _) = tiny(SAMPLE, F32);
    let folder = TempDir::new().unwrap();
    write_weights(folder.path(), &policy.parameters, Kind::Float).unwrap();
    let read = |path: &Path| std::fs::read(path.join("model.safetensors")).unwrap();
    let (written, recorded) = (read(folder.path()), read(&golden::path(SAMPLE)));
    let written = SafeTensors::deserialize(&written).unwrap();
    let recorded = SafeTensors::deserialize(&recorded).unwrap();
    assert_eq!(written.len(), recorded.len());
    for (name, view) in recorded.tensors() {
        let found = written.tensor(&name).unwrap();
        assert_eq!((found.dtype(), found.shape()), (view.dtype(), view.shape()), "{name}");
        assert!(found.data() == view.data(), "{name} differs");
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
    check_refusal(&turned, &[name, "has shape [64, 32]", "asks for [32, 64]"]);
    let integers = with_tensor(name, Some((Dtype::I64, vec![32, 64])));
    check_refusal(&integers, &[name, "I64", "accepted: F32, F16, BF16"]);
}
