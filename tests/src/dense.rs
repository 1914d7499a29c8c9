//! The dense back end from the command line to `/retrieve`, with the real encoder. Passages are found by
//! meaning, vectors are built once, and vectors of another encoder are refused.

use std::fs;
use std::path::{Path, PathBuf};

use retriever_server::cli::{EXIT_FAILURE, EXIT_SUCCESS, EXIT_USAGE};
use serde_json::{Value, json};

use crate::harness::http::{get, post, wait_for_stat};
use crate::harness::program::{model, onnxruntime, run, text};
use crate::harness::retriever::RetrieverHandle;

/// Ids and texts of passages. They share no important word with their queries below.
const PASSAGES: [(&str, &str); 4] = [
    ("lima", "Lima is the capital and largest city of Peru."),
    ("guernica", "Guernica is a large oil painting by Pablo Picasso about a bombing."),
    ("iron", "Iron is a metal with the symbol Fe and atomic number 26."),
    ("volga", "The Volga flows through Russia into the Caspian Sea."),
];
/// Queries, each with the id of its best passage.
pub(crate) const QUERIES: [(&str, &str); 3] = [
    ("which artwork protests against an air raid?", "guernica"),
    ("chemical element used for making steel", "iron"),
    ("longest river in Europe", "volga"),
];

