//! The converter on small made-up files, on damaged ones, and on the real model.

mod damage;
mod golden;
mod synthetic;

use std::path::PathBuf;

use safetensors::SafeTensors;
use synthetic::Model;
use tempfile::TempDir;

use super::*;

/// A folder with one GGUF file in it.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new(bytes: &[u8]) -> Self {
        let place = Self { folder: TempDir::new().unwrap() };
        fs::write(place.input(), bytes).unwrap();
        place
    }

    fn input(&self) -> PathBuf {
        self.folder.path().join("model.gguf")
    }

    fn output(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    fn convert(&self, dtype: Dtype) -> Result<Summary, ConvertError> {
        convert_gguf(&self.input(), &self.output(), dtype, &mut |_, _| {})
    }

    /// Names in the folder, sorted: shows whether temporary folders stay behind.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[test]
fn a_conversion_writes_a_whole_model_folder() {
    let place = Place::new(&Model::default().bytes());
    let mut reports = Vec::new();
    let summary = convert_gguf(&place.input(), &place.output(), Dtype::F32, &mut |done, total| {
        reports.push((done, total));
    })
    .unwrap();

    assert!(!summary.reused);
    assert_eq!(summary.tensors, 11);
    assert_eq!(reports, (0..=11).map(|done| (done, 11)).collect::<Vec<_>>());
    assert_eq!(place.names(), ["model.gguf", "out"]);
    let names: Vec<_> = summary.file_bytes.keys().map(String::as_str).collect();
    let expected = [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(names, expected);

    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(place.output().join("config.json")).unwrap()).unwrap();
    assert_eq!(config["hidden_size"], 32);
    assert_eq!(config["num_key_value_heads"], 1);
    assert_eq!(config["rms_norm_eps"], 1e-5);
    assert_eq!(config["tie_word_embeddings"], true);
    assert_eq!(config["torch_dtype"], "float32");
    let tokenizer =
        tokenizers::Tokenizer::from_file(place.output().join("tokenizer.json")).unwrap();
    assert_eq!(tokenizer.encode("ab<|im_end|>ba", false).unwrap().get_ids(), [5, 2, 4, 3]);
}

#[test]
fn rows_of_queries_and_keys_get_the_hugging_face_order() {
    let place = Place::new(&Model::default().bytes());
    place.convert(Dtype::F32).unwrap();
    let bytes = fs::read(place.output().join("model.safetensors")).unwrap();
    let weights = SafeTensors::deserialize(&bytes).unwrap();
    // In the made-up file every value of row r is r.
    let first_column = |name: &str| -> Vec<f32> {
        let tensor = weights.tensor(name).unwrap();
        let row_bytes = tensor.shape()[1] * 4;
        let rows = tensor.data().chunks_exact(row_bytes);
        rows.map(|row| f32::from_le_bytes(row[..4].try_into().unwrap())).collect()
    };
    let head = |start: u8| (start..start + 16).step_by(2).chain((start + 1..start + 16).step_by(2));
    let expected: Vec<f32> = head(0).chain(head(16)).map(f32::from).collect();
    assert_eq!(first_column("model.layers.0.self_attn.q_proj.weight"), expected);
    assert_eq!(first_column("model.layers.0.self_attn.k_proj.weight"), expected[..16]);
    let unchanged: Vec<f32> = (0..16u8).map(f32::from).collect();
    assert_eq!(first_column("model.layers.0.self_attn.v_proj.weight"), unchanged);
}

#[test]
fn an_output_layer_of_its_own_is_kept() {
    let place = Place::new(&Model { output_layer: true, ..Model::default() }.bytes());
    assert_eq!(place.convert(Dtype::F16).unwrap().tensors, 12);
    let config = fs::read_to_string(place.output().join("config.json")).unwrap();
    assert!(config.contains("\"tie_word_embeddings\": false"), "{config}");
}

#[test]
fn a_second_conversion_is_found_already_made() {
    let place = Place::new(&Model::default().bytes());
    let first = place.convert(Dtype::Bf16).unwrap();
    let second = place.convert(Dtype::Bf16).unwrap();
    assert_eq!(second, Summary { reused: true, ..first });
    assert!(!place.convert(Dtype::F32).unwrap().reused, "another type is another conversion");

    let weights = place.output().join("model.safetensors");
    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[..whole.len() - 1]).unwrap();
    assert!(!place.convert(Dtype::F32).unwrap().reused, "a damaged folder is made anew");
    assert_eq!(fs::read(&weights).unwrap(), whole);
    assert_eq!(place.names(), ["model.gguf", "out"]);
}

#[test]
fn an_output_that_is_no_model_folder_is_left_alone() {
    let place = Place::new(&Model::default().bytes());
    fs::create_dir(place.output()).unwrap();
    fs::write(place.output().join("thesis.txt"), "mine").unwrap();
    let error = place.convert(Dtype::Bf16).unwrap_err();
    assert!(matches!(error, ConvertError::OutputTaken(_)), "{error}");
    assert_eq!(fs::read_to_string(place.output().join("thesis.txt")).unwrap(), "mine");
}

#[test]
fn a_missing_input_is_named() {
    let place = Place::new(&[]);
    let absent = place.folder.path().join("absent.gguf");
    let error = convert_gguf(&absent, &place.output(), Dtype::Bf16, &mut |_, _| {}).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("cannot read ") && text.contains("absent.gguf"), "{text}");
}

#[test]
fn dtypes_are_parsed_by_name() {
    assert_eq!("bf16".parse(), Ok(Dtype::Bf16));
    assert_eq!("f32".parse(), Ok(Dtype::F32));
    let refused = "int8".parse::<Dtype>();
    assert_eq!(refused, Err("expected bf16, f16 or f32, found \"int8\"".to_owned()));
}
