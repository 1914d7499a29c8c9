//! Invalid requests: each receives a clear error in JSON, and the server continues.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::harness::corpus::IndexedCorpus;
use crate::harness::http::{HeldRequest, PATIENCE, Reply, get, post, post_bytes, wait_for_stat};
use crate::harness::retriever::RetrieverHandle;

fn start(variables: &[(&str, &str)]) -> (RetrieverHandle, IndexedCorpus) {
    let corpus = IndexedCorpus::build();
    (RetrieverHandle::start_with(&corpus.index(), 0, variables), corpus)
}

#[track_caller]
fn check_422(reply: &Reply, loc: &Value, message: &str) {
    assert_eq!((reply.status, reply.content_type.as_str()), (422, "application/json"), "{reply:?}");
    let detail = &reply.body["detail"][0];
    assert_eq!(&detail["loc"], loc, "{reply:?}");
    assert!(detail["msg"].as_str().unwrap().contains(message), "{reply:?}");
    assert!(detail["type"].is_string(), "{reply:?}");
}

async fn check_still_answers(url: &str) {
    let reply = post(url, &json!({"queries": ["town1"], "topk": 1})).await;
    assert_eq!(reply.body["result"][0][0]["id"], "p1");
}

#[tokio::test]
async fn errors_of_malformed_requests_name_location_and_problem() {
    let (retriever, _corpus) = start(&[]);
    let url = retriever.url();
    let cases: [(&[u8], Value, &str); 8] = [
        (b"", json!(["body"]), "empty"),
        (b"{\"queries\":", json!(["body"]), "not JSON: EOF"),
        (b"{\"queries\":[\"a\xff\"]}", json!(["body"]), "not UTF-8: invalid at byte 14"),
        (b"[1]", json!(["body"]), "expected an object"),
        (b"{}", json!(["body", "queries"]), "field required"),
        (b"{\"queries\":[\"a\",5]}", json!(["body", "queries", 1]), "expected a string"),
        (
            b"{\"queries\":[],\"topk\":-1}",
            json!(["body", "topk"]),
            "is -1, expected an integer of at least 0",
        ),
        (
            b"{\"query\":\"a\",\"return_scores\":2}",
            json!(["body", "return_scores"]),
            "is 2, expected true or false",
        ),
    ];
    for (body, loc, message) in cases {
        check_422(&post_bytes(&url, body.to_vec()).await, &loc, message);
    }
    check_still_answers(&url).await;
}

#[tokio::test]
async fn a_batch_beyond_the_limit_is_refused() {
    let (retriever, _corpus) = start(&[("RETRIEVER_MAX_BATCH_QUERIES", "2")]);
    let reply = post(&retriever.url(), &json!({"queries": ["a", "b", "c"]})).await;
    check_422(&reply, &json!(["body", "queries"]), "has 3 queries, expected at most 2");
}

#[tokio::test]
async fn a_body_of_17_megabytes_is_refused_with_the_limit() {
    let (retriever, _corpus) = start(&[]);
    let url = retriever.url();
    let body = json!({"queries": ["x".repeat(17_000_000)]}).to_string().into_bytes();
    let reply = post_bytes(&url, body).await;
    assert_eq!((reply.status, reply.content_type.as_str()), (413, "application/json"));
    assert_eq!(reply.body["limit_bytes"], 16 * 1024 * 1024);
    assert!(reply.body["detail"].as_str().unwrap().contains("larger than 16777216 bytes"));
    check_still_answers(&url).await;
}

/// curl waits for `100 Continue` before it sends a large body. The refusal must come before that.
#[tokio::test]
async fn a_large_body_is_refused_before_it_is_sent() {
    let (retriever, _corpus) = start(&[]);
    let mut stream = TcpStream::connect(retriever.addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(
            b"POST /retrieve HTTP/1.1\r\nHost: test\r\nContent-Length: 17000000\r\n\
              Expect: 100-continue\r\nConnection: close\r\n\r\n",
        )
        .unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 413 "), "{response}");
}

/// The reference cuts a long query too, at the tokens of its encoder.
#[tokio::test]
async fn a_query_that_is_too_long_is_cut_after_a_character() {
    let (retriever, _corpus) = start(&[("RETRIEVER_MAX_QUERY_BYTES", "10")]);
    let url = retriever.url();
    let queries = ["town1", "town3 \u{e9}\u{e9}\u{e9} town4", "town2"];
    let reply = post(&url, &json!({"queries": queries, "topk": 2})).await;
    assert_eq!((reply.status, reply.body.get("errors")), (200, None));
    let ids: Vec<&Value> = (0..3).map(|query| &reply.body["result"][query][0]["id"]).collect();
    assert_eq!(ids, ["p1", "p3", "p2"]);
    assert_eq!(reply.body["result"][1].as_array().unwrap().len(), 1, "town4 is cut off");
    assert_eq!(get(&url, "/stats").await.body["queries_cut"], 1);
}

/// A model that repeats itself writes texts without end.
#[tokio::test]
async fn a_very_long_query_is_answered() {
    let (retriever, _corpus) = start(&[]);
    let url = retriever.url();
    let long = [
        "town5 ".repeat(200_000),
        format!("town5 {}", "x".repeat(2_000_000)),
        format!("town5 {}", "\u{1f30a}".repeat(300_000)),
    ];
    let reply = post(&url, &json!({"queries": long, "topk": 1})).await;
    for query in 0..long.len() {
        assert_eq!(reply.body["result"][query][0]["id"], "p5", "query {query}");
    }
    assert_eq!(get(&url, "/stats").await.body["queries_cut"], 3);
}

/// The status is 503 with `Retry-After`; no known client retries after 429.
#[tokio::test]
async fn overload_is_503_and_passes() {
    let (retriever, _corpus) = start(&[("RETRIEVER_MAX_REQUESTS", "1")]);
    let url = retriever.url();
    let body = json!({"queries": ["town1"], "topk": 1});
    let held = HeldRequest::open(retriever.addr(), &body);
    wait_for_stat(&url, "requests_in_flight", 1).await;
    let reply = post(&url, &body).await;
    assert_eq!((reply.status, reply.retry_after.as_deref()), (503, Some("1")));
    assert_eq!(reply.body["code"], "overloaded");
    let response = held.complete();
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    check_still_answers(&url).await;
}

#[tokio::test]
async fn a_body_that_does_not_arrive_ends_the_wait() {
    let (retriever, _corpus) = start(&[("RETRIEVER_BODY_TIMEOUT_MS", "20")]);
    let held = HeldRequest::open(retriever.addr(), &json!({"queries": []}));
    let response = held.response();
    assert!(response.starts_with("HTTP/1.1 408 "), "{response}");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_errors_in_json() {
    let (retriever, _corpus) = start(&[]);
    let url = retriever.url();
    let reply = get(&url, "/nowhere").await;
    assert_eq!((reply.status, &reply.body["code"]), (404, &json!("not_found")));
    let reply = get(&url, "/retrieve").await;
    assert_eq!((reply.status, &reply.body["code"]), (405, &json!("method_not_allowed")));
}
