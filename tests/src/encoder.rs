//! The encoder with the model that set-up exports: its vectors equal those of sentence-transformers, and
//! missing parts are errors.

use std::cell::Cell;
use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread;

use retriever_server::device::{Device, Provider};
use retriever_server::encode::{EncodeError, Encoder, EncoderOptions, Goal, Products, Role};
use serde_json::Value;
use tempfile::TempDir;

const DIMENSION: usize = 384;

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn model_folder() -> PathBuf {
    let folder = in_repository(".cache/models/all-minilm-l6-v2");
    assert!(folder.is_dir(), "{} is missing: run make setup first", folder.display());
    folder
}

fn options() -> EncoderOptions {
    EncoderOptions {
        device: Device::Cpu,
        threads: NonZeroUsize::new(1),
        library: Some(in_repository(".cache/onnxruntime/lib")),
        goal: Goal::Latency,
        products: Products::Auto,
    }
}

/// Creates a folder with the real model and other settings.
fn with_settings(settings: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["model.onnx", "tokenizer.json"] {
        symlink(model_folder().canonicalize().unwrap().join(name), folder.path().join(name))
            .unwrap();
    }
    fs::write(folder.path().join("retriever.toml"), settings).unwrap();
    folder
}

fn open_with(settings: &str) -> Encoder {
    Encoder::open(with_settings(settings).path(), &options()).unwrap()
}

fn encode(encoder: &Encoder, texts: &[&str], role: Role) -> Vec<Vec<f32>> {
    let vectors = encoder.encode(texts, role, &|| false).unwrap();
    assert_eq!(vectors.len(), texts.len() * DIMENSION);
    vectors.chunks(DIMENSION).map(<[f32]>::to_vec).collect()
}

fn encode_one(encoder: &Encoder, text: &str, role: Role) -> Vec<f32> {
    encode(encoder, &[text], role).remove(0)
}

