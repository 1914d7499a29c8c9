//! The searcher against a small server that answers when the test says so.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use serde_json::{Value, json};
use shared::contract::retry::RetryPolicy;
use shared::machine::shutdown::Shutdown;

use super::*;
use crate::stop::{StopFlag, StopSwitch};

/// Longest wait for an outcome, generous for a busy machine; a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_mins(1);
/// More requests than any test leaves unread.
const REQUESTS_MAX: usize = 16;

/// A request that the server has read and the test answers.
struct Asked {
    stream: TcpStream,
    body: Value,
}

impl Asked {
    fn queries(&self) -> Vec<&str> {
        self.body["queries"].as_array().unwrap().iter().filter_map(Value::as_str).collect()
    }

    /// Answers each query with one passage, whose id is the query.
    fn answer(mut self) {
        let passages = |query: &&str| json!([{"id": query, "contents": format!("T\n{query}")}]);
        let result: Vec<Value> = self.queries().iter().map(passages).collect();
        let body = json!({ "result": result }).to_string();
        let length = body.len();
        // A client that cancelled may have closed the connection: ignore the error.
        let _ = write!(
            self.stream,
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
    }
}

fn read_request(stream: TcpStream) -> Asked {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    Asked { stream, body: serde_json::from_slice(&body).unwrap() }
}

/// Starts a server that hands its requests to the test, and a searcher that uses it.
fn searcher() -> (Receiver<Asked>, HttpSearcher) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, asked) = sync_channel(REQUESTS_MAX);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if sender.send(read_request(stream.unwrap())).is_err() {
                return;
            }
        }
    });
    (asked, HttpSearcher::new(config(&url), 4).unwrap())
}

fn config(url: &str) -> ClientConfig {
    let retry = RetryPolicy {
        first_pause: Duration::from_millis(1),
        max_pause: Duration::from_millis(5),
        deadline: Duration::from_secs(20),
    };
    ClientConfig { retry, ..ClientConfig::new(url) }
}

fn request(ticket: u64, query: &str) -> SearchRequest {
    SearchRequest { ticket, query: query.to_owned(), top_k: 3 }
}

/// Returns the tickets with the ids of their passages, sorted.
fn tickets_and_ids(outcomes: Vec<SearchOutcome>) -> Vec<(u64, Vec<String>)> {
    let ticket_and_ids = |outcome: SearchOutcome| {
        let passages = outcome.result.unwrap();
        (outcome.ticket, passages.into_iter().map(|passage| passage.id).collect())
    };
    let mut sorted: Vec<(u64, Vec<String>)> = outcomes.into_iter().map(ticket_and_ids).collect();
    sorted.sort();
    sorted
}

fn wait_for(searcher: &mut HttpSearcher, count: usize) -> Vec<SearchOutcome> {
    let mut outcomes = Vec::new();
    while outcomes.len() < count {
        outcomes
            .extend(searcher.wait(PATIENCE, &StopFlag::never()).unwrap().expect("no outcome came"));
    }
    outcomes
}

#[test]
fn a_wait_ends_when_a_stop_is_requested() {
    let (_asked, mut searcher) = searcher();
    searcher.submit(vec![request(1, "a")]).unwrap();
    let switch = StopSwitch::default();
    let flag = switch.flag();
    std::thread::scope(|threads| {
        threads.spawn(|| switch.raise(Shutdown::Terminate));
        assert!(searcher.wait(PATIENCE, &flag).unwrap().is_none());
    });
}

#[test]
fn a_wait_ends_at_its_limit_and_the_search_continues() {
    let (asked, mut searcher) = searcher();
    searcher.submit(vec![request(1, "a")]).unwrap();
    let unanswered = asked.recv().unwrap();
    assert!(searcher.wait(Duration::from_millis(20), &StopFlag::never()).unwrap().is_none());
    unanswered.answer();
    assert_eq!(tickets_and_ids(wait_for(&mut searcher, 1)), [(1, vec!["a".to_owned()])]);
}

#[test]
fn a_batch_is_one_request_and_comes_back_by_ticket() {
    let (asked, mut searcher) = searcher();
    searcher.submit(vec![request(5, "a"), request(9, "b"), request(2, "a")]).unwrap();
    let request = asked.recv().unwrap();
    assert_eq!(request.queries(), ["a", "b", "a"]);
    assert_eq!(request.body["topk"], 3);
    assert!(searcher.poll().unwrap().is_empty(), "an outcome came before the answer");
    request.answer();
    let outcomes = wait_for(&mut searcher, 3);
    let expected =
        [(2, vec!["a".to_owned()]), (5, vec!["a".to_owned()]), (9, vec!["b".to_owned()])];
    assert_eq!(tickets_and_ids(outcomes), expected);
    assert!(asked.try_recv().is_err(), "one request only");
}

#[test]
fn a_slow_request_does_not_hold_up_the_next() {
    let (asked, mut searcher) = searcher();
    searcher.submit(vec![request(0, "slow")]).unwrap();
    let slow = asked.recv().unwrap();
    searcher.submit(vec![request(1, "fast")]).unwrap();
    asked.recv().unwrap().answer();
    assert_eq!(tickets_and_ids(wait_for(&mut searcher, 1)), [(1, vec!["fast".to_owned()])]);
    slow.answer();
    assert_eq!(tickets_and_ids(wait_for(&mut searcher, 1)), [(0, vec!["slow".to_owned()])]);
}

#[test]
fn what_was_cancelled_never_comes_back() {
    let (asked, mut searcher) = searcher();
    searcher.submit(vec![request(0, "before")]).unwrap();
    let before = asked.recv().unwrap();
    searcher.cancel();
    searcher.submit(vec![request(0, "after")]).unwrap();
    let after = asked.recv().unwrap();
    before.answer();
    after.answer();
    assert_eq!(tickets_and_ids(wait_for(&mut searcher, 1)), [(0, vec!["after".to_owned()])]);
    assert!(searcher.poll().unwrap().is_empty());
}

#[test]
fn a_search_that_never_succeeds_is_an_error_not_an_empty_list() {
    // Nobody listens on this port: its listener is dropped.
    let url = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let mut config = config(&url);
    config.retry.deadline = Duration::from_millis(50);
    let mut searcher = HttpSearcher::new(config, 4).unwrap();
    searcher.submit(vec![request(0, "a"), request(1, "b")]).unwrap();
    for outcome in wait_for(&mut searcher, 2) {
        let reason = outcome.result.unwrap_err();
        assert!(reason.contains("no answer from the retriever"), "{reason}");
    }
}

#[test]
fn a_bad_address_is_refused_at_the_start() {
    let message = HttpSearcher::new(ClientConfig::new("localhost"), 4).unwrap_err().to_string();
    assert!(message.contains("\"localhost\"") && message.contains("http://host:port"), "{message}");
}
