//! The hybrid back end over one index: BM25 and the real encoder, with fused lists.

use std::fs;
use std::path::PathBuf;

use retriever_server::cli::{EXIT_SUCCESS, EXIT_USAGE};
use serde_json::{Value, json};

use crate::harness::http::{get, post};
use crate::harness::program::{self, model, onnxruntime, text};
use crate::harness::retriever::RetrieverHandle;

const PASSAGES: [(&str, &str); 6] = [
    ("lima", "Lima is the capital and largest city of Peru."),
    ("guernica", "Guernica is a large oil painting by Pablo Picasso about a bombing."),
    ("iron", "Iron is a metal with the symbol Fe and atomic number 26."),
    ("volga", "The Volga flows through Russia into the Caspian Sea."),
    ("code", "The part number QX77 is stamped on the underside."),
    ("oslo", "Oslo is the capital of Norway."),
];

struct World {
    folder: tempfile::TempDir,
    model: PathBuf,
    library: PathBuf,
}

impl World {
    /// Writes a corpus and indexes it for the hybrid back end with the `index` command.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let line = |(id, text): &(&str, &str)| json!({"id": id, "contents": text}).to_string();
        let lines: Vec<String> = PASSAGES.iter().map(line).collect();
        let corpus = folder.path().join("corpus.jsonl");
        fs::write(&corpus, lines.join("\n")).unwrap();
        let world = Self { folder, model: model(), library: onnxruntime() };
        let (code, out, err) = world.run("index", &[("--corpus", text(&corpus))]);
        assert_eq!((code, err.as_str()), (EXIT_SUCCESS, ""), "{out}");
        assert!(out.contains("encoded 6 passages"), "{out}");
        world
    }

    fn index(&self) -> PathBuf {
        self.folder.path().join("index")
    }

    fn run(&self, command: &str, more: &[(&str, &str)]) -> (u8, String, String) {
        let index = self.index();
        let settings = [
            ("--backend", "hybrid"),
            ("--model", text(&self.model)),
            ("--onnxruntime", text(&self.library)),
            ("--device", "cpu"),
            ("--index", text(&index)),
        ];
        let pairs = settings.iter().chain(more).flat_map(|(name, value)| [*name, *value]);
        program::run(&std::iter::once(command).chain(pairs).collect::<Vec<_>>())
    }

    fn start(&self, more: &[(&str, &str)]) -> RetrieverHandle {
        let mut variables = vec![
            ("RETRIEVER_MODEL", text(&self.model)),
            ("RETRIEVER_ONNXRUNTIME", text(&self.library)),
            ("RETRIEVER_DEVICE", "cpu"),
        ];
        variables.extend(more);
        RetrieverHandle::start_with(&self.index(), 0, &variables)
    }
}

async fn lists(retriever: &RetrieverHandle, queries: &[&str]) -> Vec<Vec<(String, f64)>> {
    let body = json!({"queries": queries, "topk": 6, "return_scores": true});
    let reply = post(&retriever.url(), &body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.body.get("errors"), None, "{reply:?}");
    let id_and_score = |hit: &Value| {
        let id = hit["document"]["id"].as_str().unwrap().to_owned();
        (id, hit["score"].as_f64().unwrap())
    };
    let lists = reply.body["result"].as_array().unwrap().iter();
    lists.map(|list| list.as_array().unwrap().iter().map(id_and_score).collect()).collect()
}

const QUERIES: [&str; 4] =
    ["QX77", "chemical element used for making steel", "capital of Norway", " "];

#[tokio::test]
async fn the_reciprocal_ranks_of_both_lists_are_summed() {
    let world = World::new();
    let hybrid = world.start(&[("RETRIEVER_BACKEND", "hybrid")]);
    let info = get(&hybrid.url(), "/info").await.body;
    assert_eq!((&info["backend"], &info["has_reranker"]), (&json!("hybrid"), &json!(false)));
    assert_eq!(info["components"], json!(["bm25", "dense"]));
    let fused = lists(&hybrid, &QUERIES).await;
    let parts = [
        lists(&world.start(&[("RETRIEVER_BACKEND", "bm25")]), &QUERIES).await,
        lists(&world.start(&[("RETRIEVER_BACKEND", "dense")]), &QUERIES).await,
    ];
    for (index, query) in QUERIES.iter().enumerate() {
        let reciprocal_rank = |list: &Vec<(String, f64)>, id: &str| {
            let rank = list.iter().position(|(other, _)| other == id);
            rank.map_or(0.0, |rank| 1.0 / (61 + rank) as f64)
        };
        for (id, score) in &fused[index] {
            let expected: f64 = parts.iter().map(|part| reciprocal_rank(&part[index], id)).sum();
            assert!((score - expected).abs() < 1e-7, "{query}: {id} has {score}, not {expected}");
        }
        let longest = parts.iter().map(|part| part[index].len()).max().unwrap();
        assert_eq!(fused[index].len(), longest, "{query}");
    }
    let best: Vec<&str> = fused[..3].iter().map(|list| list[0].0.as_str()).collect();
    assert_eq!(best, ["code", "iron", "oslo"]);
    assert_eq!(fused[3], []);
}

#[tokio::test]
async fn with_a_weight_of_0_only_the_other_list_counts() {
    let world = World::new();
    let hybrid = world.start(&[
        ("RETRIEVER_BACKEND", "hybrid"),
        ("RETRIEVER_HYBRID", "dense,bm25"),
        ("RETRIEVER_FUSION", "weighted"),
        ("RETRIEVER_FUSION_WEIGHTS", "0,1"),
    ]);
    let bm25 = world.start(&[("RETRIEVER_BACKEND", "bm25")]);
    let (fused, expected) = (lists(&hybrid, &QUERIES).await, lists(&bm25, &QUERIES).await);
    for (fused, expected) in fused.iter().zip(&expected) {
        let ids = |list: &[(String, f64)]| -> Vec<String> {
            list.iter().map(|(id, _)| id.clone()).collect()
        };
        assert_eq!(ids(fused), ids(expected));
    }
}

#[test]
fn invalid_parts_are_named() {
    let world = World::new();
    let (code, _, err) = world.run("check", &[("--hybrid", "bm25,bm25"), ("--rrf-k", "x")]);
    assert_eq!(code, EXIT_USAGE, "{err}");
    for part in ["RETRIEVER_HYBRID (--hybrid) is \"bm25,bm25\"", "RETRIEVER_RRF_K"] {
        assert!(err.contains(part), "{part:?} is not in {err}");
    }
    let (code, _, err) = world.run("check", &[("--reranker", "/nowhere")]);
    assert!(code == EXIT_USAGE && err.contains("/nowhere/model.onnx does not exist"), "{err}");
    let (code, out, err) = world.run("check", &[]);
    assert!(code == EXIT_SUCCESS && out.contains("hybrid"), "{out}{err}");
}
