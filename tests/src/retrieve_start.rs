//! Requests to a server that is starting. They wait, so that clients that never ask again survive a start. The
//! manifest of the index is a pipe here: the start goes on when the test writes it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use retriever_server::{Drained, ServeError, cli};
use serde_json::{Value, json};

use crate::harness::corpus::IndexedCorpus;
use crate::harness::http::{PATIENCE, Reply, get, post, post_bytes_to, wait_for_stat};
use crate::harness::program::{model, onnxruntime, run, text};
use crate::harness::retriever::RetrieverHandle;

/// A server whose start the test holds up until this value is released or dropped.
struct Held {
    retriever: Option<RetrieverHandle>,
    url: String,
    pipe: PathBuf,
    manifest: Vec<u8>,
    is_released: bool,
    _corpus: IndexedCorpus,
}

fn start(variables: &[(&str, &str)]) -> Held {
    let corpus = IndexedCorpus::build();
    let pipe = corpus.index().join("manifest.json");
    let manifest = fs::read(&pipe).unwrap();
    fs::remove_file(&pipe).unwrap();
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let retriever = RetrieverHandle::begin(&corpus.index(), variables);
    let url = retriever.url();
    let retriever = Some(retriever);
    Held { retriever, url, pipe, manifest, is_released: false, _corpus: corpus }
}

impl Held {
    /// Asks in the background.
    fn ask(&self) -> tokio::task::JoinHandle<Reply> {
        let url = self.url.clone();
        tokio::spawn(async move { post(&url, &request()).await })
    }

    /// Lets the start go on.
    fn release(&mut self) {
        self.release_with(&self.manifest.clone());
    }

    /// Lets the start go on with this manifest.
    fn release_with(&mut self, manifest: &[u8]) {
        self.is_released = true;
        // Opening waits for the server to open its end.
        let mut pipe = OpenOptions::new().write(true).open(&self.pipe).unwrap();
        let file = self.pipe.with_extension("new");
        fs::write(&file, manifest).unwrap();
        fs::rename(&file, &self.pipe).unwrap();
        pipe.write_all(manifest).unwrap();
    }

    /// Waits for the end of the server.
    fn ending(&mut self) -> Result<Drained, ServeError> {
        self.retriever.take().unwrap().ending()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The thread of the server would wait for ever.
        if !self.is_released {
            self.release();
        }
    }
}

fn request() -> Value {
    json!({"queries": ["town1"], "topk": 1})
}

#[track_caller]
fn check_503(reply: &Reply, code: &str, retry_after: &str) {
    assert_eq!((reply.status, &reply.body["code"]), (503, &json!(code)), "{reply:?}");
    assert_eq!(reply.retry_after.as_deref(), Some(retry_after));
}

#[tokio::test]
async fn requests_wait_until_the_server_is_ready() {
    let mut held = start(&[]);
    let url = held.url.clone();
    let (first, second) = (held.ask(), held.ask());
    wait_for_stat(&url, "queries_in_flight", 2).await;
    assert_eq!(get(&url, "/livez").await.status, 200);
    for path in ["/readyz", "/health", "/healthz", "/info"] {
        check_503(&get(&url, path).await, "starting", "2");
    }
    // What is wrong with a request does not depend on the index.
    assert_eq!(post(&url, &json!({"queries": 1})).await.status, 422);
    assert_eq!(post_bytes_to(&url, "/rerank", b"{}".to_vec()).await.status, 501);
    assert!(!first.is_finished() && !second.is_finished());
    held.release();
    for reply in [first.await.unwrap(), second.await.unwrap()] {
        assert_eq!((reply.status, &reply.body["result"][0][0]["id"]), (200, &json!("p1")));
    }
    assert_eq!(get(&url, "/readyz").await.status, 200);
}

#[tokio::test]
async fn the_number_of_waiting_requests_is_bounded() {
    for (variable, limit) in
        [("RETRIEVER_MAX_REQUESTS", "1"), ("RETRIEVER_MAX_QUEUED_QUERIES", "1")]
    {
        let mut held = start(&[(variable, limit), ("RETRIEVER_MAX_BATCH_QUERIES", "1")]);
        let url = held.url.clone();
        let waiting = held.ask();
        wait_for_stat(&url, "queries_in_flight", 1).await;
        check_503(&post(&url, &request()).await, "overloaded", "1");
        held.release();
        assert_eq!(waiting.await.unwrap().status, 200, "{variable}");
    }
}

