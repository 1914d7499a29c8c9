//! The hybrid back end over one index: BM25 and the real encoder, their lists fused.

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
    /// A corpus that the `index` command has indexed for the hybrid back end.
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
    let one = |one: &Value| {
        let id = one["document"]["id"].as_str().unwrap().to_owned();
        (id, one["score"].as_f64().unwrap())
    };
    let lists = reply.body["result"].as_array().unwrap().iter();
    lists.map(|list| list.as_array().unwrap().iter().map(one).collect()).collect()
}

const QUERIES: [&str; 4] =
    ["QX77", "chemical element used for making steel", "capital of Norway", " "];

#[tokio::test]
async fn ranks_of_both_are_summed() {
    let world = World::new();
    let hybrid = world.start(&[("RETRIEVER_BACKEND", "hybrid")]);
    let info = get(&hybrid.url(), "/info").await.body;
    assert_eq!((&info["backend"], &info["has_reranker"]), (&json!("hybrid"), &json!(false)));
    assert_eq!(info["components"], json!(["bm25", "dense"]));
    let found = lists(&hybrid, &QUERIES).await;
    let parts = [
        lists(&world.start(&[("RETRIEVER_BACKEND", "bm25")]), &QUERIES).await,
        lists(&world.start(&[("RETRIEVER_BACKEND", "dense")]), &QUERIES).await,
    ];
    for (place, query) in QUERIES.iter().enumerate() {
        let rank = |list: &Vec<(String, f64)>, id: &str| {
            list.iter().position(|(other, _)| other == id).map_or(0.0, |at| 1.0 / (61 + at) as f64)
        };
        for (id, score) in &found[place] {
            let expected: f64 = parts.iter().map(|part| rank(&part[place], id)).sum();
            assert!((score - expected).abs() < 1e-7, "{query}: {id} has {score}, not {expected}");
        }
        let longest = parts.iter().map(|part| part[place].len()).max().unwrap();
        assert_eq!(found[place].len(), longest, "{query}");
    }
    let best: Vec<&str> = found[..3].iter().map(|list| list[0].0.as_str()).collect();
    assert_eq!(best, ["code", "iron", "oslo"]);
    assert_eq!(found[3], []);
}

#[tokio::test]
async fn a_weight_of_0_leaves_the_other_list() {
    let world = World::new();
    let hybrid = world.start(&[
        ("RETRIEVER_BACKEND", "hybrid"),
        ("RETRIEVER_HYBRID", "dense,bm25"),
        ("RETRIEVER_FUSION", "weighted"),
        ("RETRIEVER_FUSION_WEIGHTS", "0,1"),
    ]);
    let bm25 = world.start(&[("RETRIEVER_BACKEND", "bm25")]);
    let (found, expected) = (lists(&hybrid, &QUERIES).await, lists(&bm25, &QUERIES).await);
    for (found, expected) in found.iter().zip(&expected) {
        let ids = |list: &[(String, f64)]| -> Vec<String> {
            list.iter().map(|(id, _)| id.clone()).collect()
        };
        assert_eq!(ids(found), ids(expected));
    }
}

#[test]
fn parts_that_do_not_fit_are_named() {
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
