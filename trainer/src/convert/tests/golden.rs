//! The converter compared with values of ggml's own Python package; see `origin` in the golden files.

use std::path::Path;

use serde_json::Value as Json;

use super::dequantize::BlockType;
use super::*;
use crate::policy::tests::{F32, packed_logits};
use crate::policy::{Decoder, Policy};

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn golden(name: &str) -> Json {
    let path = repository().join("tests/golden").join(name);
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn bytes_of(hexadecimal: &Json) -> Vec<u8> {
    let digits = hexadecimal.as_str().unwrap();
    (0..digits.len())
        .step_by(2)
        .map(|start| u8::from_str_radix(&digits[start..start + 2], 16).unwrap())
        .collect()
}

#[test]
fn every_block_type_yields_ggmls_values_to_the_bit() {
    let golden = golden("convert-blocks.json");
    let types = golden["types"].as_array().unwrap();
    assert_eq!(types.len(), 11);
    for case in types {
        let name = case["type"].as_str().unwrap();
        let block_type = BlockType::from_code(case["code"].as_u64().unwrap() as u32, name).unwrap();
        assert_eq!(block_type.name(), name);
        let values = block_type.dequantize(&bytes_of(&case["blocks"]));
        let bits: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(bits, bytes_of(&case["values"]), "{name}");
    }
}

#[test]
fn the_real_model_converts_to_the_reference_weights_and_token_ids() {
    let input = repository().join(".cache/gguf/SmolLM2-135M-Instruct.Q4_1.gguf");
    assert!(input.is_file(), "{} is missing: run `make setup` first", input.display());
    let folder = TempDir::new().unwrap();
    let output = folder.path().join("model");
    let summary = convert_gguf(&input, &output, Dtype::Bf16, &mut |_, _| {}).unwrap();

    let golden = golden("convert-smollm2.json");
    assert_eq!(summary.source_sha256, golden["source_sha256"].as_str().unwrap());
    assert_eq!(summary.parameters, 134_515_008);
    let bytes = fs::read(output.join("model.safetensors")).unwrap();
    let weights = SafeTensors::deserialize(&bytes).unwrap();
    let expected = golden["tensors"].as_object().unwrap();
    assert_eq!((weights.len(), expected.len()), (272, 272));
    for (name, tensor) in weights.tensors() {
        assert_eq!(serde_json::json!(tensor.shape()), expected[&name]["shape"], "{name}");
        assert_eq!(hex(&Sha256::digest(tensor.data())), expected[&name]["bf16_sha256"], "{name}");
    }

    let tokenizer = tokenizers::Tokenizer::from_file(output.join("tokenizer.json")).unwrap();
    let cases = golden["tokenizer"].as_array().unwrap();
    assert!(cases.len() > 50);
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let ids = tokenizer.encode(text, false).unwrap();
        assert_eq!(serde_json::json!(ids.get_ids()), case["ids"], "{text:?}");
        assert_eq!(tokenizer.decode(ids.get_ids(), false).unwrap(), text);
    }
}

/// Llama 3 with `rope_freqs.weight`, Llama with biases, Qwen2 and Qwen3: weights to the bit, token ids, and log-probs.
#[test]
fn files_of_each_family_convert_to_what_transformers_reads() {
    let golden = golden("gguf/expected.json");
    let texts = golden["texts"].as_array().unwrap();
    let ids: Vec<u32> = serde_json::from_value(golden["ids"].clone()).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let name = case["file"].as_str().unwrap();
        let input = repository().join("tests/golden/gguf").join(name);
        let folder = TempDir::new().unwrap();
        let output = folder.path().join("model");
        convert_gguf(&input, &output, Dtype::F32, &mut |_, _| {}).unwrap();

        let bytes = fs::read(output.join("model.safetensors")).unwrap();
        let weights = SafeTensors::deserialize(&bytes).unwrap();
        let expected = case["tensors"].as_object().unwrap();
        assert_eq!(weights.len(), expected.len(), "{name}");
        for (tensor_name, tensor) in weights.tensors() {
            let digest = hex(&Sha256::digest(tensor.data()));
            assert_eq!(digest, expected[&tensor_name].as_str().unwrap(), "{name}: {tensor_name}");
        }

        // The library alone, and the trainer's own reading of the folder.
        let library = tokenizers::Tokenizer::from_file(output.join("tokenizer.json")).unwrap();
        let tokenizer = crate::token::Tokenizer::from_folder(&output).unwrap();
        for (index, text) in texts.iter().enumerate() {
            let text = text.as_str().unwrap();
            let encode = |special| library.encode(text, special).unwrap().get_ids().to_vec();
            assert_eq!(
                serde_json::json!(encode(false)),
                case["token_ids"][index],
                "{name}: {text:?}"
            );
            assert_eq!(
                serde_json::json!(encode(true)),
                case["whole_ids"][index],
                "{name}: {text:?}"
            );
            let own = tokenizer.encode_template(text).unwrap();
            assert_eq!(serde_json::json!(own), case["token_ids"][index], "{name}: {text:?}");
        }
        assert_eq!(tokenizer.end_ids(), [1]);

        let policy = Policy::load(&output, F32).unwrap();
        let decoder = Decoder::new(&policy.config, policy.config.max_positions, F32.device);
        let logits = tch::no_grad(|| packed_logits(&policy, &decoder, &[ids.as_slice()]).remove(0));
        let log_probs = logits.log_softmax(-1, tch::Kind::Float);
        let expected = case["log_probs"].as_array().unwrap();
        assert_eq!(expected.len(), ids.len() - 1);
        for (row, theirs) in expected.iter().enumerate() {
            let ours = log_probs.double_value(&[row as i64, i64::from(ids[row + 1])]);
            let theirs = theirs.as_f64().unwrap();
            assert!((ours - theirs).abs() < 1e-4, "{name}, row {row}: {ours}, {theirs}");
        }
    }
}

#[test]
fn templates_with_names_are_kept() {
    let input = repository().join("tests/golden/gguf/qwen3.gguf");
    let folder = TempDir::new().unwrap();
    let output = folder.path().join("model");
    convert_gguf(&input, &output, Dtype::F32, &mut |_, _| {}).unwrap();
    let config: Json =
        serde_json::from_slice(&fs::read(output.join("tokenizer_config.json")).unwrap()).unwrap();
    let expected = serde_json::json!([
        {"name": "default", "template": "{{ messages[0].content }}"},
        {"name": "tool_use", "template": "{{ messages[0].role }}"},
    ]);
    assert_eq!(config["chat_template"], expected);
}
