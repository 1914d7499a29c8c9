//! Vectors in every form, from the command line to `/retrieve`, with the real encoder: graphs over them, rows
//! of fewer bits, and files in faiss's format.

use std::fs;
use std::path::Path;

use retriever_server::cli::EXIT_SUCCESS;
use retriever_server::index::dense::ann::SETTINGS;
use retriever_server::vector::hnsw::Builder;
use retriever_server::vector::{Metric, RowFormat, Rows, Scorer};
use serde_json::json;

use crate::dense::{QUERIES, World, best};
use crate::harness::http::post;
use crate::harness::program::{run, text};
use crate::harness::retriever::RetrieverHandle;

const DIMENSION: usize = 384;
const PASSAGE_COUNT: usize = 4;

fn ann<'a>(world: &'a World, more: &[(&'static str, &'a str)]) -> Vec<(&'static str, &'a str)> {
    let mut variables = world.variables();
    variables[0].1 = "ann";
    variables.extend(more);
    variables
}

/// Starts a retriever and checks that it finds the best passage of every query.
fn assert_finds(world: &World, variables: &[(&str, &str)]) {
    let retriever = RetrieverHandle::start_with(&world.path("index"), 0, variables);
    let (queries, expected): (Vec<&str>, Vec<&str>) = QUERIES.into_iter().unzip();
    assert_eq!(best(&retriever, &queries), expected, "{variables:?}");
}

fn refusal(world: &World, variables: &[(&str, &str)]) -> String {
    let started = RetrieverHandle::try_start(&world.path("index"), 0, variables);
    started.err().unwrap().to_string()
}

#[test]
fn passages_are_found_along_a_graph_and_in_every_format() {
    let world = World::new();
    assert_eq!(world.run("index", &[]).0, EXIT_SUCCESS);
    assert!(refusal(&world, &ann(&world, &[])).contains("--backend ann --ann hnsw"));
    // A graph search reads f16 rows unless another format is named.
    let (code, out, err) = world.run("index", &[("--backend", "ann")]);
    assert_eq!((code, err.as_str()), (EXIT_SUCCESS, ""), "{out}");
    for line in ["up to date, 4 vectors", "converted 4 vectors to f16", "linked 4 vectors in"] {
        assert!(out.contains(line), "{line:?} is not in {out}");
    }
    let (_, out, _) = world.run("index", &[("--backend", "ann"), ("--vector-format", "f16")]);
    assert!(out.contains("up to date, hnsw graph over 4 vectors") && !out.contains("converted"));

    assert_finds(&world, &ann(&world, &[]));
    for format in ["f32", "f16"] {
        assert_finds(&world, &ann(&world, &[("RETRIEVER_VECTOR_FORMAT", format)]));
    }
    let i8 = ann(&world, &[("RETRIEVER_VECTOR_FORMAT", "i8")]);
    assert!(refusal(&world, &i8).contains("--vector-format i8"), "{}", refusal(&world, &i8));
    // With a named corpus, missing parts may be built.
    let corpus = world.path("corpus.jsonl");
    let mut building = i8.clone();
    building.push(("RETRIEVER_CORPUS", text(&corpus)));
    assert_finds(&world, &building);
    assert_finds(&world, &i8);
    let mut exact = i8.clone();
    exact[0].1 = "dense";
    assert_finds(&world, &exact);
}

#[test]
fn a_damaged_graph_or_format_is_refused_by_name() {
    let world = World::new();
    let all = [("--backend", "ann"), ("--vector-format", "i8")];
    assert_eq!(world.run("index", &all).0, EXIT_SUCCESS);
    let variables = ann(&world, &[("RETRIEVER_VECTOR_FORMAT", "i8")]);
    for name in ["vectors.hnsw", "vectors.i8", "vectors.f32"] {
        let path = world.path("index").join("dense").join(name);
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        for damaged in [&whole[..whole.len() - 1], &flipped] {
            fs::write(&path, damaged).unwrap();
            let message = refusal(&world, &variables);
            assert!(message.contains(name) && message.contains("corrupt"), "{message}");
        }
        fs::write(&path, &whole).unwrap();
    }
    assert_finds(&world, &variables);
}

