//! The index is replaced while the server answers: no request fails, each is answered from one index as a whole, and an
//! index that cannot be opened changes nothing.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use retriever_server::index::build::{self, BuildRequest};
use serde_json::{Value, json};

use crate::harness::corpus::IndexedCorpus;
use crate::harness::http::{PATIENCE, Reply, get, post, post_bytes_to, text_of};
use crate::harness::program::run;
use crate::harness::retriever::RetrieverHandle;
use crate::harness::wait::wait_until;

const TEST: &str = "reload::a_hangup_loads_the_index_again";
/// The variable with the folder of the index, for the process that serves it.
const INDEX_VARIABLE: &str = "RETRIEVER_TEST_SERVE_INDEX";
/// The clients that ask during the reloads.
const CLIENTS: usize = 6;
const RELOADS: usize = 8;

/// Two indexes of the same passages, with other texts in the second. The served folder is a symbolic link to one.
struct World {
    corpus: IndexedCorpus,
}

impl World {
    fn new() -> Self {
        let world = Self { corpus: IndexedCorpus::build() };
        let other = fs::read_to_string(world.corpus.corpus()).unwrap().replace("river", "lake");
        let corpus = world.path("other.jsonl");
        fs::write(&corpus, other).unwrap();
        let index = world.path("other");
        let request =
            BuildRequest { corpus: vec![corpus], index, force: false, threads: 1, compact: false };
        build::build(&request, &mut |_| {}).unwrap();
        world.serve("index");
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.corpus.folder().join(name)
    }

    fn served(&self) -> PathBuf {
        self.path("served")
    }

    /// Turns the link of the served folder.
    fn serve(&self, name: &str) {
        let link = self.path("link");
        std::os::unix::fs::symlink(self.path(name), &link).unwrap();
        fs::rename(&link, self.served()).unwrap();
    }

    /// Copies an index and cuts a file of the copy.
    fn damage(&self, name: &str, copy: &str, file: &str) {
        copy_files(&self.path(name), &self.path(copy));
        let path = self.path(copy).join(file);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    }
}

fn request() -> Value {
    json!({"queries": ["town7 river", "town9 lake", "land2"], "topk": 5, "return_scores": true})
}

async fn reload(retriever: &RetrieverHandle) -> Reply {
    post_bytes_to(&retriever.operators_url(), "/admin/reload", Vec::new()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_answered_from_one_index_or_the_other_while_it_is_replaced() {
    let world = World::new();
    let retriever = RetrieverHandle::start(&world.served());
    let url = retriever.url();
    let first = post(&url, &request()).await.body;
    let digest = get(&url, "/info").await.body["index_digest"].clone();
    world.serve("other");
    let reply = reload(&retriever).await;
    assert_eq!((reply.status, &reply.body["passage_count"]), (200, &json!(40)), "{reply:?}");
    assert_eq!(reply.body["previous_index_digest"], digest);
    assert_eq!(get(&url, "/info").await.body["index_digest"], reply.body["index_digest"]);
    assert_ne!(reply.body["index_digest"], digest);
    let second = post(&url, &request()).await.body;
    assert!(first != second && second["result"][0][0]["document"]["id"] == "p7", "{second}");
    let answers = Arc::new([first, second]);
    let ended = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (url, answers, ended) = (url.clone(), Arc::clone(&answers), Arc::clone(&ended));
            tokio::spawn(async move {
                let mut seen = [0; 2];
                while !ended.load(Ordering::Relaxed) {
                    let reply = post(&url, &request()).await;
                    assert_eq!(reply.status, 200, "{reply:?}");
                    let index = answers.iter().position(|answer| *answer == reply.body);
                    seen[index.unwrap_or_else(|| panic!("an answer of neither: {reply:?}"))] += 1;
                }
                seen
            })
        })
        .collect();
    for number in 0..RELOADS {
        world.serve(["index", "other"][number % 2]);
        assert_eq!(reload(&retriever).await.status, 200);
        // From now on, requests get the new index.
        assert_eq!(post(&url, &request()).await.body, answers[number % 2], "reload {number}");
    }
    ended.store(true, Ordering::Relaxed);
    let mut seen = [0; 2];
    for client in clients {
        let counts = client.await.unwrap();
        seen = [seen[0] + counts[0], seen[1] + counts[1]];
    }
    assert!(seen.iter().all(|&count| count > 0), "{seen:?}");
    let metrics = text_of(&url, "/metrics").await;
    let expected = format!("retriever_reloads_total{{outcome=\"success\"}} {}", RELOADS + 1);
    assert!(metrics.lines().any(|line| line == expected), "{metrics}");
}

