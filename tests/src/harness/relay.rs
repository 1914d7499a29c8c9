//! A relay between trainer and retriever that reports every request to the test. The test can thus act at
//! a certain request without a clock.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::harness::http::PATIENCE;
use crate::harness::wait::wait_for_event;

/// Most events that wait for the test: far more than a test causes.
const EVENTS_MAX: usize = 1 << 16;

/// An event of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RelayEvent {
    /// The request waits until the test calls [`Relay::let_go`].
    Held,
    /// The retriever answered.
    Answered,
    /// The relay answered with status 422, after which no client retries.
    Refused,
    /// The retriever could not be reached or closed the connection.
    Lost,
}

/// The treatment of one request. Requests count from 1.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule {
    /// Hold the request with this number.
    Hold(usize),
    /// Answer the request with this number with status 422.
    Refuse(usize),
}

/// A running relay.
pub(crate) struct Relay {
    addr: SocketAddr,
    events: Receiver<RelayEvent>,
    release: SyncSender<()>,
    ended: Arc<AtomicBool>,
}

/// The state of the relay's thread.
struct Shared {
    upstream: SocketAddr,
    rule: Rule,
    requests: AtomicUsize,
    events: SyncSender<RelayEvent>,
}

impl Relay {
    /// Starts a relay to `upstream`. One thread serves all requests: a held request delays the others too.
    pub(crate) fn start(upstream: SocketAddr, rule: Rule) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, events) = sync_channel(EVENTS_MAX);
        let (release, released) = sync_channel(1);
        let ended = Arc::new(AtomicBool::new(false));
        let shared = Shared { upstream, rule, requests: AtomicUsize::new(0), events: sender };
        let is_ended = Arc::clone(&ended);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                if is_ended.load(Ordering::Acquire) {
                    return;
                }
                if let Ok(connection) = connection {
                    shared.serve(&connection, &released);
                }
            }
        });
        Self { addr, events, release, ended }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Waits for the next event of this kind and skips other events before it.
    pub(crate) fn wait_for(&self, wanted: RelayEvent) {
        wait_for_event(&self.events, wanted);
    }

    /// Releases the held request.
    pub(crate) fn let_go(&self) {
        self.release.send(()).unwrap();
    }

    /// Returns the number of such events since the last call of a method that reads events.
    pub(crate) fn count(&self, wanted: RelayEvent) -> usize {
        self.events.try_iter().filter(|event| *event == wanted).count()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // The connection wakes the thread, which then sees the flag.
        let _ = TcpStream::connect(self.addr);
    }
}

impl Shared {
    fn serve(&self, connection: &TcpStream, released: &Receiver<()>) {
        let Ok(request) = read_request(connection) else { return };
        let number = self.requests.fetch_add(1, Ordering::AcqRel) + 1;
        let event = match self.rule {
            Rule::Refuse(refused) if refused == number => {
                let _ = refuse(connection);
                RelayEvent::Refused
            }
            rule => {
                if matches!(rule, Rule::Hold(held) if held == number) {
                    let _ = self.events.send(RelayEvent::Held);
                    let _ = released.recv_timeout(PATIENCE);
                }
                match forward(&request, self.upstream, connection) {
                    Ok(bytes) if bytes > 0 => RelayEvent::Answered,
                    _ => RelayEvent::Lost,
                }
            }
        };
        let _ = self.events.send(event);
    }
}

/// Reads the request of a connection, in the form to be forwarded.
fn read_request(connection: &TcpStream) -> io::Result<Vec<u8>> {
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(connection);
    let mut request = Vec::new();
    let mut body_bytes = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line == "\r\n" {
            break;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(length) = lower.strip_prefix("content-length:") {
            body_bytes = length.trim().parse().map_err(io::Error::other)?;
        }
        request.extend_from_slice(line.as_bytes());
    }
    request.extend_from_slice(b"connection: close\r\n\r\n");
    let mut body = vec![0; body_bytes];
    reader.read_exact(&mut body)?;
    request.extend_from_slice(&body);
    Ok(request)
}

fn forward(request: &[u8], upstream: SocketAddr, mut client: &TcpStream) -> io::Result<u64> {
    let mut server = TcpStream::connect(upstream)?;
    server.set_read_timeout(Some(PATIENCE))?;
    server.write_all(request)?;
    io::copy(&mut server, &mut client)
}

fn refuse(mut client: &TcpStream) -> io::Result<()> {
    client.write_all(
        b"HTTP/1.1 422 Unprocessable Entity\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}",
    )
}