#[test]
fn passages_are_found_along_a_graph_of_usearch() {
    let world = World::new();
    let all = [("--backend", "ann"), ("--ann", "usearch"), ("--vector-format", "f16")];
    let (code, out, err) = world.run("index", &all);
    assert_eq!((code, err.as_str()), (EXIT_SUCCESS, ""), "{out}");
    assert!(out.contains("usearch graph, recall@10") && !out.contains("converted"), "{out}");
    // The graph has its own rows; only the exact search reads those of the index.
    let rows = world.path("index").join("dense").join("vectors.f16");
    assert!(!rows.exists());
    let f16 = ann(&world, &[("RETRIEVER_ANN", "usearch")]);
    let f32 = ann(&world, &[("RETRIEVER_ANN", "usearch"), ("RETRIEVER_VECTOR_FORMAT", "f32")]);
    assert_finds(&world, &f16);
    assert!(refusal(&world, &f32).contains("--ann usearch --vector-format f32"));
    let own = ann(&world, &[("RETRIEVER_VECTOR_FORMAT", "f32")]);
    assert!(refusal(&world, &own).contains("no hnsw graph"));
    let path = world.path("index").join("dense").join("vectors.f16.usearch");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let message = refusal(&world, &f16);
    fs::write(&path, &whole).unwrap();
    let both = [("--backend", "dense,ann"), ("--ann", "usearch"), ("--vector-format", "f16")];
    let (code, out, _) = world.run("index", &both);
    assert_eq!(code, EXIT_SUCCESS);
    assert!(out.contains("converted 4 vectors to f16") && rows.exists(), "{out}");
    assert!(message.contains("vectors.f16.usearch") && message.contains("corrupt"), "{message}");
}

/// The folder holds what a kill leaves behind: an incomplete graph and a half-written file.
#[test]
fn a_killed_build_resumes_without_encoding_again() {
    let world = World::new();
    assert_eq!(world.run("index", &[]).0, EXIT_SUCCESS);
    let dense = world.path("index").join("dense");
    let vectors = fs::read(dense.join("vectors.f32")).unwrap();
    let rows = Rows::new(&vectors, RowFormat::F32, DIMENSION).unwrap();
    let mut builder = Builder::new(Scorer::new(rows, Metric::InnerProduct), SETTINGS, 1);
    assert!(builder.insert_batch() && (builder.inserted() as usize) < PASSAGE_COUNT);
    let mut partial = Vec::new();
    builder.write(&mut partial).unwrap();
    fs::write(dense.join(".vectors.hnsw.partial"), &partial).unwrap();
    fs::write(dense.join(".vectors.hnsw.new"), &partial[..50]).unwrap();
    let (code, out, err) = world.run("index", &[("--backend", "ann")]);
    assert_eq!((code, err.as_str()), (EXIT_SUCCESS, ""));
    assert!(out.contains("up to date, 4 vectors") && !out.contains("encoded"), "{out}");
    assert!(out.contains("linked 4 vectors"), "{out}");
    while builder.insert_batch() {}
    let mut whole = Vec::new();
    builder.write(&mut whole).unwrap();
    assert!(
        fs::read(dense.join("vectors.hnsw")).unwrap() == whole,
        "unlike an uninterrupted build"
    );
    assert_finds(&world, &ann(&world, &[]));
}

