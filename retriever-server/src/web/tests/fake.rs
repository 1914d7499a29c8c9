//! A server that does what a test tells it, over TCP for the real client, or over memory under paused time.

use std::fmt;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::upstream::exchange::{Exchange, ExchangeFault, ExchangeFuture, Reply, Request};

/// The answer to one request.
#[derive(Clone)]
pub(in crate::web) enum Act {
    /// A whole reply.
    Reply { status: u16, headers: Vec<(&'static str, String)>, body: Vec<u8> },
    /// Nothing, on an open connection.
    Silent,
    /// The head and a part of the body, then nothing.
    Stall,
    /// The head and a part of the body, then the end of the connection.
    Cut,
}

impl Act {
    pub(in crate::web) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::Reply { status, headers: Vec::new(), body: body.to_string().into_bytes() }
    }

    pub(in crate::web) fn bytes(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::Reply { status, headers: Vec::new(), body: body.into() }
    }

    pub(in crate::web) fn with(self, name: &'static str, value: impl Into<String>) -> Self {
        match self {
            Self::Reply { status, mut headers, body } => {
                headers.push((name, value.into()));
                Self::Reply { status, headers, body }
            }
            other => other,
        }
    }
}

/// A server with its script: the acts of its first requests, of which the last one is repeated.
#[derive(Clone)]
pub(in crate::web) struct Fake {
    script: Arc<[Act]>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl fmt::Debug for Fake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Fake")
    }
}

impl Fake {
    pub(in crate::web) fn new(script: &[Act]) -> Self {
        Self { script: script.into(), seen: Arc::default() }
    }

    /// Returns every request: its head and its body.
    pub(in crate::web) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    pub(in crate::web) fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// Listens on a free port and returns it.
    pub(in crate::web) async fn listen(&self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let fake = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(fake.clone().serve(stream));
            }
        });
        port
    }

    async fn serve(self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        while let Some(request) = read_request(&mut stream).await {
            let act = {
                let mut seen = self.seen.lock().unwrap();
                seen.push(request);
                self.script[(seen.len() - 1).min(self.script.len() - 1)].clone()
            };
            let sent = match act {
                Act::Reply { status, headers, body } => {
                    let mut head =
                        format!("HTTP/1.1 {status} -\r\ncontent-length: {}\r\n", body.len());
                    for (name, value) in headers {
                        head.extend([name, ": ", &value, "\r\n"]);
                    }
                    let bytes = [head.as_bytes(), b"\r\n", body.as_slice()].concat();
                    stream.write_all(&bytes).await
                }
                Act::Silent => std::future::pending().await,
                Act::Stall => {
                    let _ =
                        stream.write_all(b"HTTP/1.1 200 -\r\ncontent-length: 99\r\n\r\n{").await;
                    std::future::pending().await
                }
                Act::Cut => {
                    let _ =
                        stream.write_all(b"HTTP/1.1 200 -\r\ncontent-length: 99\r\n\r\n{").await;
                    return;
                }
            };
            if sent.is_err() {
                return;
            }
        }
    }
}

/// Returns the next request of a connection; `None` at its end.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    let head_bytes = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_bytes]).into_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let whole = head_bytes + length.unwrap_or(0);
    while bytes.len() < whole {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The exchange with a [`Fake`] over memory. Nothing outside of the runtime takes part, so paused time moves
/// only when every task waits for it.
impl Exchange for Fake {
    fn send(&self, request: Request) -> ExchangeFuture<'_> {
        Box::pin(async move {
            let broken = |error: hyper::Error| ExchangeFault::Broken(error.to_string());
            let (near, far) = tokio::io::duplex(64 * 1024);
            tokio::spawn(self.clone().serve(far));
            let handshake = hyper::client::conn::http1::handshake(TokioIo::new(near));
            let (mut sender, connection) = handshake.await.map_err(broken)?;
            tokio::spawn(connection);
            let request = request.map(|body| Full::new(Bytes::from(body)));
            let response = sender.send_request(request).await.map_err(broken)?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(broken)?.to_bytes().to_vec();
            Ok(Reply { status: parts.status, headers: parts.headers, body })
        })
    }
}
