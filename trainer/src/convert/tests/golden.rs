//! The converter compared with values of ggml's own Python package; see `origin` in the golden files.

use std::path::Path;

use serde_json::Value as Json;

use super::dequantize::BlockType;
use super::*;

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