#[tokio::test]
async fn an_index_that_cannot_be_opened_changes_nothing() {
    let world = World::new();
    let retriever = RetrieverHandle::start(&world.served());
    let url = retriever.url();
    let before = post(&url, &request()).await.body;
    world.damage("other", "damaged", "passages.jsonl");
    fs::create_dir(world.path("empty")).unwrap();
    let served = world.served().canonicalize().unwrap();
    let other_folder = |name: &str| served.with_file_name(name).display().to_string();
    for (name, expected) in
        [("damaged", "passages.jsonl is corrupt".to_owned()), ("empty", other_folder("empty"))]
    {
        world.serve(name);
        let reply = reload(&retriever).await;
        assert_eq!(
            (reply.status, &reply.body["code"]),
            (500, &json!("reload_failed")),
            "{reply:?}"
        );
        let detail = reply.body["detail"].as_str().unwrap();
        assert!(detail.contains(&expected) && detail.contains("the old one stays"), "{detail}");
        assert_eq!(post(&url, &request()).await.body, before, "{name}");
        assert_eq!(get(&url, "/readyz").await.status, 200, "{name}");
    }
    world.serve("other");
    assert_eq!(reload(&retriever).await.status, 200);
    assert_ne!(post(&url, &request()).await.body, before);
}

/// Copies a folder with everything in it.
fn copy_files(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy_files(&path, &to);
        } else {
            fs::copy(path, to).unwrap();
        }
    }
}

#[tokio::test]
async fn only_operators_load_the_index_again() {
    let world = World::new();
    let retriever = RetrieverHandle::start(&world.served());
    for (url, status) in [(retriever.url(), 404), (retriever.operators_url(), 200)] {
        let reply = post_bytes_to(&url, "/admin/reload", Vec::new()).await;
        assert_eq!(reply.status, status, "{reply:?}");
    }
    let reply = get(&retriever.operators_url(), "/admin/reload").await;
    assert_eq!((reply.status, &reply.body["code"]), (405, &json!("method_not_allowed")));
    assert_eq!(post(&retriever.operators_url(), &request()).await.status, 404);
}

/// Serves an index in this process until it is killed.
fn serve(index: &str) {
    let flags = ["--addr", "127.0.0.1:0", "--threads", "1", "--log-format", "json"];
    let (code, _, err) = run(&[&["serve", "--index", index][..], &flags].concat());
    panic!("the server ended with {code}: {err}");
}

/// A server in a process of its own, which is killed when this value is dropped.
struct Process {
    child: Child,
    url: String,
}

impl Process {
    fn start(index: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", TEST, "--nocapture"])
            .env(INDEX_VARIABLE, index)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut url = None;
        while url.is_none() {
            let line = lines.next().expect("the server ended before it listened").unwrap();
            let line: Value = serde_json::from_str(&line).unwrap_or_default();
            if line["message"] == "listening" {
                url = line["addr"].as_str().map(|addr| format!("http://{addr}"));
            }
        }
        // The pipe is read to the end, or the server could not write its log.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url: url.unwrap() }
    }

    fn hang_up(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_hangup_loads_the_index_again() {
    if let Ok(index) = std::env::var(INDEX_VARIABLE) {
        return serve(&index);
    }
    tokio::runtime::Runtime::new().unwrap().block_on(hang_up_and_compare());
}

async fn hang_up_and_compare() {
    let world = World::new();
    let process = Process::start(&world.served());
    let before = post(&process.url, &request()).await.body;
    world.serve("other");
    process.hang_up();
    let answer = async || post(&process.url, &request()).await.body;
    wait_until(PATIENCE, answer, |answer| *answer != before).await;
    let metrics = text_of(&process.url, "/metrics").await;
    assert!(metrics.contains("retriever_reloads_total{outcome=\"success\"} 1"), "{metrics}");
}