pub(crate) struct World {
    folder: tempfile::TempDir,
    model: PathBuf,
    library: PathBuf,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let line = |(id, text): &(&str, &str)| json!({"id": id, "contents": text}).to_string();
        let lines: Vec<String> = PASSAGES.iter().map(line).collect();
        fs::write(folder.path().join("corpus.jsonl"), lines.join("\n")).unwrap();
        Self { folder, model: model(), library: onnxruntime() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `command` with the settings of the dense back end; those in `changed` replace the defaults.
    pub(crate) fn run(&self, command: &str, changed: &[(&str, &str)]) -> (u8, String, String) {
        let (corpus, index) = (self.path("corpus.jsonl"), self.path("index"));
        let mut settings = vec![
            ("--backend", "dense"),
            ("--model", text(&self.model)),
            ("--onnxruntime", text(&self.library)),
            ("--device", "cpu"),
            ("--corpus", text(&corpus)),
            ("--index", text(&index)),
        ];
        settings.retain(|(name, _)| changed.iter().all(|(other, _)| name != other));
        settings.extend(changed);
        let mut arguments = vec![command];
        arguments.extend(settings.iter().flat_map(|(name, value)| [*name, *value]));
        run(&arguments)
    }

    pub(crate) fn start(&self) -> RetrieverHandle {
        RetrieverHandle::start_with(&self.path("index"), 0, &self.variables())
    }

    pub(crate) fn variables(&self) -> Vec<(&'static str, &str)> {
        vec![
            ("RETRIEVER_BACKEND", "dense"),
            ("RETRIEVER_MODEL", text(&self.model)),
            ("RETRIEVER_ONNXRUNTIME", text(&self.library)),
            ("RETRIEVER_DEVICE", "cpu"),
        ]
    }
}

/// Returns the id of the best passage for each query; "" if there is none.
pub(crate) fn best(retriever: &RetrieverHandle, queries: &[&str]) -> Vec<String> {
    let body = json!({"queries": queries, "topk": 1, "return_scores": true});
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let reply = runtime.block_on(post(&retriever.url(), &body));
    assert_eq!(reply.status, 200, "{reply:?}");
    let lists = reply.body["result"].as_array().unwrap().clone();
    let id = |list: &Value| list[0]["document"]["id"].as_str().unwrap_or_default().to_owned();
    lists.iter().map(id).collect()
}

#[test]
fn passages_are_found_by_meaning() {
    let world = World::new();
    let (code, out, err) = world.run("index", &[]);
    assert_eq!((code, err.as_str()), (EXIT_SUCCESS, ""), "{out}");
    assert!(out.contains("encoded 4 passages into vectors of 384 numbers"), "{out}");
    let (code, out, _) = world.run("index", &[]);
    assert!(code == EXIT_SUCCESS && out.contains("up to date, 4 vectors"), "{out}");

    let retriever = world.start();
    let (queries, expected): (Vec<&str>, Vec<&str>) = QUERIES.into_iter().unzip();
    assert_eq!(best(&retriever, &queries), expected);
    // A query of white space finds nothing and does not affect the others.
    assert_eq!(best(&retriever, &[" ", queries[1], ""]), ["", "iron", ""]);
    // A model that repeats itself writes queries without end.
    let (endless, word) = (format!("{} ", queries[1]).repeat(20_000), "x".repeat(100_000));
    let found = best(&retriever, &[&endless, &word]);
    assert!(found[0] == "iron" && !found[1].is_empty(), "{found:?}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let info = runtime.block_on(get(&retriever.url(), "/info")).body;
    assert_eq!((&info["backend"], &info["passage_count"]), (&json!("dense"), &json!(4)));
}

/// Concurrent requests share batches, and each receives its own results.
#[tokio::test]
async fn concurrent_requests_share_batches_and_have_their_own_results() {
    const REQUESTS: usize = 24;
    let world = World::new();
    assert_eq!(world.run("index", &[]).0, EXIT_SUCCESS);
    let mut variables = world.variables();
    variables.push(("RETRIEVER_BATCH_WAIT_US", "1000000"));
    let retriever = RetrieverHandle::start_with(&world.path("index"), 0, &variables);
    // The first request runs long enough for the others to queue together.
    let long = "which artwork protests against an air raid? ".repeat(9);
    let queries: Vec<String> = (0..100).map(|number| format!("{number} {long}")).collect();
    let url = retriever.url();
    let first = tokio::spawn(async move { post(&url, &json!({"queries": queries})).await });
    wait_for_stat(&retriever.url(), "batches", 1).await;
    let ask = |number: usize| {
        let (query, expected) = QUERIES[number % QUERIES.len()];
        let body = json!({"queries": [query], "topk": 1 + number % 4, "return_scores": true});
        let url = retriever.url();
        let task = tokio::spawn(async move { post(&url, &body).await });
        (task, expected, 1 + number % 4)
    };
    let asked: Vec<_> = (0..REQUESTS).map(ask).collect();
    for (task, expected, top_k) in asked {
        let reply = task.await.unwrap();
        assert_eq!(reply.status, 200, "{reply:?}");
        let list = reply.body["result"][0].as_array().unwrap();
        assert_eq!(list.len(), top_k);
        assert_eq!(list[0]["document"]["id"], expected);
    }
    assert_eq!(first.await.unwrap().status, 200);
    let stats = get(&retriever.url(), "/stats").await.body;
    let batches = stats["batches"].as_f64().unwrap();
    let queries = batches * stats["mean_batch_queries"].as_f64().unwrap();
    assert!((queries - (100 + REQUESTS) as f64).abs() < 1e-6, "{stats}");
    assert!(batches < (1 + REQUESTS) as f64, "no requests shared a batch: {stats}");
}

#[test]
fn a_start_with_a_corpus_builds_missing_parts() {
    let world = World::new();
    let corpus = world.path("corpus.jsonl");
    let mut variables = world.variables();
    variables.push(("RETRIEVER_CORPUS", text(&corpus)));
    let retriever = RetrieverHandle::start_with(&world.path("index"), 0, &variables);
    assert_eq!(best(&retriever, &[QUERIES[0].0]), [QUERIES[0].1]);
    drop(retriever);
    // The index is complete now, so the corpus is no longer needed.
    assert_eq!(best(&world.start(), &[QUERIES[1].0]), [QUERIES[1].1]);
}

#[test]
fn vectors_that_are_missing_or_of_another_encoder_are_refused() {
    let world = World::new();
    let (corpus, index) = (world.path("corpus.jsonl"), world.path("index"));
    run(&["index", "--corpus", text(&corpus), "--index", text(&index)]);
    let variables = world.variables();
    let refusal = |variables: &[(&str, &str)]| {
        RetrieverHandle::try_start(&index, 0, variables).err().unwrap().to_string()
    };
    assert!(refusal(&variables).contains("has no vectors"), "{}", refusal(&variables));

    assert_eq!(world.run("index", &[]).0, EXIT_SUCCESS);
    let other = world.path("other-model");
    fs::create_dir(&other).unwrap();
    for entry in fs::read_dir(&world.model).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), other.join(entry.file_name())).unwrap();
    }
    let settings = "preset = \"minilm\"\npassage_prefix = \"passage: \"\n";
    fs::write(other.join("retriever.toml"), settings).unwrap();
    let mut changed = variables.clone();
    changed[1].1 = text(&other);
    assert!(refusal(&changed).contains("another encoder"), "{}", refusal(&changed));
}

