//! A local hub with the protocol of the real one, for models and data sets. It lists the files, serves small files itself, and
//! redirects to a store at another address for large files. The store supports ranges.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;
use sha1::{Digest as _, Sha1};
use shared::contract::digest::Digest;

use crate::harness::http::PATIENCE;
use crate::harness::run_dir;

pub(crate) const REPOSITORY: &str = "tiny/world";
/// A former name of the repository.
pub(crate) const OLD_NAME: &str = "tiny/globe";
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The faults of the hub.
#[derive(Default)]
pub(crate) struct Faults {
    /// For each response of the store in turn, the number of bytes after which it breaks off.
    pub(crate) cuts: VecDeque<usize>,
    /// Number of requests that are answered with 503 first.
    pub(crate) busy: usize,
    /// If `true`, the store ignores ranges and sends whole files.
    pub(crate) without_ranges: bool,
    /// A file in which the store flips a bit.
    pub(crate) damaged: Option<String>,
    /// The token that is required to read files.
    pub(crate) token: Option<String>,
}

/// A received request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// `GET /path`
    pub(crate) line: String,
    pub(crate) token: Option<String>,
    pub(crate) range: Option<String>,
    pub(crate) at_store: bool,
}

struct State {
    /// The bytes of each file, by `repository/path`.
    files: BTreeMap<String, Vec<u8>>,
    faults: Faults,
    seen: Vec<Seen>,
}

/// A running hub and its store.
pub(crate) struct FakeHub {
    hub: SocketAddr,
    store: SocketAddr,
    state: Arc<Mutex<State>>,
    ended: Arc<AtomicBool>,
}

impl FakeHub {
    /// Starts a hub with one repository, which holds the files of `folder`.
    pub(crate) fn start(folder: &Path, faults: Faults) -> Self {
        Self::start_with(&[(REPOSITORY, folder)], faults)
    }

    /// Starts a hub with the files of several repositories, whatever their kind.
    pub(crate) fn start_with(repositories: &[(&str, &Path)], faults: Faults) -> Self {
        let name = |path: PathBuf| path.into_os_string().into_string().unwrap();
        let files = repositories.iter().flat_map(|(repository, folder)| {
            let files = run_dir::files(folder);
            files
                .into_iter()
                .map(move |(path, bytes)| (format!("{repository}/{}", name(path)), bytes))
        });
        let files = files.collect();
        let state = Arc::new(Mutex::new(State { files, faults, seen: Vec::new() }));
        let ended = Arc::new(AtomicBool::new(false));
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (hub, store) = (listen(), listen());
        let (hub_addr, store_addr) = (hub.local_addr().unwrap(), store.local_addr().unwrap());
        for (listener, at_store) in [(hub, false), (store, true)] {
            let (state, ended) = (Arc::clone(&state), Arc::clone(&ended));
            std::thread::spawn(move || {
                for connection in listener.incoming() {
                    if ended.load(Ordering::Acquire) {
                        return;
                    }
                    if let Ok(connection) = connection {
                        serve(&connection, &state, at_store, store_addr);
                    }
                }
            });
        }
        Self { hub: hub_addr, store: store_addr, state, ended }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.hub)
    }

    /// Returns the requests since the last call.
    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state.lock().unwrap().seen)
    }
}

impl Drop for FakeHub {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // The connections wake the threads, which then see the flag.
        for addr in [self.hub, self.store] {
            let _ = TcpStream::connect(addr);
        }
    }
}

/// Returns `true` for files that the hub keeps in its store.
pub(crate) fn is_large(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    let ending = Path::new(file).extension();
    ending.is_some_and(|ending| ending == "safetensors" || ending == "gz")
        || name == "tokenizer.json"
        || name.starts_with("part_")
}

