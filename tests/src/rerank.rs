//! Re-ranking: scores equal those of `transformers`, and both `/retrieve` and `/rerank` use them.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use retriever_server::device::Device;
use retriever_server::encode::EncoderOptions;
use retriever_server::encode::Pair;
use retriever_server::encode::cross_encoder::CrossEncoder;
use serde_json::{Value, json};

use crate::harness::corpus::IndexedCorpus;
use crate::harness::http::{Reply, get, post, post_bytes_to};
use crate::harness::retriever::RetrieverHandle;

/// Largest difference of a logit: kernels differ, and so does the order of sums.
const TOLERANCE: f64 = 1e-4;

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn golden(classes: usize) -> PathBuf {
    in_repository(&format!("tests/golden/cross-encoder-tiny-{classes}"))
}

fn library() -> PathBuf {
    let folder = in_repository(".cache/onnxruntime/lib");
    assert!(folder.is_dir(), "{} is missing: run make setup first", folder.display());
    folder
}

fn open(folder: &Path) -> CrossEncoder {
    let options = EncoderOptions {
        device: Device::Cpu,
        threads: NonZeroUsize::new(1),
        library: Some(library()),
        ..EncoderOptions::default()
    };
    CrossEncoder::open(folder, &options).unwrap()
}

/// Returns pairs and their scores: the logit of a pair, or the difference of its two logits.
fn recording(classes: usize) -> (Vec<[String; 2]>, Vec<f64>) {
    let bytes = fs::read(golden(classes).join("expected.json")).unwrap();
    let recorded: Value = serde_json::from_slice(&bytes).unwrap();
    let pairs: Vec<[String; 2]> = serde_json::from_value(recorded["pairs"].clone()).unwrap();
    let logits: Vec<Vec<f64>> = serde_json::from_value(recorded["logits"].clone()).unwrap();
    assert!(pairs.len() == logits.len() && pairs.len() >= 15);
    let score = |logits: &Vec<f64>| match logits[..] {
        [logit] => logit,
        [first, second] => second - first,
        _ => panic!("{logits:?}"),
    };
    let scores = logits.iter().map(score).collect();
    (pairs, scores)
}

fn scored(encoder: &CrossEncoder, pairs: &[[String; 2]]) -> Vec<f64> {
    let pairs: Vec<Pair<'_>> =
        pairs.iter().map(|[query, passage]| Pair { query, passage }).collect();
    let scores = encoder.score(&pairs, &|| false).unwrap();
    scores.into_iter().map(|score| f64::from(score.unwrap())).collect()
}

#[test]
fn scores_equal_those_of_transformers() {
    for classes in [1, 2] {
        let (pairs, expected) = recording(classes);
        let encoder = open(&golden(classes));
        let together = scored(&encoder, &pairs);
        let mut greatest = 0.0f64;
        for ((pair, expected), in_batch) in pairs.iter().zip(&expected).zip(&together) {
            let alone = scored(&encoder, std::slice::from_ref(pair))[0];
            for score in [*in_batch, alone] {
                let difference = (score - expected).abs();
                assert!(difference < TOLERANCE, "{pair:?}: {score}, expected {expected}");
                greatest = greatest.max(difference);
            }
        }
        println!("{classes} classes: the largest difference is {greatest:.1e}");
    }
}

#[test]
fn a_stop_leaves_the_rest_without_a_score() {
    let (pairs, _) = recording(1);
    let pairs: Vec<Pair<'_>> =
        pairs.iter().map(|[query, passage]| Pair { query, passage }).collect();
    let many = pairs.repeat(10);
    let asked = std::cell::Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        asked.get() > 20
    };
    let scores = open(&golden(1)).score(&many, &stop).unwrap();
    let count = scores.iter().flatten().count();
    assert!(count > 0 && count < many.len(), "{count} of {}", many.len());
    assert!(scores.last().unwrap().is_none());
}

#[test]
fn a_score_may_be_a_probability() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["model.onnx", "tokenizer.json"] {
        fs::copy(golden(1).join(name), folder.path().join(name)).unwrap();
    }
    let settings = "score = \"sigmoid\"\nmax_tokens = 64\n";
    fs::write(folder.path().join("reranker.toml"), settings).unwrap();
    let (pairs, logits) = recording(1);
    for (score, logit) in scored(&open(folder.path()), &pairs).iter().zip(logits) {
        assert!((score - 1.0 / (1.0 + (-logit).exp())).abs() < TOLERANCE, "{score} of {logit}");
    }
    // A limit above the model's number of positions is refused when the model is opened.
    fs::write(folder.path().join("reranker.toml"), "max_tokens = 65\n").unwrap();
    let options = EncoderOptions { library: Some(library()), ..EncoderOptions::default() };
    let refused = CrossEncoder::open(folder.path(), &options).unwrap_err().to_string();
    assert!(refused.contains("with 65 tokens"), "{refused}");
}