/// Writes an `IndexFlatIP` or `IndexFlatL2` in faiss's format.
fn write_flat(path: &Path, metric: Metric, vectors: &[u8]) {
    let (code, number) = match metric {
        Metric::InnerProduct => (b"IxFI", 0i32),
        Metric::L2 => (b"IxF2", 1),
    };
    let numbers = vectors.len() / size_of::<f32>();
    let mut file = code.to_vec();
    file.extend((DIMENSION as i32).to_le_bytes());
    for field in [(numbers / DIMENSION) as i64, 1 << 20, 1 << 20] {
        file.extend(field.to_le_bytes());
    }
    file.push(1);
    file.extend(number.to_le_bytes());
    file.extend((numbers as u64).to_le_bytes());
    file.extend(vectors);
    fs::write(path, file).unwrap();
}

/// Returns the scores of the passages for one query, best first.
fn scores(retriever: &RetrieverHandle, query: &str) -> Vec<f64> {
    let body = json!({"queries": [query], "topk": PASSAGE_COUNT, "return_scores": true});
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let reply = runtime.block_on(post(&retriever.url(), &body));
    let list = reply.body["result"][0].as_array().unwrap().clone();
    list.iter().map(|hit| hit["score"].as_f64().unwrap()).collect()
}

#[test]
fn files_of_faiss_are_served_by_either_metric() {
    let world = World::new();
    assert_eq!(world.run("index", &[]).0, EXIT_SUCCESS);
    let dense = world.path("index").join("dense");
    let vectors = fs::read(dense.join("vectors.f32")).unwrap();
    // From here on, the only vectors are those in the file.
    fs::remove_dir_all(&dense).unwrap();
    let file = world.path("flat.index");
    let mut variables = world.variables();
    variables.push(("RETRIEVER_VECTORS", text(&file)));
    let mut scores_by_metric = Vec::new();
    for metric in [Metric::InnerProduct, Metric::L2] {
        write_flat(&file, metric, &vectors);
        assert_finds(&world, &variables);
        let retriever = RetrieverHandle::start_with(&world.path("index"), 0, &variables);
        scores_by_metric.push(scores(&retriever, QUERIES[0].0));
    }
    assert_eq!(scores_by_metric[0].len(), PASSAGE_COUNT);
    // For vectors of length 1: -|q - x|^2 = 2 q.x - 2.
    for (product, distance) in scores_by_metric[0].iter().zip(&scores_by_metric[1]) {
        assert!((2.0 * product - 2.0 - distance).abs() < 1e-5, "{product} {distance}");
    }
    let mut graph = variables.clone();
    graph[0].1 = "ann";
    assert!(refusal(&world, &graph).contains("expected IndexHNSW for the ann back end"));

    write_flat(&file, Metric::L2, &vectors[..vectors.len() - DIMENSION * size_of::<f32>()]);
    assert!(
        refusal(&world, &variables).contains("has vectors 3, expected 4, the number of passages")
    );
    let (whole, part) = (fs::read(&file).unwrap(), world.path("e5_Flat.index.part_aa"));
    fs::write(&part, &whole[..whole.len() - 10]).unwrap();
    fs::write(world.path("e5_Flat.index.part_ab"), &whole[whole.len() - 10..]).unwrap();
    let last = variables.len() - 1;
    variables[last].1 = text(&part);
    let message = refusal(&world, &variables);
    let folder = world.path("");
    let expected = format!(
        "cat {0}e5_Flat.index.part_aa {0}e5_Flat.index.part_ab > {0}e5_Flat.index",
        folder.display()
    );
    assert!(message.contains(&expected), "{message}");
    // Parts of whole pages are served without concatenation. A part of 4096 bytes ends in the third row.
    write_flat(&file, Metric::L2, &vectors);
    let whole = fs::read(&file).unwrap();
    fs::write(&part, &whole[..4096]).unwrap();
    fs::write(world.path("e5_Flat.index.part_ab"), &whole[4096..]).unwrap();
    assert_finds(&world, &variables);
    let (code, _, err) = run(&["check", "--vector-format", "f64", "--index", "x"]);
    assert!(code != EXIT_SUCCESS && err.contains("expected auto, f32, f16 or i8"), "{err}");
}
