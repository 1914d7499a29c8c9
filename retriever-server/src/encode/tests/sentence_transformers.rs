//! Folders as sentence-transformers 6.2.0 saved them: vectors are those of the library.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::Value;
use tempfile::TempDir;

use super::*;

/// The greatest difference of a number from the recorded one.
const TOLERANCE: f32 = 1e-5;

fn golden(name: &str) -> PathBuf {
    let named = std::env::var_os("VECTORS_DIR").map(PathBuf::from);
    let copy = in_repository("tests/golden");
    let folders = [named, Some(copy)].into_iter().flatten();
    let mut paths = folders.map(|folder| folder.join("sentence-transformers").join(name));
    paths.find(|path| path.exists()).unwrap()
}

fn texts() -> Vec<String> {
    let texts: Vec<String> =
        serde_json::from_slice(&fs::read(golden("texts.json")).unwrap()).unwrap();
    assert_eq!(texts.len(), 200);
    texts
}

/// Returns the recorded vectors of a folder: those of all texts as queries, then those of the first
/// texts as passages.
fn recorded(folder: &Path, dimension: usize) -> Vec<Vec<f32>> {
    let bytes = fs::read(folder.join("vectors.f32")).unwrap();
    let (numbers, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty() && numbers.len() % dimension == 0);
    let numbers: Vec<f32> = numbers.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    numbers.chunks(dimension).map(<[f32]>::to_vec).collect()
}

/// Creates a folder with links to the files of a recorded one, except for `changed` ones, which are
/// written if they have text.
fn changed(name: &str, changed: &[(&str, Option<&str>)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    link(&golden(name).canonicalize().unwrap(), folder.path());
    for (file, text) in changed {
        let path = folder.path().join(file);
        if path.is_symlink() {
            fs::remove_file(&path).unwrap();
        }
        if let Some(text) = text {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
        }
    }
    folder
}

fn link(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() { link(&path, &to) } else { symlink(&path, to).unwrap() }
    }
}

/// Compares all vectors of a folder, one by one and in batches. If the vectors of the library are not of
/// length 1, but compared by cosine, ours are the same at length 1.
fn check_folder(name: &str, dimension: usize, is_scaled: bool) {
    let folder = golden(name);
    let encoder = open(&folder);
    assert_eq!(encoder.dimension(), dimension);
    let texts = texts();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut recorded = recorded(&folder, dimension);
    if is_scaled {
        for vector in &mut recorded {
            normalize(vector);
        }
    }
    let passages = recorded.split_off(texts.len());
    assert!(passages.len() > 50);
    let mut greatest = 0.0f32;
    for (role, expected) in [(Role::Query, recorded), (Role::Passage, passages)] {
        let texts = &texts[..expected.len()];
        let together = encode(&encoder, texts, role);
        for ((text, expected), together) in texts.iter().zip(&expected).zip(&together) {
            let alone = &encode(&encoder, &[text], role)[0];
            for vector in [together, alone] {
                let difference = difference(vector, expected);
                assert!(difference < TOLERANCE, "{name}, {role:?} {text:?}: {difference}");
                greatest = greatest.max(difference);
            }
        }
    }
    println!("{name}: the greatest difference is {greatest:.1e}");
}

#[test]
fn a_bert_folder_of_version_6_is_served_as_it_is() {
    check_folder("bert", 8, false);
}

#[test]
fn an_xlm_roberta_folder_of_version_5_with_weights_elsewhere_is_served_as_it_is() {
    check_folder("xlm-roberta", 8, true);
}

#[test]
fn a_modernbert_folder_with_a_dense_layer_is_served_as_it_is() {
    check_folder("modernbert", 6, false);
}

#[test]
fn a_qwen3_folder_with_an_instruction_is_served_as_it_is() {
    check_folder("qwen3", 8, false);
}

/// Every pooling, with and without the prompt, several at once, and shortened vectors.
#[test]
fn every_pooling_equals_that_of_the_library() {
    let bytes = fs::read(golden("variants.json")).unwrap();
    let recorded: Value = serde_json::from_slice(&bytes).unwrap();
    let texts: Vec<String> = serde_json::from_value(recorded["texts"].clone()).unwrap();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let variants = recorded["variants"].as_array().unwrap();
    assert_eq!(variants.len(), 14);
    for variant in variants {
        let name = variant["name"].as_str().unwrap();
        let files: Vec<(String, String)> = variant["files"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(path, value)| (path.clone(), value.to_string()))
            .collect();
        // The vectors of the library are not of length 1, so cosines would hide their length.
        let mut files: Vec<(&str, Option<&str>)> =
            files.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect();
        files.push(("retriever.toml", Some("normalize = false")));
        let folder = changed("bert", &files);
        let encoder = open(folder.path());
        let vectors: [Vec<Vec<f32>>; 2] =
            serde_json::from_value(variant["vectors"].clone()).unwrap();
        for (role, expected) in [Role::Query, Role::Passage].into_iter().zip(vectors) {
            assert_eq!(expected.len(), texts.len());
            let together = encode(&encoder, &texts, role);
            for ((text, vector), expected) in texts.iter().zip(&together).zip(&expected) {
                let difference = difference(vector, expected);
                assert!(difference < TOLERANCE, "{name}, {role:?} {text:?}: {difference}");
            }
        }
    }
}