#[test]
fn missing_parts_of_the_encoder_are_named_before_any_work() {
    let world = World::new();
    let (code, _, err) = world.run("check", &[("--model", "/nowhere"), ("--top-k", "0")]);
    assert_eq!(code, EXIT_USAGE, "{err}");
    for part in ["RETRIEVER_MODEL (--model) is \"/nowhere\"", "retriever.toml", "RETRIEVER_TOP_K"] {
        assert!(err.contains(part), "{part:?} is not in {err}");
    }
    let corpus = world.path("corpus.jsonl");
    let serve = ["serve", "--backend", "dense", "--corpus", text(&corpus), "--index", "i"];
    let (code, _, err) = run(&serve);
    assert!(code == EXIT_USAGE && err.contains("RETRIEVER_MODEL (--model) is not set"), "{err}");
    let (code, _, err) = world.run("check", &[("--device", "tpu")]);
    assert!(code == EXIT_USAGE && err.contains("auto, cpu, cuda or cuda:N"), "{err}");
    for command in ["check", "index"] {
        let (code, _, err) = world.run(command, &[("--onnxruntime", "/nowhere/lib.so")]);
        assert!(code == EXIT_FAILURE && err.contains("/nowhere/lib.so"), "{err}");
    }
}

/// Writes zeros as numpy saves them.
fn write_array(path: &Path, rows: usize, columns: usize) {
    let header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}\n");
    let mut array = b"\x93NUMPY\x01\x00".to_vec();
    array.extend((header.len() as u16).to_le_bytes());
    array.extend(header.as_bytes());
    array.extend(vec![0; rows * columns * size_of::<f32>()]);
    fs::write(path, array).unwrap();
}

/// `check` ends as `serve` ends, with the same message.
#[test]
fn check_finds_what_serve_finds() {
    let world = World::new();
    let corpus = world.path("corpus.jsonl");
    let (code, out, err) = world.run("check", &[]);
    assert_eq!(code, EXIT_SUCCESS, "{err}");
    assert!(out.ends_with("serve builds first, before it answers: the vectors of the passages\n"));
    let (index, new) = (world.path("index"), world.path("no-such-index"));
    assert!(!index.try_exists().unwrap(), "a check leaves nothing behind");
    assert_eq!(run(&["index", "--corpus", text(&corpus), "--index", text(&index)]).0, EXIT_SUCCESS);
    let (code, out, _) = world.run("check", &[]);
    assert_eq!(code, EXIT_SUCCESS);
    assert!(out.contains("has 4 passages\nserve builds first"), "{out}");

    let script = world.path("not_vectors.py");
    fs::write(&script, "print(\"no vectors\")\n").unwrap();
    let broken_corpus = world.path("broken.jsonl");
    fs::write(&broken_corpus, "{\"id\": \"a\", \"contents\": 5}\n").unwrap();
    let tokenizer = world.path("bad_tokenizer");
    fs::create_dir(&tokenizer).unwrap();
    for name in ["model.onnx", "retriever.toml"] {
        fs::copy(world.model.join(name), tokenizer.join(name)).unwrap();
    }
    fs::write(tokenizer.join("tokenizer.json"), "{}").unwrap();
    let narrow = world.path("narrow.npy");
    write_array(&narrow, 4, 2);
    let reranker = world.path("reranker");
    fs::create_dir(&reranker).unwrap();
    fs::write(reranker.join("model.onnx"), "no model").unwrap();
    fs::copy(world.model.join("tokenizer.json"), reranker.join("tokenizer.json")).unwrap();

    for (changed, expected) in [
        (vec![("--vectors", text(&script))], "not_vectors.py: starts with \"prin\""),
        (vec![("--vectors", text(&narrow))], "has dimension 2, expected 384"),
        (vec![("--model", text(&tokenizer))], "tokenizer"),
        (vec![("--reranker", text(&reranker))], "reranker"),
        (
            vec![
                ("--backend", "bm25"),
                ("--corpus", text(&broken_corpus)),
                ("--index", text(&new)),
            ],
            "broken.jsonl:1: ",
        ),
    ] {
        let serve: Vec<_> = changed.iter().copied().chain([("--addr", "127.0.0.1:0")]).collect();
        let (check, serve) = (world.run("check", &changed), world.run("serve", &serve));
        assert!(check.2.contains(expected) && check.1.is_empty(), "{check:?}");
        assert_eq!(check, serve);
        assert!([EXIT_FAILURE, EXIT_USAGE].contains(&check.0), "{check:?}");
    }
    assert!(!new.try_exists().unwrap());

    // Without a corpus nothing can be built. A graph that is damaged is found too.
    let without = |command: &str, backend: &str| {
        let (index, model) = (text(&index), text(&world.model));
        run(&[
            command,
            "--backend",
            backend,
            "--index",
            index,
            "--model",
            model,
            "--onnxruntime",
            text(&world.library),
            "--device",
            "cpu",
            "--addr",
            "127.0.0.1:0",
        ])
    };
    let (code, _, err) = without("check", "dense");
    assert!(code == EXIT_FAILURE && err.contains("has no vectors: add them with"), "{err}");
    assert_eq!(world.run("index", &[("--backend", "ann")]).0, EXIT_SUCCESS);
    assert_eq!(without("check", "ann").0, EXIT_SUCCESS);
    let graph = index.join("dense/vectors.hnsw");
    let mut bytes = fs::read(&graph).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&graph, bytes).unwrap();
    let check = without("check", "ann");
    assert!(check.0 == EXIT_FAILURE && check.2.contains("vectors.hnsw is corrupt"), "{check:?}");
    assert_eq!(check, without("serve", "ann"));
}