fn length(vector: &[f32]) -> f64 {
    vector.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

fn cosine(left: &[f32], right: &[f32]) -> f64 {
    let products = left.iter().zip(right).map(|(&a, &b)| f64::from(a) * f64::from(b));
    products.sum::<f64>() / (length(left) * length(right))
}

/// Checks that two vectors are the same up to rounding: another batch sums in another order.
#[track_caller]
fn check_same(left: &[f32], right: &[f32]) {
    let cosine = cosine(left, right);
    assert!(cosine > 0.999_999, "the cosine is {cosine}");
}

#[track_caller]
fn check_other(left: &[f32], right: &[f32]) {
    let cosine = cosine(left, right);
    assert!(cosine < 0.999, "the cosine is {cosine}");
}

#[track_caller]
fn refusal(folder: &Path, options: &EncoderOptions) -> String {
    Encoder::open(folder, options).unwrap_err().to_string()
}

/// Reads the recorded texts and vectors, and checks the settings of the recording.
fn recording() -> (Vec<String>, Vec<Vec<f32>>) {
    let named = std::env::var_os("VECTORS_DIR").map(PathBuf::from);
    let copy = in_repository("tests/golden");
    let file = [named, Some(copy)]
        .into_iter()
        .flatten()
        .map(|folder| folder.join("minilm-embeddings.json"))
        .find(|path| path.is_file());
    let recorded: Value = serde_json::from_slice(&fs::read(file.unwrap()).unwrap()).unwrap();
    assert_eq!(recorded["pooling"], "mean");
    assert_eq!(recorded["normalized"], true);
    assert_eq!(recorded["max_length"], 256);
    let texts: Vec<String> = serde_json::from_value(recorded["texts"].clone()).unwrap();
    let vectors: Vec<Vec<f32>> = serde_json::from_value(recorded["vectors"].clone()).unwrap();
    assert!(texts.len() >= 50 && texts.len() == vectors.len());
    (texts, vectors)
}

#[test]
fn vectors_equal_those_of_sentence_transformers() {
    let (texts, expected) = recording();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let encoder = Encoder::open(&model_folder(), &options()).unwrap();
    assert_eq!(encoder.dimension(), DIMENSION);
    let vectors = encode(&encoder, &texts, Role::Query);
    let mut least = 1.0f64;
    for ((text, vector), expected) in texts.iter().zip(&vectors).zip(&expected) {
        let cosine = cosine(vector, expected);
        assert!(cosine >= 0.9999, "{text:?}: the cosine is {cosine}");
        assert!((length(vector) - 1.0).abs() < 1e-5, "{text:?}");
        least = least.min(cosine);
    }
    println!("the lowest cosine of {} texts is {least:.9}", texts.len());
}

#[test]
fn the_order_and_the_batch_of_texts_do_not_matter() {
    let (texts, _) = recording();
    let mut texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let encoder = Encoder::open(&model_folder(), &options()).unwrap();
    let together = encode(&encoder, &texts, Role::Passage);
    texts.reverse();
    let reversed = encode(&encoder, &texts, Role::Passage);
    for (left, right) in together.iter().zip(reversed.iter().rev()) {
        check_same(left, right);
    }
    for (text, vector) in texts.iter().zip(&reversed).step_by(5) {
        check_same(vector, &encode_one(&encoder, text, Role::Passage));
    }
    assert_eq!(encode(&encoder, &[], Role::Query), Vec::<Vec<f32>>::new());
}

#[test]
fn any_text_has_a_vector() {
    let encoder = Encoder::open(&model_folder(), &options()).unwrap();
    let letters = "a".repeat(100_000);
    let marks = "\u{301}".repeat(1000);
    let texts = ["", " \t\n", "\0", "\u{feff}\u{200b}", "東京", "🦀🏔️", &letters, &marks];
    for (text, vector) in texts.iter().zip(encode(&encoder, &texts, Role::Query)) {
        assert!((length(&vector) - 1.0).abs() < 1e-5, "{:?}", text.get(..20));
    }
    // The tokenizer removes case and accents.
    let [plain, accented] =
        ["cafe naive", "Café NAÏVE"].map(|text| encode_one(&encoder, text, Role::Query));
    check_same(&plain, &accented);
}

#[test]
fn a_long_text_is_cut_at_the_limit() {
    let encoder = Encoder::open(&model_folder(), &options()).unwrap();
    // Two of the tokens are special tokens.
    let [query, passage] = [254, 178].map(|words| "mountain ".repeat(words));
    let endless = "mountain ".repeat(1_000_000);
    for (role, limit) in [(Role::Query, &query), (Role::Passage, &passage)] {
        let cut = encode_one(&encoder, limit, role);
        check_same(&encode_one(&encoder, &endless, role), &cut);
        let beyond = format!("{limit} violin concerto");
        check_same(&encode_one(&encoder, &beyond, role), &cut);
        let within = format!("violin concerto {limit}");
        assert!(cosine(&encode_one(&encoder, &within, role), &cut) < 0.9999);
    }
}

#[test]
fn queries_and_passages_have_their_prefixes() {
    let plain = open_with("preset = 'minilm'");
    let e5 = open_with("preset = 'e5'");
    let text = "who painted Guernica";
    let passage = encode_one(&e5, text, Role::Passage);
    check_same(&passage, &encode_one(&plain, "passage: who painted Guernica", Role::Passage));
    let query = encode_one(&e5, text, Role::Query);
    check_same(&query, &encode_one(&plain, "query: who painted Guernica", Role::Query));
    check_other(&query, &passage);
}

#[test]
fn poolings_differ_and_normalisation_is_optional() {
    let text = "the capital of Norway";
    let encode = |settings: &str| encode_one(&open_with(settings), text, Role::Query);
    let mean = encode("pooling = 'mean'");
    let raw = encode("pooling = 'mean'\nnormalize = false");
    check_same(&mean, &raw);
    assert!(length(&raw) > 1.5, "{}", length(&raw));
    let cls = encode("preset = 'bge'\nquery_prefix = ''\nnormalize = false");
    check_other(&mean, &cls);
    let pooler = encode("pooling = 'pooler'\nnormalize = false");
    // The pooler ends in tanh.
    assert!(pooler.iter().all(|value| value.abs() < 1.0));
    assert!(cls.iter().any(|value| value.abs() > 1.0));
    check_other(&cls, &pooler);
}

#[test]
fn work_ends_after_a_stop() {
    let encoder = Encoder::open(&model_folder(), &options()).unwrap();
    // The texts are too long to share a batch.
    let text = "mountain ".repeat(200);
    let texts = [text.as_str(); 20];
    let asked = Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        asked.get() > 3
    };
    let stopped = encoder.encode(&texts, Role::Query, &stop).unwrap_err();
    assert!(matches!(stopped, EncodeError::Stopped), "{stopped}");
    assert_eq!(asked.get(), 4);
}

#[test]
fn several_threads_take_turns() {
    let (texts, _) = recording();
    let texts: Vec<&str> = texts.iter().map(String::as_str).take(12).collect();
    let encoder = Encoder::open(&model_folder(), &options()).unwrap();
    let alone = encode(&encoder, &texts, Role::Query);
    thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| encode(&encoder, &texts, Role::Query))).collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), alone);
        }
    });
}

