//! What the clients of other projects make of an answer, in the smallest form of their own decisions: none of them
//! may take a search that failed for one that found nothing.

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::corpus::IndexedCorpus;
use crate::harness::http::{PATIENCE, Reply, client, get, post, post_bytes, post_bytes_to};
use crate::harness::retriever::RetrieverHandle;

/// The passage that the server cannot read.
const LOST: &str = "town7";

/// Starts a server that fails every query for [`LOST`], and only those: the passage is overwritten once the
/// server has checked its files.
fn start() -> (RetrieverHandle, IndexedCorpus) {
    let corpus = IndexedCorpus::build();
    let retriever = RetrieverHandle::start(&corpus.index());
    let path = corpus.index().join("passages.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let line = text.lines().find(|line| line.contains("The town7 ")).unwrap();
    let mut file = OpenOptions::new().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(text.find(line).unwrap() as u64)).unwrap();
    file.write_all(" ".repeat(line.len()).as_bytes()).unwrap();
    (retriever, corpus)
}

/// A client: its name and version, its request, and its view of an answer.
struct Client {
    name: &'static str,
    request: fn(&[&str]) -> Value,
    /// Returns the number of passages for each query, or the failure that the client notices.
    read: fn(&Reply) -> Result<Vec<usize>, String>,
}

/// Counts the passages of lists.
fn counts(lists: &Value) -> Result<Vec<usize>, String> {
    let lists = lists.as_array().ok_or("not a list")?;
    lists.iter().map(|list| list.as_array().map(Vec::len).ok_or("not a list".into())).collect()
}

/// Takes the key `result` without a look at the status.
fn by_key(reply: &Reply) -> Result<Vec<usize>, String> {
    counts(reply.body.get("result").ok_or("KeyError: 'result'")?)
}

/// Takes the key `result` of a good status; `raise_for_status` raises for any other.
fn by_status(reply: &Reply) -> Result<Vec<usize>, String> {
    if reply.status >= 400 { Err(format!("HTTPError: {}", reply.status)) } else { by_key(reply) }
}

/// Asks again after these statuses alone, and gives up after the others.
fn by_retry(reply: &Reply) -> Result<Vec<usize>, String> {
    if [500, 502, 503, 504].contains(&reply.status) {
        return Err("retry".to_owned());
    }
    by_status(reply)
}

fn rllm(reply: &Reply) -> Result<Vec<usize>, String> {
    if reply.status != 200 {
        return Err(format!("server failed: {}", reply.status));
    }
    Ok(vec![reply.body["results"].as_array().ok_or("KeyError: 'results'")?.len()])
}

fn scored(queries: &[&str]) -> Value {
    json!({"queries": queries, "topk": 3, "return_scores": true})
}

fn flat(queries: &[&str]) -> Value {
    json!({"queries": queries, "topk": 3, "return_scores": false})
}

fn single(queries: &[&str]) -> Value {
    json!({"query": queries[0], "topk": 3, "return_scores": true})
}

fn single_rllm(queries: &[&str]) -> Value {
    json!({"query": queries[0], "top_k": 3})
}

/// verl-tool, slime and their likes notice a failure by the status too, but go on with an empty list.
const CLIENTS: [Client; 11] = [
    Client { name: "Search-R1 a14dc3a", request: scored, read: by_key },
    Client { name: "veRL b178a3c", request: scored, read: by_retry },
    Client { name: "SkyRL-gym a956457", request: single, read: by_retry },
    Client { name: "skyrl-agent", request: scored, read: by_retry },
    Client { name: "slime 624b824", request: flat, read: by_status },
    Client { name: "ASearcher 813e804", request: flat, read: by_key },
    Client { name: "verl-tool 980962b", request: scored, read: by_status },
    Client { name: "Agent-Lightning c632d8d", request: scored, read: by_status },
    Client { name: "RL-Factory d0abc1d", request: scored, read: by_status },
    Client { name: "rLLM 9beb6e0", request: single_rllm, read: rllm },
    Client { name: "s3 ba08d58", request: scored, read: by_key },
];

#[tokio::test]
async fn no_client_takes_a_failed_query_for_an_empty_result() {
    let (retriever, _corpus) = start();
    for Client { name, request, read } in CLIENTS {
        let found = post(&retriever.url(), &request(&["town1"])).await;
        assert_eq!(read(&found), Ok(vec![1]), "{name}: {found:?}");
        let empty = post(&retriever.url(), &request(&[""])).await;
        assert_eq!(read(&empty), Ok(vec![0]), "{name}: {empty:?}");
        let failed = post(&retriever.url(), &request(&[LOST])).await;
        assert!(read(&failed).is_err(), "{name}: {failed:?}");
        assert_eq!((failed.status, failed.retry_after.as_deref()), (503, Some("1")), "{name}");
    }
}