struct Fixture {
    retriever: RetrieverHandle,
    _corpus: IndexedCorpus,
}

fn start(variables: &[(&str, &str)]) -> Fixture {
    let corpus = IndexedCorpus::build();
    let (model, library) = (golden(1), library());
    let mut all = vec![
        ("RETRIEVER_RERANKER", model.to_str().unwrap()),
        ("RETRIEVER_ONNXRUNTIME", library.to_str().unwrap()),
        ("RETRIEVER_DEVICE", "cpu"),
    ];
    all.extend(variables);
    let retriever = RetrieverHandle::start_with(&corpus.index(), 0, &all);
    Fixture { retriever, _corpus: corpus }
}

impl Fixture {
    async fn rerank(&self, body: &Value) -> Reply {
        let bytes = body.to_string().into_bytes();
        post_bytes_to(&self.retriever.url(), "/rerank", bytes).await
    }
}

fn document(text: &str) -> Value {
    json!({"id": text, "contents": text, "url": "kept"})
}

/// Returns the recorded pairs as a request: every query with two documents, its own and the first.
fn request() -> (Value, Vec<Vec<(String, f64)>>) {
    let (pairs, _) = recording(1);
    let encoder = open(&golden(1));
    let (mut queries, mut documents, mut expected) = (Vec::new(), Vec::new(), Vec::new());
    for [query, passage] in &pairs {
        let texts = [pairs[0][1].clone(), passage.clone()];
        let both = texts.each_ref().map(|text| [query.clone(), text.clone()]);
        let mut list: Vec<(String, f64)> =
            texts.iter().cloned().zip(scored(&encoder, &both)).collect();
        list.sort_by(|(_, first), (_, second)| second.total_cmp(first));
        queries.push(query.clone());
        documents.push(json!([{"document": document(&texts[0])}, document(&texts[1])]));
        expected.push(list);
    }
    (json!({"queries": queries, "documents": documents, "return_scores": true}), expected)
}

/// The reference server pairs each query with all documents and returns other texts.
#[tokio::test]
async fn documents_of_each_query_are_ranked_by_their_scores() {
    let fixture = start(&[]);
    let (mut body, expected) = request();
    let reply = fixture.rerank(&body).await;
    assert_eq!((reply.status, reply.content_type.as_str()), (200, "application/json"));
    assert_eq!(reply.body.get("errors"), None);
    let lists = reply.body["result"].as_array().unwrap();
    assert_eq!(lists.len(), expected.len());
    for (list, expected) in lists.iter().zip(&expected) {
        assert_eq!(list.as_array().unwrap().len(), 2);
        for (hit, (text, score)) in list.as_array().unwrap().iter().zip(expected) {
            assert!((hit["score"].as_f64().unwrap() - score).abs() < TOLERANCE, "{hit}");
            assert_eq!(hit["document"], document(text));
        }
    }
    body["rerank_topk"] = json!(1);
    body["return_scores"] = json!(false);
    let reply = fixture.rerank(&body).await;
    for (list, expected) in reply.body["result"].as_array().unwrap().iter().zip(&expected) {
        assert_eq!(list, &json!([document(&expected[0].0)]));
    }
    for body in [
        json!({"queries": [], "documents": []}),
        json!({"queries": ["a"], "documents": [[]], "rerank_topk": null}),
    ] {
        let reply = fixture.rerank(&body).await;
        let count = body["queries"].as_array().unwrap().len();
        assert_eq!(reply.body, json!({"result": vec![json!([]); count]}));
    }
}