/// Dynamic quantisation has one scale for the activations of all texts of a run, so each text gets a run of
/// its own. The vectors are then equal to the bit.
#[test]
fn a_dynamically_quantised_model_answers_independently_of_the_batch() {
    let settings = ("retriever.toml", Some("model = 'onnx/model_quantized.onnx'"));
    let folder = changed("bert", &[settings]);
    let texts = texts();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let several =
        EncoderOptions { threads: NonZeroUsize::new(2), goal: Goal::Throughput, ..options() };
    for options in [options(), several] {
        let encoder = Encoder::open(folder.path(), &options).unwrap();
        let together = encode(&encoder, &texts, Role::Query);
        for (text, together) in texts.iter().zip(&together) {
            let alone = &encode(&encoder, &[text], Role::Query)[0];
            assert_eq!(together, alone, "{text:?}");
        }
        let exact = encode(&open(&golden("bert")), &texts, Role::Query);
        let differences = together.iter().zip(&exact).map(|(left, right)| difference(left, right));
        let mean = differences.sum::<f32>() / texts.len() as f32;
        assert!(mean > 1e-3 && mean < 0.3, "{mean}");
    }
}

#[test]
fn single_keys_win_over_the_folder() {
    let text = "the city";
    let with = |settings: &str| {
        let folder = changed("bert", &[("retriever.toml", Some(settings))]);
        encode(&open(folder.path()), &[text], Role::Query).remove(0)
    };
    let plain = open(&golden("bert"));
    let expected = encode(&plain, &["the city"], Role::Passage).remove(0);
    assert!(difference(&with("query_prompt = 'document'"), &expected) < TOLERANCE);
    assert!(difference(&with("query_prefix = 'passage: '"), &expected) < TOLERANCE);
    let full = encode(&plain, &[text], Role::Query).remove(0);
    assert_eq!(with(""), full);
    let mut short = full[..3].to_vec();
    normalize(&mut short);
    assert!(difference(&with("dimension = 3"), &short) < TOLERANCE);
    assert!(difference(&with("pooling = 'cls'"), &full) > 1e-3);
    // A preset stands for everything that modules.json says.
    let preset = with("preset = 'e5'");
    assert!(difference(&preset, &full) < TOLERANCE);
    let lowered = changed("bert", &[("retriever.toml", Some("max_query_tokens = 25"))]);
    let refused = refusal(lowered.path());
    let expected = "max_query_tokens = 25: expected at most 24, the positions of the model";
    assert!(refused.ends_with(expected), "{refused}");
}

/// The flags of tokenizer_config.json win over a tokenizer.json that says otherwise, as in transformers
/// 5.24.0, which builds the tokenizer of a BERT anew.
#[test]
fn the_flags_of_a_bert_tokenizer_win() {
    let tokenizer = fs::read_to_string(golden("bert/tokenizer.json")).unwrap();
    assert!(tokenizer.contains("\"lowercase\": true") || tokenizer.contains("\"lowercase\":true"));
    let cased = tokenizer.replace("\"lowercase\": true", "\"lowercase\": false");
    let cased = cased.replace("\"lowercase\":true", "\"lowercase\":false");
    let folder = changed("bert", &[("tokenizer.json", Some(&cased))]);
    let [left, right] = [golden("bert"), folder.path().to_owned()]
        .map(|folder| encode(&open(&folder), &["The CITY"], Role::Query).remove(0));
    assert_eq!(left, right);
    let config = fs::read_to_string(golden("bert/tokenizer_config.json")).unwrap();
    let config = config.replace("\"do_lower_case\": true", "\"do_lower_case\": false");
    let folder = changed("bert", &[("tokenizer_config.json", Some(&config))]);
    let cased = encode(&open(folder.path()), &["The CITY"], Role::Query).remove(0);
    assert!(difference(&cased, &left) > 1e-3);
    // do_lower_case of sentence-transformers lowers the text before the tokenizer.
    let lowers = ("sentence_bert_config.json", Some(r#"{"do_lower_case": true}"#));
    let folder = changed("bert", &[("tokenizer_config.json", Some(&config)), lowers]);
    assert_eq!(encode(&open(folder.path()), &["The CITY"], Role::Query)[0], left);
}

#[test]
fn a_missing_file_of_weights_is_named() {
    let folder = changed("xlm-roberta", &[("onnx/model.onnx.data", None)]);
    let refused = refusal(folder.path());
    let expected =
        "onnx/model.onnx.data is missing, expected a file with weights of the ONNX model";
    assert!(refused.ends_with(expected), "{refused}");
    let settings = EncoderSettings::load(&golden("xlm-roberta")).unwrap();
    let files: Vec<_> = settings.other_files();
    assert!(files.len() == 2 && files.iter().all(|file| file.is_file()), "{files:?}");
}

/// A dense layer for vectors of another length than the model's.
#[test]
fn a_step_that_does_not_fit_is_named() {
    let folder = changed("modernbert", &[("retriever.toml", Some("pooling = ['cls', 'mean']"))]);
    let refused = refusal(folder.path());
    assert!(
        refused.contains("model.safetensors takes vectors of 8 numbers, but gets 16"),
        "{refused}"
    );
}
