//! The life of a retriever: start, status, draining, death and restart.

use std::fs;

use retriever_server::Drained;
use serde_json::json;

use crate::harness::corpus::{IndexedCorpus, PASSAGE_COUNT};
use crate::harness::http::{self, HeldRequest, get, post, post_bytes_to, wait_for_stat};
use crate::harness::retriever::RetrieverHandle;

#[tokio::test]
async fn a_ready_server_reports_its_health_and_its_index() {
    let corpus = IndexedCorpus::build();
    let retriever = RetrieverHandle::start(&corpus.index());
    let url = retriever.url();
    for path in ["/health", "/healthz", "/livez", "/readyz"] {
        let reply = get(&url, path).await;
        assert_eq!((reply.status, reply.body), (200, json!({"status": "ok"})), "{path}");
    }
    let info = get(&url, "/info").await.body;
    assert_eq!(info["backend"], "bm25");
    assert_eq!(info["passage_count"], json!(PASSAGE_COUNT));
    assert_eq!(info["index_digest"].as_str().unwrap().len(), 64);
    assert_eq!(info["limits"]["max_body_bytes"], 16 * 1024 * 1024);
    assert!((info["k1"].as_f64().unwrap() - 0.9).abs() < 1e-6);
    assert!((info["b"].as_f64().unwrap() - 0.4).abs() < 1e-6);
}

#[tokio::test]
async fn statistics_count_requests_and_queries() {
    let corpus = IndexedCorpus::build();
    let retriever = RetrieverHandle::start(&corpus.index());
    let url = retriever.url();
    post(&url, &json!({"queries": ["a", "b"]})).await;
    post(&url, &json!({"queries": [1]})).await;
    let stats = get(&url, "/stats").await.body;
    assert_eq!((&stats["requests"], &stats["requests_refused"]), (&json!(2), &json!(1)));
    assert_eq!((&stats["queries"], &stats["queries_failed"]), (&json!(2), &json!(0)));
}

#[test]
fn a_missing_index_stops_the_start_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join("nowhere");
    let error = RetrieverHandle::try_start(&index, 0, &[]).err().unwrap().to_string();
    assert!(error.contains("there is no index at") && error.contains("nowhere"), "{error}");
}

#[test]
fn a_damaged_index_stops_the_start_with_its_file() {
    let corpus = IndexedCorpus::build();
    let path = corpus.index().join("passages.jsonl");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[1..]).unwrap();
    let error = RetrieverHandle::try_start(&corpus.index(), 0, &[]).err().unwrap().to_string();
    assert!(error.contains("passages.jsonl is corrupt"), "{error}");
}

/// Damage that leaves every size is found while queries are answered, as in an index that takes long to read.
#[tokio::test]
async fn a_damaged_index_goes_out_of_service_with_its_file() {
    let corpus = IndexedCorpus::build();
    let path = corpus.index().join("passages.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    fs::write(&path, whole.replace("river", "ocean")).unwrap();
    let variables = [("RETRIEVER_VERIFY_INDEX", "background")];
    let retriever = RetrieverHandle::try_start(&corpus.index(), 0, &variables).unwrap();
    let url = retriever.url();
    wait_for_stat(&url, "index_files", json!("damaged")).await;
    let request = json!({"queries": ["a"]});
    for reply in [get(&url, "/readyz").await, get(&url, "/info").await, post(&url, &request).await]
    {
        assert_eq!(
            (reply.status, &reply.body["code"]),
            (503, &json!("index_damaged")),
            "{reply:?}"
        );
        let detail = reply.body["detail"].as_str().unwrap();
        assert!(detail.contains("passages.jsonl is corrupt: SHA-256"), "{detail}");
    }
    // A good index takes its place, and all of it is read before.
    fs::write(&path, whole).unwrap();
    let reply = post_bytes_to(&retriever.operators_url(), "/admin/reload", Vec::new()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(post(&url, &request).await.status, 200);
    assert_eq!(get(&url, "/stats").await.body["index_files"], json!("whole"));
}

#[tokio::test]
async fn a_corpus_is_indexed_first_when_there_is_no_index() {
    let corpus = IndexedCorpus::build();
    let index = corpus.folder().join("second");
    let path = corpus.corpus();
    let variables = [("RETRIEVER_CORPUS", path.to_str().unwrap())];
    let retriever = RetrieverHandle::start_with(&index, 0, &variables);
    let reply = post(&retriever.url(), &json!({"queries": ["town9"], "topk": 1})).await;
    assert_eq!(reply.body["result"][0][0]["id"], "p9");
    retriever.stop();
    // The second start finds the index and needs no corpus.
    fs::remove_file(&path).unwrap();
    let retriever = RetrieverHandle::start(&index);
    assert_eq!(get(&retriever.url(), "/readyz").await.status, 200);
}

/// After SIGTERM, new work is refused and admitted work is answered.
#[tokio::test]
async fn draining_finishes_admitted_work() {
    let corpus = IndexedCorpus::build();
    let mut retriever = RetrieverHandle::start(&corpus.index());
    let url = retriever.url();
    let body = json!({"queries": ["town1"], "topk": 1});
    let held = HeldRequest::open(retriever.addr(), &body);
    wait_for_stat(&url, "requests_in_flight", 1).await;
    retriever.begin_drain();
    retriever.draining().await;
    assert_eq!(get(&url, "/livez").await.status, 200);
    for path in ["/readyz", "/health", "/info"] {
        let reply = get(&url, path).await;
        assert_eq!((reply.status, &reply.body["code"]), (503, &json!("shutting_down")), "{path}");
    }
    let reply = post(&url, &body).await;
    assert_eq!((reply.status, reply.retry_after.as_deref()), (503, Some("5")));
    let response = held.complete();
    assert!(response.starts_with("HTTP/1.1 200 ") && response.contains("\"p1\""), "{response}");
    assert_eq!(retriever.finish(), Drained::Complete);
}

#[tokio::test]
async fn an_idle_server_drains_at_once() {
    let corpus = IndexedCorpus::build();
    let retriever = RetrieverHandle::start(&corpus.index());
    let url = retriever.url();
    // The connection stays open, which must not delay the end.
    let client = http::client();
    client.get(format!("{url}/livez")).send().await.unwrap().text().await.unwrap();
    assert_eq!(retriever.drain(), Drained::Complete);
    assert!(client.get(format!("{url}/livez")).send().await.is_err());
}

#[tokio::test]
async fn the_grace_period_ends_the_wait() {
    let corpus = IndexedCorpus::build();
    let variables = [("RETRIEVER_GRACE_PERIOD_MS", "20")];
    let retriever = RetrieverHandle::start_with(&corpus.index(), 0, &variables);
    let _held = HeldRequest::open(retriever.addr(), &json!({"queries": []}));
    wait_for_stat(&retriever.url(), "requests_in_flight", 1).await;
    assert_eq!(retriever.drain(), Drained::OutOfTime);
}

#[tokio::test]
async fn a_killed_server_comes_back_on_its_port() {
    let corpus = IndexedCorpus::build();
    let retriever = RetrieverHandle::start(&corpus.index());
    let (url, port) = (retriever.url(), retriever.addr().port());
    let body = json!({"queries": ["town1"], "topk": 1});
    let before = post(&url, &body).await.body;
    retriever.stop();
    assert!(http::client().get(format!("{url}/livez")).send().await.is_err());
    let _again = RetrieverHandle::start_with(&corpus.index(), port, &[]);
    assert_eq!(post(&url, &body).await.body, before);
}
