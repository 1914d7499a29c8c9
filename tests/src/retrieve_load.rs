//! A retriever under more load than it takes: the rest is refused at once, nothing is lost, and no client keeps it
//! from the others. `scripts/check-load` has the long forms, with measured times.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use serde_json::{Value, json};
use shared::contract::splitmix;

use crate::harness::corpus::{IndexedCorpus, PASSAGE_COUNT};
use crate::harness::http::{HeldRequest, PATIENCE, get, post, wait_for_stat};
use crate::harness::retriever::RetrieverHandle;

fn start(variables: &[(&str, &str)]) -> (RetrieverHandle, IndexedCorpus) {
    let corpus = IndexedCorpus::build();
    (RetrieverHandle::start_with(&corpus.index(), 0, variables), corpus)
}

fn town(number: usize) -> Value {
    json!({"queries": [format!("town{number}")], "topk": 1})
}

#[tokio::test]
async fn a_full_server_refuses_at_once_and_loses_nothing() {
    let (retriever, _corpus) = start(&[("RETRIEVER_MAX_REQUESTS", "4")]);
    let url = retriever.url();
    let held: Vec<HeldRequest> =
        (0..4).map(|number| HeldRequest::open(retriever.addr(), &town(number))).collect();
    wait_for_stat(&url, "requests_in_flight", 4).await;
    let refused = (0..40).map(|number| {
        let url = url.clone();
        tokio::spawn(async move { post(&url, &town(number)).await })
    });
    for reply in refused.collect::<Vec<_>>() {
        let reply = reply.await.unwrap();
        assert_eq!((reply.status, &reply.body["code"]), (503, &json!("overloaded")));
        assert!(reply.retry_after.unwrap().parse::<u16>().unwrap() >= 1);
    }
    for (number, held) in held.into_iter().enumerate() {
        let answer = held.complete();
        assert!(answer.contains(&format!("\"p{number}\"")), "{answer}");
    }
    wait_for_stat(&url, "requests_in_flight", 0).await;
    assert_eq!(post(&url, &town(5)).await.body["result"][0][0]["id"], "p5");
    let stats = get(&url, "/stats").await.body;
    assert_eq!((&stats["queries"], &stats["requests_refused"]), (&json!(5), &json!(40)));
}

#[tokio::test]
async fn ten_times_the_capacity_is_answered_or_refused() {
    let variables = [
        ("RETRIEVER_MAX_IN_FLIGHT_QUERIES", "2"),
        ("RETRIEVER_MAX_QUEUED_QUERIES", "16"),
        ("RETRIEVER_MAX_BATCH_QUERIES", "8"),
    ];
    let (retriever, _corpus) = start(&variables);
    let url = retriever.url();
    let asked: Vec<_> = (0..400)
        .map(|number| {
            let url = url.clone();
            let queries: Vec<String> =
                (0..4).map(|at| format!("town{}", (number + at) % PASSAGE_COUNT)).collect();
            let body = json!({"queries": queries, "topk": 1});
            tokio::spawn(async move { (number, post(&url, &body).await) })
        })
        .collect();
    let mut answered = 0;
    for reply in asked {
        let (number, reply) = reply.await.unwrap();
        if reply.status == 200 {
            answered += 1;
            for at in 0..4 {
                let expected = format!("p{}", (number + at) % PASSAGE_COUNT);
                assert_eq!(reply.body["result"][at][0]["id"], expected, "{reply:?}");
            }
        } else {
            assert_eq!((reply.status, &reply.body["code"]), (503, &json!("overloaded")));
        }
    }
    assert!(answered > 0);
    wait_for_stat(&url, "queries_in_flight", 0).await;
    let stats = get(&url, "/stats").await.body;
    assert_eq!(stats["queries"], answered * 4, "{stats}");
    assert_eq!((&stats["queries_failed"], &stats["queries_waiting"]), (&json!(0), &json!(0)));
    assert_eq!(post(&url, &town(5)).await.body["result"][0][0]["id"], "p5");
}

/// Sends a whole request and returns the connection.
fn ask(addr: SocketAddr, body: &Value) -> TcpStream {
    let body = body.to_string();
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "POST /retrieve HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    stream
}

