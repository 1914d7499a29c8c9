//! Tests of the client with a small scripted server.

mod bounds;
mod fake;
mod names;
mod several;

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
        attempt_timeout: Some(Duration::from_secs(20)),
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
    let expected =
        json!({"queries": ["é \"q\"", ""], "topk": 2, "return_scores": true, "partial": true});
    assert_eq!(script.requests(), [expected]);
    assert!(client.retrieve(&[], 2).await.is_empty());
    assert_eq!(script.requests().len(), 1, "no queries, no request");
}

/// A server that returns rows of BEIR's corpora has no `contents`.
#[tokio::test]
async fn title_and_text_make_the_contents_of_a_passage() {
    let document = json!({"_id": "d", "title": "Lima", "text": "Lima is the capital of Peru."});
    let body = json!({"result": [[{"document": document, "score": 1.5}, {"text": "only"}]]});
    let (_, client) = scripted(vec![plain(200, &body.to_string())]).await;
    let results = client.retrieve(&queries(&["q"]), 2).await;
    let contents: Vec<&str> =
        results[0].as_ref().unwrap().iter().map(|passage| passage.contents.as_str()).collect();
    assert_eq!(contents, ["\"Lima\"\nLima is the capital of Peru.", "only"]);
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
    for status in [408, 429, 500, 502, 503, 504] {
        let fault = plain(status, "<html>not json</html>");
        let (script, client) = scripted(vec![fault.clone(), fault, passages(&[&["a"]])]).await;
        let results = client.retrieve(&queries(&["q"]), 1).await;
        assert_eq!(ids(&results[0]), ["a"], "after status {status}");
        assert_eq!(script.requests().len(), 3);
    }
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    for (status, headers) in [
        (503, vec![("retry-after", "1")]),
        (429, vec![("retry-after", "1")]),
        (408, vec![("retry-after", "1")]),
        (
            429,
            vec![
                ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
                ("retry-after", "Sun, 06 Nov 1994 08:49:38 GMT"),
            ],
        ),
    ] {
        let busy = (status, headers, "{}".to_owned());
        let (script, client) = scripted(vec![busy, passages(&[&["a"]])]).await;
        let results = client.retrieve(&queries(&["q"]), 1).await;
        assert_eq!(ids(&results[0]), ["a"]);
        let times = script.times();
        assert!(times[1] - times[0] >= Duration::from_secs(1), "{:?}", times[1] - times[0]);
    }
}

#[tokio::test]
async fn a_retry_after_beyond_the_deadline_neither_ends_the_search_nor_outlasts_it() {
    for absurd in ["3600", "99999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"] {
        let busy = (429, vec![("retry-after", absurd)], "full".to_owned());
        let (script, client) = scripted(vec![busy; 50]).await;
        let mut config = client.config.clone();
        config.retry.deadline = Duration::from_millis(400);
        let client = RetrieveClient::new(config).unwrap();
        let results = client.retrieve(&queries(&["p", "q"]), 1).await;
        assert!(script.requests().len() >= 2, "{absurd}");
        for result in results {
            let Err(SearchError::Unavailable { last, url, .. }) = result else {
                panic!("{result:?}");
            };
            assert!(last == "status 429: full" || last.contains("time"), "{last}");
            assert_eq!(url, client.shown_addresses());
        }
    }
}

