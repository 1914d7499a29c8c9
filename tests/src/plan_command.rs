//! `retriever-server plan`: its figures equal the size of the index that is then built.

use std::fs;
use std::path::Path;

use retriever_server::cli::{EXIT_FAILURE, EXIT_SUCCESS, EXIT_USAGE};
use serde_json::{Value, json};

use crate::harness::corpus::{IndexedCorpus, PASSAGE_COUNT};
use crate::harness::program::{model, onnxruntime, run, text};

/// Runs `plan`; returns its JSON and its table. Checks that the exit code agrees with the verdict.
fn plan(folder: &Path, arguments: &[&str]) -> (Value, String) {
    let json = folder.join("plan.json");
    let arguments = [&["plan", "--json", text(&json)][..], arguments].concat();
    let (code, out, err) = run(&arguments);
    assert_eq!(err, "");
    let plan: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let fits = plan["fits"].as_bool().unwrap();
    assert_eq!(code, if fits { EXIT_SUCCESS } else { EXIT_FAILURE }, "{out}");
    (plan, out)
}

fn part<'a>(plan: &'a Value, name: &str) -> &'a Value {
    let serving = plan["needs"]["serving"].as_array().unwrap();
    serving.iter().find(|need| need["part"] == name).unwrap()
}

#[test]
fn the_index_has_the_planned_size() {
    let corpus = IndexedCorpus::build();
    let (input, index) = (corpus.corpus(), corpus.folder().join("planned"));
    let (model, library) = (model(), onnxruntime());
    let common = ["--index", text(&index), "--model", text(&model)];
    let dense = ["--backends", "dense", "--dimension", "384", "--corpus", text(&input)];
    let (before, _) = plan(corpus.folder(), &[&common[..], &dense].concat());
    assert_eq!(before["passages"], PASSAGE_COUNT);
    assert!(!index.try_exists().unwrap());

    let encoder = ["--onnxruntime", text(&library), "--device", "cpu", "--backend", "dense"];
    let arguments = [&["index", "--corpus", text(&input)][..], &common, &encoder].concat();
    let (code, _, err) = run(&arguments);
    assert_eq!((code, err.as_str()), (EXIT_SUCCESS, ""));
    for (name, file) in [
        ("passages", "passages.jsonl"),
        ("offsets", "passages.offsets"),
        ("vectors", "dense/vectors.f32"),
    ] {
        let need = part(&before, name);
        assert_eq!((&need["is_exact"], &need["disk_there_bytes"]), (&json!(true), &json!(0)));
        let size = fs::metadata(index.join(file)).unwrap().len();
        assert_eq!(need["disk_bytes"], size, "{name}");
    }

    // A complete index needs no writing, and its vectors state their dimension.
    let (after, out) = plan(corpus.folder(), &[&common[..], &["--backends", "dense"]].concat());
    assert_eq!(after["disk_to_write_bytes"], 0, "{out}");
    let model_bytes = part(&after, "model")["memory_bytes"].as_u64().unwrap();
    assert!(model_bytes > 80_000_000, "{out}");
}

#[test]
fn a_collection_can_be_planned_by_its_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join("index");
    let arguments = [
        "--passages",
        "21015324",
        "--dimension",
        "768",
        "--backends",
        "bm25,ann",
        "--index",
        text(&index),
    ];
    let (planned, out) = plan(folder.path(), &arguments);
    assert_eq!(part(&planned, "vectors")["disk_bytes"], 64_559_075_328_u64);
    // A graph search reads rows of half precision.
    assert_eq!(part(&planned, "vectors, f16")["disk_bytes"], 32_279_537_664_u64);
    assert!(part(&planned, "graph")["disk_bytes"].as_u64().unwrap() > 21_015_324 * 140);
    for line in ["64.6 GB", "GPU memory, if a GPU searches: 32.3 GB", "memory needed: "] {
        assert!(out.contains(line), "{line:?} is not in\n{out}");
    }
}

#[test]
fn a_corpus_can_be_planned_before_there_is_an_index() {
    let corpus = IndexedCorpus::build();
    let input = corpus.corpus();
    let (planned, out) = plan(corpus.folder(), &["--corpus", text(&input)]);
    assert_eq!((&planned["passages"], &planned["index"]), (&json!(PASSAGE_COUNT), &Value::Null));
    assert!(out.contains("disk space needed in the current folder: "), "{out}");
    let (code, out, err) = run(&["plan"]);
    assert_eq!((code, out.as_str()), (EXIT_USAGE, ""));
    assert!(err.contains("expected --passages, --corpus, or --index"), "{err}");
}

#[test]
fn the_model_states_the_dimension() {
    let folder = tempfile::tempdir().unwrap();
    let (model, library) = (model(), onnxruntime());
    let dense = ["--passages", "1000", "--backends", "dense", "--model", text(&model)];
    let (planned, _) =
        plan(folder.path(), &[&dense[..], &["--onnxruntime", text(&library)]].concat());
    assert_eq!(part(&planned, "vectors")["disk_bytes"], 1000 * 384 * 4);
    let (code, out, err) = run(&[&["plan"][..], &dense, &["--onnxruntime", "/nowhere"]].concat());
    assert_eq!((code, out.as_str()), (EXIT_USAGE, ""));
    assert!(err.contains("/nowhere") && err.contains("unless --dimension is set"), "{err}");
}

#[test]
fn missing_inputs_of_a_plan_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join("index");
    for (arguments, expected) in [
        (vec![], "but there is no index: expected an existing one, or --corpus or --passages"),
        (vec!["--passages", "9", "--backends", "dense"], "--dimension is not set: expected the"),
        (vec!["--corpus", "/nowhere.jsonl"], "/nowhere.jsonl cannot be read: No such file"),
        (vec!["--passages", "0"], "expected an integer from 1 to 4294967295"),
        (
            vec!["--passages", "9", "--backends", "best"],
            "RETRIEVER_BACKEND (--backend) is \"best\": exp",
        ),
        (vec!["--passages", "9", "--vector-format", "f8"], "expected auto, f32, f16 or i8"),
        (vec!["--passages", "9", "--threads", "0"], "RETRIEVER_THREADS (--threads) is \"0\""),
        (
            vec!["--passages", "9", "--dimension", "9", "--backends", "dense", "--model", "/no"],
            "--model is \"/no\", but",
        ),
    ] {
        let arguments = [&["plan", "--index", text(&index)][..], &arguments].concat();
        let (code, out, err) = run(&arguments);
        assert_eq!((code, out.as_str()), (EXIT_USAGE, ""), "{arguments:?}");
        assert!(err.contains(expected), "{expected:?} is not in {err}");
    }
}