/// `scripts/check-load cancel` does this with 10,000 connections.
#[tokio::test]
async fn clients_that_leave_are_dropped_and_the_others_are_answered_once() {
    let (retriever, _corpus) = start(&[("RETRIEVER_MAX_IN_FLIGHT_QUERIES", "1")]);
    let mut random = 7;
    let mut staying = Vec::new();
    for number in 0..300 {
        let number = number % PASSAGE_COUNT;
        let stream = ask(retriever.addr(), &town(number));
        if splitmix::next(&mut random).is_multiple_of(2) {
            let is_whole = splitmix::next(&mut random).is_multiple_of(2);
            let how = if is_whole { Shutdown::Both } else { Shutdown::Write };
            let _ = stream.shutdown(how);
        } else {
            staying.push((number, stream));
        }
    }
    assert!(staying.len() > 100);
    for (number, mut stream) in staying {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(answer.matches("\"id\"").count(), 1, "{answer}");
        assert!(answer.contains(&format!("\"p{number}\"")), "{answer}");
    }
    let url = retriever.url();
    wait_for_stat(&url, "queries_in_flight", 0).await;
    wait_for_stat(&url, "requests_in_flight", 0).await;
    assert_eq!(get(&url, "/stats").await.body["queries_waiting"], 0);
}

#[tokio::test]
async fn one_client_leaves_room_for_others() {
    let (retriever, _corpus) = start(&[("RETRIEVER_MAX_REQUESTS", "9")]);
    let url = retriever.url();
    let held: Vec<HeldRequest> =
        (0..8).map(|number| HeldRequest::open(retriever.addr(), &town(number))).collect();
    wait_for_stat(&url, "requests_in_flight", 8).await;
    assert_eq!(post(&url, &town(9)).await.status, 503);
    let other = shared::machine::http::client_builder()
        .local_address("127.0.0.2".parse::<std::net::IpAddr>().unwrap())
        .build()
        .unwrap();
    let sent = other.post(format!("{url}/retrieve")).json(&town(9)).send().await.unwrap();
    assert_eq!(sent.status().as_u16(), 200);
    for held in held {
        let answer = held.complete();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_sends_no_whole_header_is_left() {
    let variables = [("RETRIEVER_HEADER_TIMEOUT_MS", "500"), ("RETRIEVER_IDLE_TIMEOUT_MS", "500")];
    let (retriever, _corpus) = start(&variables);
    let sent: [(&[u8], usize); 4] = [
        (b"", 0),
        (b"POST /retrieve HTTP/1.1\r\nHost: te", 0),
        (b"POST /retrieve HTTP/1.1\r\nHost: test\r\nContent-Length: 14\r\n\r\n{\"queries\":[]}", 1),
        (b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\nGET /li", 1),
    ];
    let open: Vec<(TcpStream, usize)> = sent
        .into_iter()
        .map(|(bytes, answers)| {
            let mut stream = TcpStream::connect(retriever.addr()).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(bytes).unwrap();
            (stream, answers)
        })
        .collect();
    for (mut stream, answers) in open {
        let mut answer = String::new();
        // The server closes the connection.
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer.matches("HTTP/1.1 200 ").count(), answers, "{answer}");
    }
}

#[tokio::test]
async fn a_header_that_is_no_time_is_named() {
    let (retriever, _corpus) = start(&[]);
    let client = crate::harness::http::client();
    for (name, value, status) in [
        ("X-Request-Timeout-Ms", "60000", 200),
        ("grpc-timeout", "30S", 200),
        ("X-Request-Timeout-Ms", "soon", 422),
        ("grpc-timeout", "30", 422),
    ] {
        let url = format!("{}/retrieve", retriever.url());
        let sent = client.post(url).header(name, value).json(&town(1)).timeout(PATIENCE);
        let answer = sent.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{name} {value}");
        let body: Value = answer.json().await.unwrap();
        if status == 422 {
            let loc = json!(["header", name.to_lowercase()]);
            assert_eq!(body["detail"][0]["loc"], loc, "{body}");
        } else {
            assert_eq!(body["result"][0][0]["id"], "p1", "{body}");
        }
    }
}
