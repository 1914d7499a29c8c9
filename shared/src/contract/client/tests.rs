//! Tests of the client with a small scripted server.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::Instant;

use super::{ClientConfig, RetrieveClient, SearchError, SearchResult};
use crate::contract::retry::RetryPolicy;

/// One scripted answer: status, headers, body.
type Reply = (u16, Vec<(&'static str, &'static str)>, String);

/// The replies still to send, and the requests received, each with its time.
#[derive(Clone, Default)]
struct Script {
    replies: Arc<Mutex<VecDeque<Option<Reply>>>>,
    requests: Arc<Mutex<Vec<(Instant, Value)>>>,
}

impl Script {
    fn requests(&self) -> Vec<Value> {
        self.requests.lock().unwrap().iter().map(|(_, body)| body.clone()).collect()
    }

    fn times(&self) -> Vec<Instant> {
        self.requests.lock().unwrap().iter().map(|(at, _)| *at).collect()
    }
}

async fn answer(State(script): State<Script>, body: Bytes) -> Response {
    let body = serde_json::from_slice(&body).unwrap();
    script.requests.lock().unwrap().push((Instant::now(), body));
    let reply = script.replies.lock().unwrap().pop_front().expect("one request too many");
    let Some((status, headers, body)) = reply else {
        // No answer at all: the client must time out.
        return std::future::pending().await;
    };
    let mut response = (axum::http::StatusCode::from_u16(status).unwrap(), body).into_response();
    for (name, value) in headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

fn serve(listener: TcpListener, replies: Vec<Option<Reply>>) -> Script {
    let script = Script { replies: Arc::new(Mutex::new(replies.into())), ..Script::default() };
    let app = Router::new().route("/retrieve", post(answer)).with_state(script.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    script
}

/// Starts a server with these answers, and a client that does not wait long.
async fn scripted(replies: Vec<Reply>) -> (Script, RetrieveClient) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let script = serve(listener, replies.into_iter().map(Some).collect());
    (script, RetrieveClient::new(config(&url)).unwrap())
}

fn config(url: &str) -> ClientConfig {
    ClientConfig {
        attempt_timeout: Duration::from_secs(20),
        retry: RetryPolicy {
            first_pause: Duration::from_millis(2),
            max_pause: Duration::from_millis(10),
            deadline: Duration::from_mins(1),
        },
        ..ClientConfig::new(url)
    }
}

fn passages(lists: &[&[&str]]) -> Reply {
    let list = |contents: &&[&str]| -> Vec<Value> {
        let hit = |text: &&str| json!({"document": {"id": text, "contents": text}, "score": 1.5});
        contents.iter().map(hit).collect()
    };
    let result: Vec<Vec<Value>> = lists.iter().map(list).collect();
    (200, Vec::new(), json!({ "result": result }).to_string())
}

fn plain(status: u16, body: &str) -> Reply {
    (status, Vec::new(), body.to_owned())
}

fn queries(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn ids(result: &SearchResult) -> Vec<&str> {
    result.as_ref().unwrap().iter().map(|passage| passage.id.as_str()).collect()
}

#[tokio::test]
async fn a_batch_is_answered_query_by_query() {
    let (script, client) = scripted(vec![passages(&[&["a", "b"], &[]])]).await;
    let results = client.retrieve(&queries(&["é \"q\"", ""]), 2).await;
    assert_eq!(ids(&results[0]), ["a", "b"]);
    assert_eq!(results[1], Ok(Vec::new()), "nothing found is a success");
    let expected = json!({"queries": ["é \"q\"", ""], "topk": 2, "return_scores": true});
    assert_eq!(script.requests(), [expected]);
    assert!(client.retrieve(&[], 2).await.is_empty());
    assert_eq!(script.requests().len(), 1, "no queries, no request");
}

#[tokio::test]
async fn flat_documents_and_numeric_ids_are_read() {
    let body = json!({"result": [[{"id": 7, "contents": "T\nx\ny"}, {"contents": "only"}]]});
    let (_, client) = scripted(vec![plain(200, &body.to_string())]).await;
    let results = client.retrieve(&queries(&["q"]), 3).await;
    let passages = results[0].as_ref().unwrap();
    assert_eq!((passages[0].id.as_str(), passages[0].title_and_text().0), ("7", "T"));
    assert_eq!(passages[0].title_and_text().1, "x\ny");
    let only = &passages[1];
    assert_eq!((only.id.as_str(), only.title_and_text()), ("", ("only", "")));
}

#[tokio::test]
async fn server_faults_are_retried_whatever_their_body() {
    for status in [500, 502, 503, 504] {
        let fault = plain(status, "<html>not json</html>");
        let (script, client) = scripted(vec![fault.clone(), fault, passages(&[&["a"]])]).await;
        let results = client.retrieve(&queries(&["q"]), 1).await;
        assert_eq!(ids(&results[0]), ["a"], "after status {status}");
        assert_eq!(script.requests().len(), 3);
    }
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let busy = (503, vec![("retry-after", "1")], "{}".to_owned());
    let (script, client) = scripted(vec![busy, passages(&[&["a"]])]).await;
    let results = client.retrieve(&queries(&["q"]), 1).await;
    assert_eq!(ids(&results[0]), ["a"]);
    let times = script.times();
    assert!(times[1] - times[0] >= Duration::from_secs(1), "{:?}", times[1] - times[0]);
}

#[tokio::test]
async fn a_retry_after_beyond_the_deadline_is_not_waited_for() {
    let busy = (503, vec![("retry-after", "3600")], "full".to_owned());
    let (script, client) = scripted(vec![busy]).await;
    let results = client.retrieve(&queries(&["p", "q"]), 1).await;
    assert_eq!(script.requests().len(), 1);
    for result in results {
        let Err(SearchError::Unavailable { attempts: 1, last, .. }) = result else {
            panic!("{result:?}");
        };
        assert_eq!(last, "status 503: full");
    }
}

#[tokio::test]
async fn a_refused_request_is_not_retried() {
    for status in [400, 401, 404, 413, 422, 429, 501] {
        let (script, client) = scripted(vec![plain(status, "{\"detail\":\"no\"}")]).await;
        let results = client.retrieve(&queries(&["q"]), 1).await;
        let refused = SearchError::Refused { status, body: "{\"detail\":\"no\"}".to_owned() };
        assert_eq!(results, [Err(refused)]);
        assert_eq!(script.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_malformed_answer_is_an_error_and_never_an_empty_list() {
    for (body, fault) in [
        ("<html>", "it is not JSON"),
        ("[]", "no list \"result\""),
        ("{\"result\":{}}", "no list \"result\""),
        ("{\"result\":[[]]}", "1 entries for 2 queries"),
        ("{\"result\":[[],[],[]]}", "3 entries for 2 queries"),
        ("{\"result\":[[],null]}", "result[1] is not a list"),
        ("{\"result\":[[{\"id\":\"a\"}],[]]}", "result[0][0] has no text \"contents\""),
        ("{\"result\":[[],[]],\"errors\":[{\"index\":2}]}", "names the query 2"),
        ("{\"result\":[[],[]],\"errors\":[{}]}", "names the query null"),
        ("{\"result\":[[],[]],\"errors\":\"all\"}", "\"errors\" is \"all\""),
    ] {
        let (script, client) = scripted(vec![plain(200, body)]).await;
        let results = client.retrieve(&queries(&["p", "q"]), 1).await;
        assert_eq!(results.len(), 2);
        for result in results {
            let Err(SearchError::Malformed(reason)) = result else { panic!("{body}: {result:?}") };
            assert!(reason.contains(fault), "{fault:?} is not in {reason:?}");
        }
        assert_eq!(script.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_failed_query_is_an_error_in_its_own_slot() {
    let body = json!({
        "result": [[{"id": "a", "contents": "a"}], [], []],
        "errors": [{"index": 1, "code": "too_long", "retryable": false}],
    });
    let (_, client) = scripted(vec![plain(200, &body.to_string())]).await;
    let results = client.retrieve(&queries(&["p", "q", "r"]), 1).await;
    assert_eq!(ids(&results[0]), ["a"]);
    assert_eq!(results[1], Err(SearchError::Failed { code: "too_long".to_owned() }));
    assert_eq!(results[2], Ok(Vec::new()));
}

#[tokio::test]
async fn only_the_queries_that_failed_are_retried() {
    let partly = json!({
        "result": [[], [{"id": "b", "contents": "b"}], []],
        "errors": [
            {"index": 0, "code": "upstream_timeout", "retryable": true},
            {"index": 2, "code": "upstream_timeout", "retryable": true},
        ],
    });
    let replies = vec![plain(200, &partly.to_string()), passages(&[&["a"], &["c"]])];
    let (script, client) = scripted(replies).await;
    let results = client.retrieve(&queries(&["p", "q", "r"]), 1).await;
    let answered: Vec<Vec<&str>> = results.iter().map(ids).collect();
    assert_eq!(answered, [["a"], ["b"], ["c"]]);
    assert_eq!(script.requests()[1]["queries"], json!(["p", "r"]));
}

#[tokio::test]
async fn a_query_that_keeps_failing_is_unavailable_at_the_deadline() {
    let failed = json!({"result": [[]], "errors": [{"index": 0, "code": "x", "retryable": true}]});
    let (script, client) = scripted(vec![plain(200, &failed.to_string()); 500]).await;
    let mut config = client.config.clone();
    config.retry.deadline = Duration::from_millis(500);
    let client = RetrieveClient::new(config).unwrap();
    let results = client.retrieve(&queries(&["q"]), 1).await;
    let [Err(SearchError::Unavailable { attempts, last, .. })] = &results[..] else {
        panic!("{results:?}");
    };
    // The deadline may interrupt the last attempt before or after the server has seen it.
    let cut_off = last != "x";
    assert!(!cut_off || last.contains("time"), "{last}");
    let seen = script.requests().len();
    assert!((*attempts as usize) - seen <= usize::from(cut_off), "{attempts} {seen}");
    assert!(*attempts >= 2, "{attempts}");
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_cancelled_and_retried() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let script = serve(listener, vec![None, Some(passages(&[&["a"]]))]);
    let attempt_timeout = Duration::from_millis(200);
    let client = RetrieveClient::new(ClientConfig { attempt_timeout, ..config(&url) }).unwrap();
    let results = client.retrieve(&queries(&["q"]), 1).await;
    assert_eq!(ids(&results[0]), ["a"]);
    assert_eq!(script.requests().len(), 2);
}

#[tokio::test]
async fn a_server_that_is_gone_and_comes_back_is_found_again() {
    // Bound but not listening: connections are refused, and no other process can take the port.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    let client = RetrieveClient::new(config(&url)).unwrap();
    let asked = queries(&["q"]);
    let mut search = Box::pin(client.retrieve(&asked, 1));
    let while_gone = tokio::time::timeout(Duration::from_millis(100), &mut search).await;
    assert!(while_gone.is_err(), "no answer can have come: {while_gone:?}");
    let script = serve(socket.listen(16).unwrap(), vec![Some(passages(&[&["a"]]))]);
    let results = search.await;
    assert_eq!(ids(&results[0]), ["a"]);
    assert_eq!(script.requests().len(), 1);
}

#[tokio::test]
async fn a_server_that_stays_away_is_an_error_that_says_so() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    let mut config = config(&url);
    config.retry.deadline = Duration::from_millis(50);
    let client = RetrieveClient::new(config).unwrap();
    let results = client.retrieve(&queries(&["q"]), 1).await;
    let Err(error) = &results[0] else { panic!("{results:?}") };
    let message = error.to_string().to_lowercase();
    assert!(message.contains("connection refused"), "{message}");
    assert!(message.contains("attempts in"), "{message}");
}

#[tokio::test]
async fn long_lists_go_out_in_several_requests() {
    let replies =
        vec![passages(&[&["a"], &["b"]]), passages(&[&["c"], &["d"]]), passages(&[&["e"]])];
    let (script, client) = scripted(replies).await;
    let config = ClientConfig { max_request_queries: 2, ..client.config.clone() };
    let client = RetrieveClient::new(config).unwrap();
    let results = client.retrieve(&queries(&["1", "2", "3", "4", "5"]), 1).await;
    let answered: Vec<&str> = results.iter().flat_map(ids).collect();
    assert_eq!(answered, ["a", "b", "c", "d", "e"]);
    assert_eq!(script.requests()[2]["queries"], json!(["5"]));
}

#[tokio::test]
async fn an_answer_beyond_the_limit_is_refused() {
    let (_, client) = scripted(vec![passages(&[&["a long passage"]])]).await;
    let config = ClientConfig { max_response_bytes: 20, ..client.config.clone() };
    let client = RetrieveClient::new(config).unwrap();
    let results = client.retrieve(&queries(&["q"]), 1).await;
    let Err(SearchError::Malformed(reason)) = &results[0] else { panic!("{results:?}") };
    assert!(reason.contains("20 bytes"), "{reason}");
}

#[test]
fn the_url_is_checked_and_completed() {
    for (url, endpoint) in [
        ("http://host:8000", "http://host:8000/retrieve"),
        ("http://host:8000/", "http://host:8000/retrieve"),
        ("http://host/v1/", "http://host/v1/retrieve"),
        ("http://host/retrieve", "http://host/retrieve"),
        ("https://host", "https://host/retrieve"),
    ] {
        let client = RetrieveClient::new(ClientConfig::new(url)).unwrap();
        assert_eq!(client.endpoint().as_str(), endpoint);
    }
    for url in ["", "host:8000", "ftp://host"] {
        let error = RetrieveClient::new(ClientConfig::new(url)).unwrap_err().to_string();
        assert!(error.contains(&format!("{url:?}")), "{error}");
        assert!(error.contains("http://host:port"), "{error}");
    }
}
