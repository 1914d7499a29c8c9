//! The converter on small synthetic files, on damaged files, and on the real model.

mod damage;
mod golden;
mod synthetic;

use std::path::PathBuf;

use safetensors::SafeTensors;
use synthetic::{Entry, Model};
use tempfile::TempDir;

use super::*;

/// A temporary folder with one GGUF file.
struct Workspace {
    folder: TempDir,
}

impl Workspace {
    fn new(bytes: &[u8]) -> Self {
        let workspace = Self { folder: TempDir::new().unwrap() };
        fs::write(workspace.input(), bytes).unwrap();
        workspace
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

    /// Returns the names in the folder, sorted. They show whether temporary folders remain.
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
    let workspace = Workspace::new(&Model::default().bytes());
    let mut reports = Vec::new();
    let summary =
        convert_gguf(&workspace.input(), &workspace.output(), Dtype::F32, &mut |done, total| {
            reports.push((done, total));
        })
        .unwrap();

    assert!(!summary.reused);
    assert_eq!(summary.tensors, 11);
    assert_eq!(reports, (0..=11).map(|done| (done, 11)).collect::<Vec<_>>());
    assert_eq!(workspace.names(), ["model.gguf", "out"]);
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
        serde_json::from_slice(&fs::read(workspace.output().join("config.json")).unwrap()).unwrap();
    assert_eq!(config["hidden_size"], 32);
    assert_eq!(config["num_key_value_heads"], 1);
    assert_eq!(config["rms_norm_eps"], 1e-5);
    assert_eq!(config["tie_word_embeddings"], true);
    assert_eq!(config["torch_dtype"], "float32");
    let tokenizer =
        tokenizers::Tokenizer::from_file(workspace.output().join("tokenizer.json")).unwrap();
    assert_eq!(tokenizer.encode("ab<|im_end|>ba", false).unwrap().get_ids(), [5, 2, 4, 3]);
}

#[test]
fn rows_of_queries_and_keys_get_the_hugging_face_order() {
    let workspace = Workspace::new(&Model::default().bytes());
    workspace.convert(Dtype::F32).unwrap();
    let bytes = fs::read(workspace.output().join("model.safetensors")).unwrap();
    let weights = SafeTensors::deserialize(&bytes).unwrap();
    // In the synthetic file, every value of row r is r.
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

/// A factor without a type is that of linear scaling, as in llama.cpp; the type `none` turns it off.
#[test]
fn rotary_scaling_of_metadata_is_written() {
    let scaling = |entries: &[(&'static str, Entry)]| {
        let mut model = Model::default();
        for (key, entry) in entries {
            model = model.with_entry(key, entry.clone());
        }
        let workspace = Workspace::new(&model.bytes());
        workspace.convert(Dtype::Bf16).unwrap();
        let config = fs::read(workspace.output().join("config.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&config).unwrap()["rope_scaling"].clone()
    };
    let factor = ("llama.rope.scaling.factor", Entry::Float(2.5));
    let kind = |name| ("llama.rope.scaling.type", Entry::Text(name));
    let linear = serde_json::json!({"rope_type": "linear", "factor": 2.5});
    assert_eq!(scaling(&[]), serde_json::Value::Null);
    assert_eq!(scaling(std::slice::from_ref(&factor)), linear);
    assert_eq!(scaling(&[("llama.rope.scale_linear", Entry::Float(2.5))]), linear);
    assert_eq!(scaling(&[factor.clone(), kind("linear")]), linear);
    assert_eq!(scaling(&[factor.clone(), kind("none")]), serde_json::Value::Null);
    assert_eq!(
        scaling(&[("llama.rope.scaling.factor", Entry::Float(1.0))]),
        serde_json::Value::Null
    );
    let length = ("llama.rope.scaling.original_context_length", Entry::Unsigned(64));
    let yarn = serde_json::json!({"rope_type": "yarn", "factor": 2.5, "original_max_position_embeddings": 64});
    assert_eq!(scaling(&[factor, kind("yarn"), length]), yarn);
}

#[test]
fn a_separate_output_layer_is_kept() {
    let workspace = Workspace::new(&Model { output_layer: true, ..Model::default() }.bytes());
    assert_eq!(workspace.convert(Dtype::F16).unwrap().tensors, 12);
    let config = fs::read_to_string(workspace.output().join("config.json")).unwrap();
    assert!(config.contains("\"tie_word_embeddings\": false"), "{config}");
}

#[test]
fn a_repeated_conversion_reuses_the_folder() {
    let workspace = Workspace::new(&Model::default().bytes());
    let first = workspace.convert(Dtype::Bf16).unwrap();
    let second = workspace.convert(Dtype::Bf16).unwrap();
    assert_eq!(second, Summary { reused: true, ..first });
    assert!(!workspace.convert(Dtype::F32).unwrap().reused, "another type is another conversion");

    let weights = workspace.output().join("model.safetensors");
    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[..whole.len() - 1]).unwrap();
    assert!(!workspace.convert(Dtype::F32).unwrap().reused, "a damaged folder is converted again");
    assert_eq!(fs::read(&weights).unwrap(), whole);
    assert_eq!(workspace.names(), ["model.gguf", "out"]);
}

#[test]
fn an_output_with_anything_but_a_conversion_is_left_alone() {
    let workspace = Workspace::new(&Model::default().bytes());
    let left_alone = |file: &str, content: &str| {
        let path = workspace.output().join(file);
        fs::write(&path, content).unwrap();
        let error = workspace.convert(Dtype::Bf16).unwrap_err();
        assert!(matches!(error, ConvertError::OutputTaken(_)), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
        fs::remove_file(path).unwrap();
    };
    fs::create_dir(workspace.output()).unwrap();
    left_alone("thesis.txt", "mine");
    // A model of another origin has the same files.
    left_alone("config.json", "{\"model_type\": \"llama\"}");
    left_alone("conversion.json", "{}");
    // What was put into a conversion later is not part of it.
    workspace.convert(Dtype::F32).unwrap();
    left_alone("chat_template.jinja", "{{ messages }}");
    left_alone("tokenizer.json", &"x".repeat(100_000));
    assert!(!workspace.convert(Dtype::Bf16).unwrap().reused);
}

#[test]
fn a_missing_input_is_named() {
    let workspace = Workspace::new(&[]);
    let absent = workspace.folder.path().join("absent.gguf");
    let error =
        convert_gguf(&absent, &workspace.output(), Dtype::Bf16, &mut |_, _| {}).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("cannot read ") && text.contains("absent.gguf"), "{text}");
}

#[test]
fn dtypes_are_parsed_by_name() {
    let parse = |text| <Dtype as clap::ValueEnum>::from_str(text, false);
    assert_eq!(parse("bf16"), Ok(Dtype::Bf16));
    assert_eq!(parse("f16"), Ok(Dtype::F16));
    assert_eq!(parse("f32"), Ok(Dtype::F32));
    assert!(parse("int8").is_err());
}