/// A model that cannot be used ends `index` and a start before the index is built.
#[test]
fn the_model_is_opened_before_anything_is_built() {
    let world = World::new();
    let broken = world.path("broken");
    fs::create_dir(&broken).unwrap();
    for (name, content) in [("model.onnx", "no model"), ("retriever.toml", "preset = 'e5'")] {
        fs::write(broken.join(name), content).unwrap();
    }
    fs::copy(world.model.join("tokenizer.json"), broken.join("tokenizer.json")).unwrap();
    let (code, out, err) = world.run("index", &[("--model", text(&broken))]);
    assert_eq!((code, out.as_str()), (EXIT_FAILURE, ""), "{err}");
    assert!(err.contains("broken/model.onnx on cpu: "), "{err}");
    let (corpus, index) = (world.path("corpus.jsonl"), world.path("index"));
    let mut variables = world.variables();
    variables[1].1 = text(&broken);
    variables.push(("RETRIEVER_CORPUS", text(&corpus)));
    let refused = RetrieverHandle::try_start(&index, 0, &variables).err().unwrap().to_string();
    assert!(refused.contains("broken/model.onnx on cpu: "), "{refused}");
    assert!(!index.exists());
}

/// A folder of sentence-transformers needs no `retriever.toml`: scores are the products of the vectors that
/// the library recorded for the first texts, as passages and as queries.
#[test]
fn a_folder_of_sentence_transformers_is_served_as_it_is() {
    const DIMENSION: usize = 8;
    let golden = in_golden("sentence-transformers");
    let texts: Vec<String> =
        serde_json::from_slice(&fs::read(golden.join("texts.json")).unwrap()).unwrap();
    let bytes = fs::read(golden.join("qwen3/vectors.f32")).unwrap();
    let numbers: Vec<f64> = bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|&bytes| f64::from(f32::from_le_bytes(bytes)))
        .collect();
    let vectors: Vec<&[f64]> = numbers.chunks(DIMENSION).collect();
    let (queries, passages) = vectors.split_at(texts.len());
    let world = World { model: golden.join("qwen3"), ..World::new() };
    let lines = texts.iter().enumerate().take(passages.len());
    let lines: Vec<String> = lines
        .map(|(number, text)| json!({"id": number.to_string(), "contents": text}).to_string())
        .collect();
    fs::write(world.path("corpus.jsonl"), lines.join("\n")).unwrap();
    let (code, out, err) = world.run("index", &[]);
    assert!(code == EXIT_SUCCESS && out.contains("vectors of 8 numbers"), "{out}{err}");
    let retriever = world.start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for query in 100..110 {
        let body = json!({"query": texts[query], "topk": 3, "return_scores": true});
        let reply = runtime.block_on(post(&retriever.url(), &body));
        let hits = reply.body["result"][0].as_array().unwrap();
        assert_eq!(hits.len(), 3, "{}", reply.body);
        let product = |passage: &[f64]| {
            passage.iter().zip(queries[query]).map(|(left, right)| left * right).sum::<f64>()
        };
        let mut best: Vec<f64> = passages.iter().map(|passage| product(passage)).collect();
        best.sort_by(|left, right| right.total_cmp(left));
        for (hit, best) in hits.iter().zip(best) {
            let number: usize = hit["document"]["id"].as_str().unwrap().parse().unwrap();
            let score = hit["score"].as_f64().unwrap();
            assert!((score - product(passages[number])).abs() < 2e-5, "{hit}");
            assert!((score - best).abs() < 2e-5, "{hit}: the best has {best}");
        }
    }
}

fn in_golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}
