//! Hostile requests, drawn from a seed: broken JSON and MessagePack, heads, paths and chunks. None makes the server
//! panic, fail or forget the others. `scripts/check-load hostile` sends 100,000 and looks at the memory.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use serde_json::json;
use shared::contract::splitmix;

use crate::harness::corpus::IndexedCorpus;
use crate::harness::http::{PATIENCE, get, post, wait_for_stat};
use crate::harness::retriever::RetrieverHandle;

const REQUESTS: usize = 3000;
const SEED: u64 = 16;

/// A source of draws.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        (splitmix::next(&mut self.0) % limit as u64) as usize
    }

    fn of<'a, T: ?Sized>(&mut self, values: &[&'a T]) -> &'a T {
        values[self.below(values.len())]
    }

    fn bytes(&mut self, longest: usize) -> Vec<u8> {
        (0..self.below(longest + 1)).map(|_| splitmix::next(&mut self.0) as u8).collect()
    }
}

const PATHS: [&str; 14] = [
    "/retrieve",
    "/retrieve/",
    "/rerank",
    "/search",
    "/batch_search",
    "/queries",
    "/access",
    "/info",
    "/stats",
    "/readyz",
    "//",
    "/../retrieve",
    "/%00%ff",
    "/retrieve?queries=a",
];

const BODIES: [&str; 12] = [
    r#"{"queries":["town1","town2"],"topk":3,"return_scores":true}"#,
    r#"{"query":"town1","topk":3,"return_scores":true}"#,
    r#"{"query":"town1","top_k":5}"#,
    r#"{"query":["town1"],"top_n":5,"return_score":true}"#,
    r#"{"query":"town1","top_n":5,"return_score":true}"#,
    r#"{"queries":["town1"],"k":3}"#,
    r#"{"urls":["https://example.org/0",""]}"#,
    r#"{"queries":["a"],"documents":[[{"contents":"b"}]],"rerank_topk":1}"#,
    r#"{"queries":[1,null,{},[]],"topk":-1,"return_scores":2,"partial":"x"}"#,
    r#"{"queries":["\ud800","\u0000","𝒳"],"topk":1e400}"#,
    r#"{"queries":["a"],"queries":"b","topk":18446744073709551616}"#,
    "{}",
];

/// Returns a body, usually a broken one.
fn body(draw: &mut Draw) -> Vec<u8> {
    let text = draw.of(&BODIES);
    let mut body = match draw.below(4) {
        0 => match serde_json::from_str::<serde_json::Value>(text) {
            Ok(value) => rmp_serde::to_vec(&value).unwrap(),
            Err(_) => draw.bytes(200),
        },
        _ => text.as_bytes().to_vec(),
    };
    for _ in 0..draw.below(4) {
        let at = draw.below(body.len() + 1);
        match draw.below(8) {
            0 => body.truncate(at),
            1 => body.extend(draw.bytes(40)),
            2 => drop(body.splice(at..at, draw.bytes(8))),
            3 => {
                body = draw.of(&["[", "{\"a\":", "\u{91}"]).repeat(draw.below(20_000)).into_bytes();
            }
            4 => drop(body.splice(at..at, "9".repeat(draw.below(400)).into_bytes())),
            5 => {
                let number = [0xdf, 0xdd, 0xdb, 0xc6, 0xcb, 0xc9][draw.below(6)];
                let length = splitmix::next(&mut draw.0).to_be_bytes();
                drop(body.splice(at..at, [&[number], &length[..]].concat()));
            }
            _ => {
                let byte = splitmix::next(&mut draw.0) as u8;
                if let Some(old) = body.get_mut(at) {
                    *old = byte;
                }
            }
        }
    }
    body
}

