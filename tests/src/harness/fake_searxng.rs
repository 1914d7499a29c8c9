//! A SearXNG whose answer depends on the query: `nothing` finds nothing, `broken` finds nothing because its
//! engines failed, `refused` is 403, and any other query finds two pages.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::harness::http::PATIENCE;

/// A running server, which ends when this value is dropped.
pub(crate) struct FakeSearxng {
    addr: SocketAddr,
    searches: Arc<AtomicUsize>,
    pages: Arc<AtomicUsize>,
    /// The headers `traceparent` of all requests that had one.
    traceparents: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
}

impl FakeSearxng {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let fake = Self {
            addr,
            searches: Arc::default(),
            pages: Arc::default(),
            traceparents: Arc::default(),
            ended: Arc::default(),
        };
        let (searches, pages) = (Arc::clone(&fake.searches), Arc::clone(&fake.pages));
        let (ended, traceparents) = (Arc::clone(&fake.ended), Arc::clone(&fake.traceparents));
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                if ended.load(Ordering::Acquire) {
                    return;
                }
                let request = connection.as_ref().ok().and_then(requested);
                let Some((target, traceparent)) = request else { continue };
                traceparents.lock().unwrap().extend(traceparent);
                let count = if target.starts_with("/search?") { &searches } else { &pages };
                count.fetch_add(1, Ordering::AcqRel);
                let (status, body) = answer(&target, addr);
                let body = body.to_string();
                let head = format!(
                    "HTTP/1.1 {status} -\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                // A client that left has no use for the answer.
                let _ = connection.unwrap().write_all(format!("{head}{body}").as_bytes());
            }
        });
        fake
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Returns the number of searches.
    pub(crate) fn searches(&self) -> usize {
        self.searches.load(Ordering::Acquire)
    }

    /// Returns the headers `traceparent` of all requests that had one.
    pub(crate) fn traceparents(&self) -> Vec<String> {
        self.traceparents.lock().unwrap().clone()
    }

    /// Returns the number of other requests.
    pub(crate) fn pages(&self) -> usize {
        self.pages.load(Ordering::Acquire)
    }
}

impl Drop for FakeSearxng {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // The connection wakes the thread, which then sees the flag.
        let _ = TcpStream::connect(self.addr);
    }
}

/// Returns the path and the parameters of a connection's request, and its `traceparent`.
fn requested(connection: &TcpStream) -> Option<(String, Option<String>)> {
    connection.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut lines = BufReader::new(connection).lines();
    let target = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    let headers = lines.map_while(Result::ok).take_while(|line| !line.is_empty());
    let mut traceparent = None;
    for header in headers {
        if let Some(value) = header.strip_prefix("traceparent: ") {
            traceparent = Some(value.to_owned());
        }
    }
    Some((target, traceparent))
}

fn answer(target: &str, addr: SocketAddr) -> (u16, Value) {
    let results = json!([
        {"url": format!("http://{addr}/lima"), "title": "Lima", "content": "A city in Peru."},
        {"url": "https://quito.invalid/", "title": null, "content": "A city in Ecuador."},
    ]);
    let (results, engines) = match target {
        _ if target.contains("refused") => return (403, json!({})),
        _ if target.contains("broken") => (json!([]), json!([["engine", "timeout"]])),
        _ if target.contains("nothing") => (json!([]), json!([])),
        _ => (results, json!([])),
    };
    (200, json!({"query": "q", "results": results, "unresponsive_engines": engines}))
}