#[tokio::test]
async fn every_bad_value_is_named_with_its_location() {
    let fixture = start(&[("RETRIEVER_MAX_RERANK_DOCUMENTS", "3"), ("RETRIEVER_MAX_TOP_K", "9")]);
    let good = document("x");
    let cases = [
        (json!({"documents": []}), json!(["body", "queries"]), "field required: queries"),
        (json!({"queries": "a", "documents": []}), json!(["body", "queries"]), "is a string"),
        (json!({"queries": ["a"]}), json!(["body", "documents"]), "field required: documents"),
        (
            json!({"queries": ["a"], "documents": "x"}),
            json!(["body", "documents"]),
            "is a string, expected a list of lists",
        ),
        (
            json!({"queries": ["a", "b"], "documents": [[good]]}),
            json!(["body", "documents"]),
            "has 1 lists, expected 2 as queries",
        ),
        (
            json!({"queries": ["a"], "documents": [[good, good, good, good]]}),
            json!(["body", "documents"]),
            "has 4 documents, expected at most 3",
        ),
        (
            json!({"queries": ["a", "b"], "documents": [[], good]}),
            json!(["body", "documents", 1]),
            "is an object, expected a list of documents",
        ),
        (
            json!({"queries": ["a"], "documents": [[good, "x"]]}),
            json!(["body", "documents", 0, 1]),
            "is a string, expected an object",
        ),
        (
            json!({"queries": ["a"], "documents": [[{"id": 1}]]}),
            json!(["body", "documents", 0, 0, "contents"]),
            "field required: contents",
        ),
        (
            json!({"queries": ["a"], "documents": [[{"document": {"contents": 3}}]]}),
            json!(["body", "documents", 0, 0, "document", "contents"]),
            "expected a string",
        ),
        (
            json!({"queries": ["a"], "documents": [[{"document": "x"}]]}),
            json!(["body", "documents", 0, 0, "document"]),
            "is a string, expected an object",
        ),
        (
            json!({"queries": ["a"], "documents": [[good]], "rerank_topk": "x"}),
            json!(["body", "rerank_topk"]),
            "is \"x\", expected an integer of at least 0",
        ),
        (
            json!({"queries": ["a"], "documents": [[good]], "return_scores": "often"}),
            json!(["body", "return_scores"]),
            "expected true or false",
        ),
    ];
    for (body, location, message) in cases {
        let reply = fixture.rerank(&body).await;
        assert_eq!(reply.status, 422, "{body}: {reply:?}");
        let first = &reply.body["detail"][0];
        assert_eq!(first["loc"], location, "{body}: {reply:?}");
        assert!(first["msg"].as_str().unwrap().contains(message), "{body}: {reply:?}");
    }
    let reply = post_bytes_to(&fixture.retriever.url(), "/rerank", b"[1".to_vec()).await;
    assert_eq!(reply.status, 422);
    let reply = fixture.rerank(&json!({"queries": ["a"], "documents": [[good]]})).await;
    assert_eq!(reply.status, 200, "the server no longer answers");
}

#[tokio::test]
async fn a_query_that_is_too_long_is_cut() {
    let fixture = start(&[("RETRIEVER_MAX_QUERY_BYTES", "4")]);
    let documents = json!([[document("x")], [document("y")]]);
    let scores = async |query: &str| {
        let body = json!({"queries": [query, "a"], "documents": documents, "return_scores": true});
        let reply = fixture.rerank(&body).await;
        assert_eq!((reply.status, reply.body.get("errors")), (200, None), "{reply:?}");
        reply.body["result"].clone()
    };
    assert_eq!(scores("much too long").await, scores("much").await);
    let stats = get(&fixture.retriever.url(), "/stats").await.body;
    assert_eq!(stats["queries_cut"], 1);
}

#[tokio::test]
async fn without_a_model_reranking_is_refused() {
    let corpus = IndexedCorpus::build();
    let retriever = RetrieverHandle::start(&corpus.index());
    let reply = post_bytes_to(&retriever.url(), "/rerank", b"{}".to_vec()).await;
    assert_eq!((reply.status, &reply.body["code"]), (501, &json!("no_reranker")));
    assert!(reply.body["detail"].as_str().unwrap().contains("RETRIEVER_RERANKER is not set"));
    assert_eq!(get(&retriever.url(), "/rerank").await.status, 405);
}

/// `/retrieve` sorts by the model's scores and returns passages that the back end alone ranks too low.
#[tokio::test]
async fn results_of_the_back_end_are_reranked() {
    let fixture = start(&[("RETRIEVER_RERANK_DEPTH", "8")]);
    let query = "land1 river";
    let body = json!({"queries": [query], "topk": 3, "return_scores": true});
    let reply = post(&fixture.retriever.url(), &body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let corpus = IndexedCorpus::build();
    let plain = RetrieverHandle::start(&corpus.index());
    let deep = json!({"queries": [query], "topk": 8, "return_scores": true});
    let hits = post(&plain.url(), &deep).await.body["result"][0].as_array().unwrap().clone();
    assert!(hits.len() > 3);
    let pairs: Vec<[String; 2]> = hits
        .iter()
        .map(|hit| [query.to_owned(), hit["document"]["contents"].as_str().unwrap().to_owned()])
        .collect();
    let mut expected: Vec<f64> = scored(&open(&golden(1)), &pairs);
    expected.sort_by(|first, second| second.total_cmp(first));
    let list = reply.body["result"][0].as_array().unwrap();
    assert_eq!(list.len(), 3);
    for (hit, expected) in list.iter().zip(&expected) {
        assert!((hit["score"].as_f64().unwrap() - expected).abs() < TOLERANCE, "{list:?}");
    }
}