/// Three sessions of one thread each share the batches of a corpus.
#[test]
fn several_sessions_yield_the_vectors_of_one() {
    let several =
        EncoderOptions { threads: NonZeroUsize::new(3), goal: Goal::Throughput, ..options() };
    let several = Encoder::open(&model_folder(), &several).unwrap();
    let single = Encoder::open(&model_folder(), &options()).unwrap();
    let texts: Vec<String> = (0..200)
        .map(|number| format!("passage {number} ") + &"word ".repeat(number % 37))
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let expected = encode(&single, &texts, Role::Passage);
    for (left, right) in encode(&several, &texts, Role::Passage).iter().zip(&expected) {
        check_same(left, right);
    }
    let alone = encode(&single, &texts[..1], Role::Passage);
    check_same(&encode(&several, &texts[..1], Role::Passage)[0], &alone[0]);
    let stopped = several.encode(&texts, Role::Passage, &|| true).unwrap_err();
    assert!(matches!(stopped, EncodeError::Stopped), "{stopped}");
}

/// Products of split numbers, on tiles or in plain loops, with one session of two threads and two of one.
#[test]
fn split_products_yield_the_vectors_of_onnx_runtime() {
    let (texts, _) = recording();
    let texts: Vec<&str> =
        texts.iter().map(String::as_str).filter(|text| text.len() < 60).collect();
    let texts = &texts[..6];
    let runtime = EncoderOptions { products: Products::Runtime, ..options() };
    let runtime = Encoder::open(&model_folder(), &runtime).unwrap();
    let expected = encode(&runtime, texts, Role::Query);
    let split =
        EncoderOptions { products: Products::Split, threads: NonZeroUsize::new(2), ..options() };
    let split = Encoder::open(&model_folder(), &split).unwrap();
    for (vector, expected) in encode(&split, texts, Role::Query).iter().zip(&expected) {
        check_same(vector, expected);
    }
    check_same(&encode_one(&split, texts[0], Role::Query), &expected[0]);
}

#[test]
fn a_missing_gpu_is_an_error_only_if_it_was_requested() {
    let open = |device| Encoder::open(&model_folder(), &EncoderOptions { device, ..options() });
    assert_eq!(open(Device::Auto).unwrap().provider(), Provider::Cpu);
    let refused = open(Device::Cuda(1)).unwrap_err().to_string();
    let expected = "model.onnx on cuda:1: this ONNX Runtime is built without CUDA";
    assert!(refused.ends_with(expected), "{refused}");
}

#[test]
fn an_incomplete_folder_is_refused() {
    let folder = with_settings("preset = 'minilm'");
    let path = |name: &str| folder.path().join(name);
    let check = |expected: &str| {
        let refused = refusal(folder.path(), &options());
        assert!(refused.contains(expected), "{refused}\nexpected {expected}");
    };
    fs::remove_file(path("model.onnx")).unwrap();
    check("model.onnx is missing, expected an ONNX model");
    fs::write(path("model.onnx"), "not a model").unwrap();
    check("model.onnx on cpu: ");
    fs::remove_file(path("tokenizer.json")).unwrap();
    check("tokenizer.json is missing, expected a tokenizer");
    fs::write(path("tokenizer.json"), "{}").unwrap();
    check("tokenizer.json is not a tokenizer: ");
    fs::write(path("retriever.toml"), "preset = 'e4'").unwrap();
    check(
        r#"retriever.toml: preset = "e4": expected "e5", "bge", "contriever", "minilm" or "gte""#,
    );
    fs::remove_file(path("retriever.toml")).unwrap();
    check(r#"retriever.toml is missing: write one with `preset = "e5"`, "#);
}

#[test]
fn a_token_limit_above_the_models_is_refused_at_once() {
    let folder = with_settings("preset = 'minilm'\nmax_passage_tokens = 513");
    let refused = refusal(folder.path(), &options());
    assert!(refused.contains("model.onnx on cpu: with 513 tokens: "), "{refused}");
    assert!(
        Encoder::open(
            with_settings("preset = 'minilm'\nmax_passage_tokens = 512").path(),
            &options()
        )
        .is_ok()
    );
}

#[test]
fn a_missing_library_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("libonnxruntime.so.1.31.1");
    let library = |path: &Path| EncoderOptions { library: Some(path.to_owned()), ..options() };
    for path in [folder.path(), &file] {
        let refused = refusal(&model_folder(), &library(path));
        let expected = format!("found no libonnxruntime.so in {};", path.display());
        assert!(refused.contains(&expected), "{refused}");
    }
    fs::write(&file, "not a library").unwrap();
    let refused = refusal(&model_folder(), &library(folder.path()));
    assert!(refused.starts_with("cannot load ONNX Runtime from "), "{refused}");
}