/// One failed query of a batch fails the batch: no known client reads `errors`.
#[tokio::test]
async fn no_client_takes_a_failed_query_of_a_batch_for_an_empty_result() {
    let (retriever, _corpus) = start();
    let queries = ["town1", LOST, "town2"];
    let batched =
        CLIENTS.iter().filter(|client| (client.request)(&queries).get("queries").is_some());
    let mut checked = 0;
    for Client { name, request, read } in batched {
        let failed = post(&retriever.url(), &request(&queries)).await;
        assert!(read(&failed).is_err(), "{name}: {failed:?}");
        assert_eq!(failed.body["code"], "internal", "{name}: {failed:?}");
        checked += 1;
    }
    assert_eq!(checked, 9);
    let detail = "1 of 3 queries failed; the log has the cause; with \"partial\": true, a request \
                  receives the answers to the others";
    assert_eq!(post(&retriever.url(), &flat(&queries)).await.body["detail"], detail);
    let stats = get(&retriever.url(), "/stats").await.body;
    assert_eq!(stats["queries_failed"], 10);
}

#[tokio::test]
async fn a_partial_request_receives_the_other_lists() {
    let (retriever, _corpus) = start();
    let queries = ["town1", LOST, "town2"];
    let body = json!({"queries": queries, "topk": 1, "partial": true});
    let reply = post(&retriever.url(), &body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.body["result"][0][0]["id"], "p1");
    assert_eq!(reply.body["result"][1], json!([]));
    assert_eq!(reply.body["result"][2][0]["id"], "p2");
    let expected = json!([{"index": 1, "code": "internal", "retryable": true}]);
    assert_eq!(reply.body["errors"], expected);
    // If nothing was answered, there is no part.
    let body = json!({"queries": [LOST, LOST], "partial": true});
    let reply = post(&retriever.url(), &body).await;
    assert_eq!((reply.status, &reply.body["code"]), (503, &json!("internal")));
}

/// The wideseek agent of RLinf passes on the model's `count`, which is a text.
#[tokio::test]
async fn values_that_the_reference_takes_are_taken() {
    let corpus = IndexedCorpus::build();
    let retriever =
        RetrieverHandle::start_with(&corpus.index(), 0, &[("RETRIEVER_MAX_TOP_K", "7")]);
    let url = retriever.url();
    for (value, passages) in [
        (json!("5"), 5),
        (json!("5.0"), 5),
        (json!(" 5 "), 5),
        (json!(true), 1),
        (json!(false), 3),
        (json!(8), 7),
        (json!("1_000"), 7),
    ] {
        for return_scores in [json!(1), json!("yes"), json!("On")] {
            let body = json!({"queries": ["river"], "topk": value, "return_scores": return_scores});
            let reply = post(&url, &body).await;
            assert_eq!(reply.status, 200, "{body}: {reply:?}");
            let list = reply.body["result"][0].as_array().unwrap();
            assert_eq!(list.len(), passages, "{body}");
            assert!(list[0]["score"].is_number(), "{body}");
        }
    }
    // A request for more passages than the limit is counted.
    assert_eq!(get(&url, "/stats").await.body["requests_limited"], 6);
    let with_mark = b"\xef\xbb\xbf{\"queries\":[\"town1 \\ud83d\"],\"topk\":1}".to_vec();
    assert_eq!(post_bytes(&url, with_mark).await.body["result"][0][0]["id"], "p1");
    let body = json!({"query": ["town1", "town2"], "topk": 1});
    let reply = post(&url, &body).await;
    assert_eq!(reply.body["result"][1][0]["id"], "p2", "{reply:?}");
}

/// Servers of FastAPI redirect to the path without a slash, and their clients follow.
#[tokio::test]
async fn a_path_may_end_with_a_slash() {
    let corpus = IndexedCorpus::build();
    let retriever = RetrieverHandle::start(&corpus.index());
    let url = retriever.url();
    let body = json!({"queries": ["town1"], "topk": 1}).to_string().into_bytes();
    let reply = post_bytes_to(&url, "/retrieve/", body).await;
    assert_eq!((reply.status, &reply.body["result"][0][0]["id"]), (200, &json!("p1")));
    for path in ["/readyz/", "/health/", "/healthz/", "/livez/", "/info/", "/stats/"] {
        assert_eq!(get(&url, path).await.status, 200, "{path}");
    }
    assert_eq!(post_bytes_to(&url, "/rerank/", b"{}".to_vec()).await.status, 501);
    for path in ["/", "/retrieve//", "/retrieve/x"] {
        assert_eq!(get(&url, path).await.status, 404, "{path}");
    }
}