#[tokio::test]
async fn a_request_waits_no_longer_than_its_deadline() {
    let held = start(&[("RETRIEVER_DEADLINE_MS", "50")]);
    check_503(&post(&held.url, &request()).await, "starting", "2");
}

#[tokio::test]
async fn a_request_may_set_a_shorter_deadline() {
    let held = start(&[]);
    let client = crate::harness::http::client();
    let sent = client.post(format!("{}/retrieve", held.url)).header("X-Request-Timeout-Ms", "50");
    let answer = sent.json(&request()).timeout(PATIENCE).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 503);
    assert_eq!(answer.json::<Value>().await.unwrap()["code"], "starting");
}

#[tokio::test]
async fn a_start_that_fails_answers_the_waiting_requests() {
    let mut held = start(&[]);
    let waiting = held.ask();
    wait_for_stat(&held.url, "queries_in_flight", 1).await;
    held.release_with(b"{}");
    check_503(&waiting.await.unwrap(), "start_failed", "5");
    let error = held.ending().unwrap_err().to_string();
    assert!(error.contains("manifest.json"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_asked_to_end_while_it_starts_answers_the_waiting_requests() {
    let mut held = start(&[]);
    let waiting = held.ask();
    wait_for_stat(&held.url, "queries_in_flight", 1).await;
    held.retriever.as_mut().unwrap().begin_drain();
    check_503(&waiting.await.unwrap(), "shutting_down", "5");
    // A process would end now; a thread that reads has to be let go.
    held.release();
    assert_eq!(held.ending().unwrap(), Drained::Complete);
}

/// The process ends between two calls of ONNX Runtime: a call that still ran would log errors.
#[test]
fn a_server_that_is_encoding_passages_ends_without_an_error() {
    const FOLDER: &str = "RETRIEVER_TEST_ENCODES_IN";
    const TEST: &str = "retrieve_start::a_server_that_is_encoding_passages_ends_without_an_error";
    if let Some(folder) = std::env::var_os(FOLDER) {
        let folder = PathBuf::from(folder);
        let (model, library) = (model(), onnxruntime());
        let (corpus, index) = (folder.join("corpus.jsonl"), folder.join("index"));
        let (code, _, err) = run(&[
            "serve",
            "--backend",
            "dense",
            "--model",
            text(&model),
            "--onnxruntime",
            text(&library),
            "--device",
            "cpu",
            "--corpus",
            text(&corpus),
            "--index",
            text(&index),
            "--addr",
            "127.0.0.1:0",
        ]);
        assert_eq!(err, "");
        cli::end();
        #[expect(clippy::exit, reason = "the test is about the exit of a process")]
        std::process::exit(i32::from(code));
    }
    let folder = tempfile::tempdir().unwrap();
    let line = |row: usize| {
        let contents = format!("Passage {row} is about {}.", "rivers and bridges ".repeat(40));
        json!({"id": row, "contents": contents}).to_string()
    };
    let lines: Vec<String> = (0..2000).map(line).collect();
    fs::write(folder.path().join("corpus.jsonl"), lines.join("\n")).unwrap();
    let vectors = folder.path().join("index/.dense.partial/vectors.f32");
    let log = folder.path().join("log");
    for round in 1..=2 {
        let before = fs::metadata(&vectors).map_or(0, |vectors| vectors.len());
        let mut server = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", TEST, "--nocapture"])
            .env(FOLDER, folder.path())
            .env("RETRIEVER_THREADS", "2")
            .stderr(fs::File::create(&log).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let has_begun = || fs::metadata(&vectors).is_ok_and(|vectors| vectors.len() > before);
        let started = Instant::now();
        while !has_begun() && server.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < PATIENCE, "no vectors within {PATIENCE:?}");
            std::thread::yield_now();
        }
        let id = server.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let status = server.wait().unwrap();
        let log = fs::read_to_string(&log).unwrap();
        assert!(has_begun() && log.contains("asked to end"), "round {round}: {log}");
        assert_eq!(status.code(), Some(0), "round {round}: {log}");
        assert!(!log.contains("ERROR") && !log.contains("ONNX Runtime:"), "round {round}: {log}");
    }
}