#[tokio::test]
async fn a_refused_request_is_not_retried() {
    for status in [400, 401, 404, 413, 422, 501] {
        let (script, client) = scripted(vec![plain(status, "{\"detail\":\"no\"}")]).await;
        let results = client.retrieve(&queries(&["q"]), 1).await;
        let (url, body) = (client.shown_addresses().to_owned(), "{\"detail\":\"no\"}".to_owned());
        let refused = SearchError::Refused { url, status, body };
        assert_eq!(results, [Err(refused)]);
        assert_eq!(script.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_malformed_answer_is_an_error_and_never_an_empty_list() {
    for (body, fault) in [
        ("<html>", "it is not JSON: expected value at line 1 column 1: <html>"),
        ("{\"detail\": \"down\"}", "it has no list \"result\": {\"detail\":\"down\"}"),
        ("[]", "no list \"result\""),
        ("{\"result\":{}}", "no list \"result\""),
        ("{\"result\":[[]]}", "1 entries for 2 queries"),
        ("{\"result\":[[],[],[]]}", "3 entries for 2 queries"),
        ("{\"result\":[[],[]],\"errors\":[{\"index\":2}]}", "names the query 2"),
        ("{\"result\":[[],[]],\"errors\":[{}]}", "names the query null"),
        ("{\"result\":[[],[]],\"errors\":\"all\"}", "\"errors\" is \"all\""),
    ] {
        let (script, client) = scripted(vec![plain(200, body)]).await;
        let results = client.retrieve(&queries(&["p", "q"]), 1).await;
        assert_eq!(results.len(), 2);
        for result in results {
            let Err(SearchError::Malformed { reason, .. }) = result else {
                panic!("{body}: {result:?}")
            };
            assert!(reason.contains(fault), "{fault:?} is not in {reason:?}");
        }
        assert_eq!(script.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_bad_passage_fails_its_own_query_only() {
    // Bodies as Python's json.dumps writes them, with its NaN.
    for (list, fault) in [
        ("null", "result[1] is null, not a list"),
        ("{\"id\": 1}", "result[1] is {\"id\":1}, not a list"),
        ("[null]", "result[1][0] has no text \"contents\""),
        ("[{\"id\": \"a\"}]", "result[1][0] has no text \"contents\""),
        (
            "[{\"document\": \"text\", \"score\": 1}]",
            "result[1][0] has no text \"contents\", nor title and text: it is \"text\"",
        ),
        ("[{\"contents\": \"a\"}, {\"contents\": 5}]", "result[1][1] has no text \"contents\""),
        ("[{\"document\": {\"contents\": \"a\"}, \"score\": NaN}]", "has the score \"NaN\""),
        ("[{\"contents\": \"a\", \"score\": -Infinity}]", "has the score \"-Infinity\""),
        ("[{\"contents\": \"a\", \"score\": [1]}]", "has the score [1]"),
    ] {
        let good = r#"[{"document": {"id": "g", "contents": "g", "rank": NaN}, "score": 1.0}]"#;
        let body = format!("{{\"result\": [{good}, {list}, {good}]}}");
        let (script, client) = scripted(vec![plain(200, &body)]).await;
        let results = client.retrieve(&queries(&["p", "q", "r"]), 1).await;
        assert_eq!((ids(&results[0]), ids(&results[2])), (vec!["g"], vec!["g"]), "{body}");
        let Err(SearchError::Malformed { reason, .. }) = &results[1] else {
            panic!("{body}: {results:?}")
        };
        assert!(reason.contains(fault), "{fault:?} is not in {reason:?}");
        assert_eq!(script.requests().len(), 1, "the same answer would come again");
    }
}

#[tokio::test]
async fn half_a_surrogate_pair_in_a_passage_harms_nothing() {
    let body = r#"{"result": [[{"id": "a", "contents": "T\nx\ud83d y", "score": null}]]}"#;
    let (_, client) = scripted(vec![plain(200, body)]).await;
    let results = client.retrieve(&queries(&["q"]), 1).await;
    assert_eq!(results[0].as_ref().unwrap()[0].contents, "T\nx\u{fffd} y");
}

#[tokio::test]
async fn a_redirect_within_the_server_is_followed_and_another_is_named() {
    let body = passages(&[&["a"]]).2;
    let app = Router::new()
        .route(
            "/x/retrieve",
            post(|| async { axum::response::Redirect::temporary("/y/retrieve/") }),
        )
        .route("/y/retrieve/", post(|| async { body }))
        .route("/z/retrieve", post(|| async { axum::response::Redirect::to("/y/retrieve/") }))
        .route(
            "/w/retrieve",
            post(|| async { axum::response::Redirect::permanent("http://localhost:1/retrieve") }),
        );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let client = |path: &str| RetrieveClient::new(config(&format!("{url}{path}"))).unwrap();
    let results = client("/x").retrieve(&queries(&["q"]), 1).await;
    assert_eq!(ids(&results[0]), ["a"]);
    for (path, status, target) in
        [("/z", 303, "/y/retrieve/"), ("/w", 308, "http://localhost:1/retrieve")]
    {
        let results = client(path).retrieve(&queries(&["q"]), 1).await;
        let body = format!("it redirects to {target}");
        let url = format!("{url}{path}/retrieve");
        assert_eq!(results, [Err(SearchError::Refused { url, status, body })]);
    }
}

#[tokio::test]
async fn one_question_is_asked_once() {
    let ask_once = async |client: &RetrieveClient| {
        let mut replies = client.ask_each_once("q", 1, Duration::from_secs(20)).await;
        assert_eq!((replies.len(), replies[0].url.as_str()), (1, client.shown_addresses()));
        replies.remove(0).result
    };
    let failed = json!({"result": [[]], "errors": [{"index": 0, "code": "x", "retryable": true}]});
    let replies = vec![passages(&[&["a"]]), plain(429, "later"), plain(200, &failed.to_string())];
    let (script, client) = scripted(replies).await;
    assert_eq!(ids(&ask_once(&client).await), ["a"]);
    for last in ["status 429: later", "x"] {
        let message = ask_once(&client).await.unwrap_err().to_string();
        let expected =
            format!("no answer from the retriever at {} after 1 attempt", client.shown_addresses());
        assert!(message.starts_with(&expected) && message.ends_with(last), "{message}");
    }
    assert_eq!(script.requests().len(), 3);
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
    let (url, code) = (client.shown_addresses().to_owned(), "too_long".to_owned());
    assert_eq!(results[1], Err(SearchError::Failed { url, code }));
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
    let attempt_timeout = Some(Duration::from_millis(200));
    let client = RetrieveClient::new(ClientConfig { attempt_timeout, ..config(&url) }).unwrap();
    let results = client.retrieve(&queries(&["q"]), 1).await;
    assert_eq!(ids(&results[0]), ["a"]);
    assert_eq!(script.requests().len(), 2);
}

#[tokio::test]
async fn a_slow_server_is_waited_for_and_asked_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let script = serve(listener, vec![None]);
    let mut config = ClientConfig { attempt_timeout: None, ..config(&url) };
    config.retry.deadline = Duration::from_millis(700);
    let started = Instant::now();
    let results = RetrieveClient::new(config).unwrap().retrieve(&queries(&["q"]), 1).await;
    assert!(started.elapsed() >= Duration::from_millis(700));
    assert!(
        matches!(&results[0], Err(SearchError::Unavailable { attempts: 1, .. })),
        "{results:?}"
    );
    assert_eq!(script.requests().len(), 1);
    assert_eq!(ClientConfig::new(&url).attempt_timeout, None, "the default");
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
