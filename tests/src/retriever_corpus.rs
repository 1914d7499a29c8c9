//! An index of another corpus than the named one is not served, whenever the difference is detected.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use retriever_server::config::ServeConfig;
use retriever_server::index::build::{self, BuildRequest};
use retriever_server::{ServeError, Server};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::harness::corpus::IndexedCorpus;
use crate::harness::http::{PATIENCE, get};
use crate::harness::retriever::RetrieverHandle;

/// The end of the message, however the difference was detected.
const ACCEPTED: &str = "expected the corpus of that index, another RETRIEVER_INDEX, or \
                        `retriever-server index --force`";

fn name(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Starts a retriever with this corpus. Returns the error if it does not start.
fn refusal(corpus: &IndexedCorpus, verify: &str) -> Option<ServeError> {
    let path = corpus.corpus();
    let variables = [("RETRIEVER_CORPUS", name(&path)), ("RETRIEVER_VERIFY_INDEX", verify)];
    RetrieverHandle::try_start(&corpus.index(), 0, &variables).err()
}

#[test]
fn the_corpus_of_the_index_is_served_and_may_be_gone() {
    let corpus = IndexedCorpus::build();
    for verify in ["true", "false"] {
        assert!(refusal(&corpus, verify).is_none());
    }
    fs::remove_file(corpus.corpus()).unwrap();
    for verify in ["true", "false"] {
        assert!(refusal(&corpus, verify).is_none());
    }
}

#[test]
fn a_corpus_of_equal_size_is_detected_by_its_digest_if_digests_are_verified() {
    let corpus = IndexedCorpus::build();
    let changed = fs::read_to_string(corpus.corpus()).unwrap().replace("river", "ocean");
    fs::write(corpus.corpus(), changed).unwrap();
    assert!(refusal(&corpus, "false").is_none());
    let error = refusal(&corpus, "true").unwrap();
    assert!(matches!(error, ServeError::Config(_)), "{error:?}");
    let message = error.to_string();
    let (index, path) = (corpus.index(), corpus.corpus());
    let begin = format!(
        "RETRIEVER_CORPUS (--corpus) is {:?}, but the index in {} was built from {} ({}: SHA-256 ",
        name(&path),
        name(&index),
        name(&path),
        name(&path)
    );
    assert!(message.contains(&begin) && message.ends_with(ACCEPTED), "{message}");
}

#[test]
fn a_corpus_of_another_size_is_refused_before_and_while_loading() {
    let corpus = IndexedCorpus::build();
    fs::write(corpus.corpus(), "short").unwrap();
    for verify in ["true", "false"] {
        let message = refusal(&corpus, verify).unwrap().to_string();
        assert!(message.contains("bytes then, 5 now)"), "{message}");
        assert!(message.ends_with(ACCEPTED), "{message}");
    }
}

/// The second corpus file is empty, and a pipe of the same size replaces it. Computing its digest takes until
/// somebody writes to the pipe.
#[tokio::test]
async fn a_server_is_not_ready_while_digests_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["one", "empty"].map(|name| folder.path().join(name));
    fs::write(&files[0], r#"{"id":"1","contents":"Oslo"}"#).unwrap();
    fs::write(&files[1], "").unwrap();
    let index = folder.path().join("index");
    let request = BuildRequest {
        corpus: files.to_vec(),
        index: index.clone(),
        force: false,
        threads: 1,
        compact: false,
    };
    build::build(&request, &mut |_| {}).unwrap();
    fs::remove_file(&files[1]).unwrap();
    assert!(Command::new("mkfifo").arg(&files[1]).status().unwrap().success());

    let corpus = files.each_ref().map(|path| name(path)).join(",");
    let values = [("INDEX", name(&index)), ("CORPUS", &corpus), ("THREADS", "1")];
    let source: BTreeMap<String, String> =
        values.map(|(name, value)| (format!("RETRIEVER_{name}"), value.to_owned())).into();
    let server = Server::new(ServeConfig::resolve(&source).unwrap()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let ending = tokio::spawn(server.run(listener, std::future::pending()));
    let (live, ready) = (get(&url, "/livez").await.status, get(&url, "/readyz").await.status);
    // The write waits until the server reads the pipe. On a separate thread, it cannot block the test if the
    // server never does.
    thread::spawn(move || fs::write(&files[1], "x"));
    let ending = timeout(PATIENCE, ending).await.unwrap().unwrap();
    assert_eq!((live, ready), (200, 503));
    assert!(matches!(ending, Err(ServeError::Config(_))), "{ending:?}");
}