/// Returns the hub's digest of a file: SHA-256 in the store, git's blob name otherwise.
pub(crate) fn digest(file: &str, bytes: &[u8]) -> String {
    if is_large(file) {
        return Digest::of_bytes(bytes).to_string();
    }
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {}\0", bytes.len()));
    hasher.update(bytes);
    let digest: [u8; 20] = hasher.finalize().into();
    digest.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Serves the request of a connection.
fn serve(connection: &TcpStream, state: &Mutex<State>, at_store: bool, store: SocketAddr) {
    let Some(seen) = read_request(connection, at_store) else { return };
    let mut state = state.lock().unwrap();
    state.seen.push(seen.clone());
    if state.faults.busy > 0 {
        state.faults.busy -= 1;
        answer(connection, "503 Service Unavailable", &[], b"");
        return;
    }
    let path = seen.line.split_once(' ').unwrap().1;
    if at_store {
        let file = path.trim_start_matches("/store/").to_owned();
        serve_stored(connection, &mut state, &file, seen.range.as_deref());
    } else if let Some(rest) =
        path.strip_prefix("/api/models/").or_else(|| path.strip_prefix("/api/datasets/"))
    {
        serve_list(connection, &state, rest);
    } else {
        serve_file(connection, &state, &seen, store);
    }
}

fn serve_list(connection: &TcpStream, state: &State, path: &str) {
    let (repository, revision) = path.split_once("/revision/").unwrap();
    if repository == OLD_NAME {
        let location = format!("/api/models/{REPOSITORY}/revision/{revision}");
        answer(connection, "307 Temporary Redirect", &[("Location", &location)], b"");
        return;
    }
    let own = format!("{repository}/");
    let files = state.files.keys().filter_map(|file| file.strip_prefix(&own));
    let siblings: Vec<_> = files.map(|file| json!({ "rfilename": file })).collect();
    if siblings.is_empty() {
        refuse(connection, "401 Unauthorized", "RepoNotFound");
    } else if revision == "main" || revision == COMMIT {
        let list = json!({"id": repository, "sha": COMMIT, "siblings": siblings}).to_string();
        answer(connection, "200 OK", &[], list.as_bytes());
    } else {
        refuse(connection, "404 Not Found", "RevisionNotFound");
    }
}

fn serve_file(connection: &TcpStream, state: &State, seen: &Seen, store: SocketAddr) {
    let (method, path) = seen.line.split_once(' ').unwrap();
    let path = path.replace(OLD_NAME, REPOSITORY);
    let path = path.strip_prefix("/datasets").unwrap_or(&path);
    let resolved = format!("/resolve/{COMMIT}/");
    let (repository, file) = path.trim_start_matches('/').split_once(&resolved).unwrap();
    let stored = format!("{repository}/{file}");
    if state.faults.token.is_some() && state.faults.token != seen.token {
        refuse(connection, "403 Forbidden", "GatedRepo");
        return;
    }
    let Some(bytes) = state.files.get(&stored) else {
        refuse(connection, "404 Not Found", "EntryNotFound");
        return;
    };
    let etag = format!("\"{}\"", digest(file, bytes));
    if is_large(file) {
        let (size, location) = (bytes.len().to_string(), format!("http://{store}/store/{stored}"));
        let headers = [
            ("X-Linked-Etag", etag.as_str()),
            ("X-Linked-Size", &size),
            ("Location", &location),
            ("ETag", "\"of the redirect\""),
        ];
        answer(connection, "302 Found", &headers, b"");
    } else if method == "HEAD" {
        let head = format!(
            "HTTP/1.1 200 OK\r\nETag: W/{etag}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            bytes.len()
        );
        let _ = (&mut &*connection).write_all(head.as_bytes());
    } else {
        answer(connection, "200 OK", &[("ETag", &etag)], bytes);
    }
}

fn serve_stored(mut connection: &TcpStream, state: &mut State, file: &str, range: Option<&str>) {
    let cut = state.faults.cuts.pop_front();
    let mut bytes = state.files[file].clone();
    if state.faults.damaged.as_ref().is_some_and(|damaged| file.ends_with(damaged)) {
        bytes[0] ^= 1;
    }
    let start = range
        .filter(|_| !state.faults.without_ranges)
        .map(|range| range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap());
    let part = &bytes[start.unwrap_or(0)..];
    let mut head = match start {
        Some(start) => format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{}/{}\r\n",
            bytes.len() - 1,
            bytes.len()
        ),
        None => "HTTP/1.1 200 OK\r\n".to_owned(),
    };
    let _ = write!(head, "Content-Length: {}\r\nConnection: close\r\n\r\n", part.len());
    let sent = cut.map_or(part.len(), |cut| cut.min(part.len()));
    // The client may close the connection early: ignore errors.
    let _ = connection.write_all(head.as_bytes());
    let _ = connection.write_all(&part[..sent]);
}

fn refuse(connection: &TcpStream, status: &str, code: &str) {
    let message = format!("explanation of {code}");
    answer(connection, status, &[("X-Error-Code", code), ("X-Error-Message", &message)], b"");
}

fn answer(mut connection: &TcpStream, status: &str, headers: &[(&str, &str)], body: &[u8]) {
    let mut head = format!("HTTP/1.1 {status}\r\n");
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let _ = write!(head, "Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = connection.write_all(head.as_bytes());
    let _ = connection.write_all(body);
}

/// Reads the relevant parts of a request. Returns `None` for a connection that only wakes the thread.
fn read_request(connection: &TcpStream, at_store: bool) -> Option<Seen> {
    connection.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut lines = BufReader::new(connection).lines();
    let first = lines.next()?.ok()?;
    let line = first.rsplit_once(' ')?.0.to_owned();
    let mut seen = Seen { line, token: None, range: None, at_store };
    for header in lines {
        let header = header.ok()?;
        let Some((name, value)) = header.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => seen.token = value.strip_prefix("Bearer ").map(str::to_owned),
            "range" => seen.range = Some(value.to_owned()),
            _ => {}
        }
    }
    Some(seen)
}