/// Returns a whole request, or one that ends early.
fn request(draw: &mut Draw) -> (Vec<u8>, bool) {
    let body = body(draw);
    let path = draw.of(&PATHS);
    let length = body.len();
    if draw.below(2) == 0 {
        let timeout = draw.of(&["", "X-Request-Timeout-Ms: 5\r\n", "grpc-timeout: 1x\r\n"]);
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{timeout}\
             Content-Length: {length}\r\n\r\n"
        );
        return ([head.into_bytes(), body].concat(), true);
    }
    let long = "x".repeat(draw.below(100_000));
    let headers = match draw.below(12) {
        0 => "Content-Length: -1".to_owned(),
        1 => "Content-Length: 99999999999999999999".to_owned(),
        2 => format!("Content-Length: {length}\r\nContent-Length: {}", length + 1),
        3 => format!("Content-Length: {}", length + 100),
        4 => "Transfer-Encoding: chunked".to_owned(),
        5 => format!("Transfer-Encoding: chunked\r\nContent-Length: {length}"),
        6 => "Transfer-Encoding: gzip, identity".to_owned(),
        7 => format!("Content-Length: {length}\r\nX-Long: {long}"),
        8 => format!("Content-Length: {length}\r\n{}", "A: b\r\n".repeat(draw.below(300))),
        9 => format!("Content-Length: {length}\r\nBad Name: x\r\n: y\r\nz\0: \u{7f}"),
        10 => format!("Content-Length: {length}\r\nExpect: 100-continue\r\nUpgrade: h2c"),
        _ => String::from_utf8_lossy(&draw.bytes(100)).into_owned(),
    };
    let method = draw.of(&["POST", "GET", "HEAD", "OPTIONS", "CONNECT", "post", "P\u{0}ST", "PRI"]);
    let version = draw.of(&["HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9", "x"]);
    let target = match draw.below(6) {
        0 => "*".to_owned(),
        1 => format!("/{long}"),
        2 => "http://other:80/retrieve".to_owned(),
        3 => String::from_utf8_lossy(&draw.bytes(30)).into_owned(),
        _ => path.to_owned(),
    };
    let head = format!("{method} {target} {version}\r\nHost: test\r\n{headers}\r\n\r\n");
    let mut bytes = head.into_bytes();
    if draw.below(3) == 0 {
        let size = draw.of(&["5", "ffffffffffffffff", "zz", "-1", "0", "1;a=b", ""]);
        bytes.extend(format!("{size}\r\n").into_bytes());
    }
    bytes.extend(body);
    (bytes, false)
}

/// Sends bytes and returns the statuses of all answers. A server may close a connection before it has read all.
fn statuses(addr: SocketAddr, bytes: &[u8], is_whole: bool) -> Vec<u16> {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(bytes);
    if !is_whole {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&part[..count]),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "no end: {bytes:?}");
                break;
            }
        }
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    let lines = text.split("HTTP/1.").skip(1).filter_map(|rest| rest.get(2..5));
    lines.filter_map(|status| status.parse().ok()).collect()
}

#[tokio::test]
async fn no_request_makes_the_server_fail() {
    let corpus = IndexedCorpus::build();
    let retriever = RetrieverHandle::start(&corpus.index());
    let mut seen: BTreeMap<u16, usize> = BTreeMap::new();
    let mut draw = Draw(SEED);
    for number in 0..REQUESTS {
        let (bytes, is_whole) = request(&mut draw);
        let statuses = statuses(retriever.addr(), &bytes, is_whole);
        assert!(!is_whole || !statuses.is_empty(), "request {number} has no answer: {bytes:?}");
        for status in statuses {
            // 501 is said by /rerank without a re-ranker.
            let is_fine = status < 500 || status == 503 || status == 501;
            assert!(is_fine, "request {number}: {status}: {:?}", String::from_utf8_lossy(&bytes));
            *seen.entry(status).or_default() += 1;
        }
    }
    for status in [200, 400, 404, 405, 422, 431] {
        assert!(seen.contains_key(&status), "{seen:?}");
    }
    let url = retriever.url();
    wait_for_stat(&url, "requests_in_flight", 0).await;
    wait_for_stat(&url, "queries_in_flight", 0).await;
    let reply = post(&url, &json!({"queries": ["town1"], "topk": 1})).await;
    assert_eq!(reply.body["result"][0][0]["id"], "p1");
    // A request may give less time than its answer takes.
    let late = seen.get(&503).copied().unwrap_or_default() as u64;
    assert!(get(&url, "/stats").await.body["queries_failed"].as_u64().unwrap() <= late);
}