/// Reads the requests that the clients' own libraries sent (`tests/golden/retrieve-clients.json`).
fn recorded() -> Vec<Value> {
    let file = "retrieve-clients.json";
    let named = std::env::var_os("VECTORS_DIR").map(|folder| PathBuf::from(folder).join(file));
    let copy = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(file);
    let path = named.filter(|path| path.exists()).unwrap_or(copy);
    let recorded: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    recorded["requests"].as_array().unwrap().clone()
}

/// Follows a recorded path of keys and positions.
fn follow<'a>(value: &'a Value, path: &Value) -> &'a Value {
    path.as_array().unwrap().iter().fold(value, |value, step| match step {
        Value::String(key) => &value[key],
        position => &value[position.as_u64().unwrap() as usize],
    })
}

/// Sends a recorded request and returns its status and its answer, by the encoding that the answer names.
async fn send(url: &str, request: &Value) -> (u16, Value) {
    let text = request["body"].as_str().unwrap();
    let body: Vec<u8> = text.chars().map(|byte| u8::try_from(byte).unwrap()).collect();
    let path = request["path"].as_str().unwrap();
    let mut sent = client().post(format!("{url}{path}")).timeout(PATIENCE).body(body);
    for (name, value) in request["headers"].as_object().unwrap() {
        if name != "content-length" {
            sent = sent.header(name, value.as_str().unwrap());
        }
    }
    let answer = sent.send().await.unwrap();
    let status = answer.status().as_u16();
    let encoding = answer.headers()["content-type"].to_str().unwrap().to_owned();
    let bytes = answer.bytes().await.unwrap();
    let value = match encoding.as_str() {
        "application/json" => serde_json::from_slice(&bytes).unwrap(),
        "application/msgpack" => rmp_serde::from_slice(&bytes).unwrap(),
        other => panic!("{other}"),
    };
    (status, value)
}

#[tokio::test]
async fn recorded_requests_get_what_their_clients_read() {
    let corpus = IndexedCorpus::build();
    let requests = recorded();
    assert!(requests.len() >= 23, "{}", requests.len());
    let mut checked = 0;
    for profile in ["rllm", "zerosearch", "proxy"] {
        let variables = [("RETRIEVER_PROFILE", profile)];
        let retriever = RetrieverHandle::start_with(&corpus.index(), 0, &variables);
        for request in requests.iter().filter(|request| request["profile"] == profile) {
            let (status, answer) = send(&retriever.url(), request).await;
            let name = &request["client"];
            assert_eq!(status, 200, "{name}: {answer}");
            let read = follow(&answer, &request["reads"]).as_str();
            let is_page = request["path"] == "/access";
            let (town, passages) = if is_page { (0, 2) } else { (1, 1) };
            let expected =
                format!("\"Town {town}\"\nThe town{town} lies in land{town} by the river.");
            // R1-Searcher cuts a number and white space off.
            let cut = |text: &str| {
                if request["path"] == "/queries" {
                    text.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start().to_owned()
                } else {
                    text.to_owned()
                }
            };
            assert_eq!(read.map(cut), Some(expected), "{name}: {answer}");
            let list = follow(&answer, &request["lists"]).as_array().unwrap();
            assert_eq!(list.len(), passages, "{name}: {answer}");
            assert!(!is_page || list[1].is_null(), "{answer}");
            checked += 1;
        }
    }
    assert_eq!(checked, requests.len(), "a request of another profile");
}

/// A failed search is an error in every shape.
#[tokio::test]
async fn no_other_shape_has_room_for_a_failed_query() {
    let (retriever, _corpus) = start();
    let url = retriever.url();
    for (path, body) in [
        ("/search", json!({"query": LOST})),
        ("/batch_search", json!({"query": ["town1", LOST], "partial": true})),
        ("/queries", json!({"queries": ["town1", LOST], "partial": true})),
    ] {
        let reply = post_bytes_to(&url, path, body.to_string().into_bytes()).await;
        assert_eq!((reply.status, &reply.body["code"]), (503, &json!("internal")), "{path}");
    }
    let body = rmp_serde::to_vec(&json!({"query": LOST, "return_scores": true})).unwrap();
    assert_eq!(post_bytes(&url, body).await.status, 503);
    let body = br#"{"query": ""}"#.to_vec();
    let reply = post_bytes_to(&url, "/search", body).await;
    assert_eq!((reply.status, &reply.body["code"]), (400, &json!("empty_query")));
    let reply = post_bytes_to(&url, "/access", b"{}".to_vec()).await;
    assert_eq!((reply.status, &reply.body["detail"][0]["loc"]), (422, &json!(["body", "urls"])));
}
