//! `retriever-server health`: one GET of `/readyz`, for health checks of containers whose images have no
//! curl.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use reqwest::Url;
use thiserror::Error;

use super::UsageError;
use crate::config::variables::ADDR;

const TIME_LIMIT: Duration = Duration::from_secs(5);
/// The largest head that is read; the status line is within it.
const MAX_HEAD_BYTES: u64 = 4096;

/// The reason why a server is not ready.
#[derive(Debug, Error)]
pub(crate) enum HealthError {
    /// The server cannot be reached.
    #[error("{url} does not answer: {cause}")]
    NoAnswer {
        /// The base URL.
        url: String,
        /// The cause.
        cause: io::Error,
    },
    /// The server answers that it is not ready.
    #[error("{url} is not ready: status {status}")]
    NotReady {
        /// The base URL.
        url: String,
        /// The status of the answer.
        status: String,
    },
}

/// Fails with the reason if the server is not ready.
pub(crate) fn check(
    url: Option<String>,
    environment: &BTreeMap<String, String>,
) -> anyhow::Result<()> {
    let refused = if let Some(url) = &url {
        format!("--url is {url:?}: expected http://host:port")
    } else {
        let addr = environment.get(ADDR.name).map_or("", String::as_str);
        format!("{} is {addr:?}: expected {}", ADDR.name, ADDR.accepts)
    };
    let url = url.unwrap_or_else(|| default_url(environment));
    let host = host_of(&url).ok_or(UsageError(refused))?;
    match get_status(&host) {
        Ok(status) if status == "200" => Ok(()),
        Ok(status) => Err(HealthError::NotReady { url, status }.into()),
        Err(cause) => Err(HealthError::NoAnswer { url, cause }.into()),
    }
}

/// Returns the URL of a server in this environment, with the port of RETRIEVER_ADDR.
pub(crate) fn default_url(environment: &BTreeMap<String, String>) -> String {
    let addr = environment.get(ADDR.name).map(String::as_str).or(ADDR.default);
    let addr = addr.expect("the table of variables has a default address");
    let port = addr.rsplit(':').next().unwrap_or(addr);
    format!("http://127.0.0.1:{port}")
}

/// Returns the host and port of an HTTP URL.
fn host_of(url: &str) -> Option<String> {
    let url = Url::parse(url).ok().filter(|url| url.scheme() == "http")?;
    Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?))
}

/// Returns the status of `GET /readyz`.
fn get_status(host: &str) -> io::Result<String> {
    let addr = host
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| io::Error::other("the host has no address"))?;
    let mut stream = TcpStream::connect_timeout(&addr, TIME_LIMIT)?;
    stream.set_read_timeout(Some(TIME_LIMIT))?;
    stream.set_write_timeout(Some(TIME_LIMIT))?;
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut head = Vec::new();
    stream.take(MAX_HEAD_BYTES).read_to_end(&mut head)?;
    let head = String::from_utf8_lossy(&head);
    let status = head.split(' ').nth(1).filter(|_| head.starts_with("HTTP/1."));
    status.map(str::to_owned).ok_or_else(|| io::Error::other("the answer is not HTTP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_follows_the_environment() {
        let mut environment = BTreeMap::new();
        assert_eq!(default_url(&environment), "http://127.0.0.1:8000");
        environment.insert("RETRIEVER_ADDR".to_owned(), "[::]:9002".to_owned());
        assert_eq!(default_url(&environment), "http://127.0.0.1:9002");
    }

    #[test]
    fn hosts_are_taken_from_urls() {
        for (url, host) in [
            ("http://localhost:8000/", "localhost:8000"),
            ("http://retriever", "retriever:80"),
            ("http://[::1]:8000/readyz", "[::1]:8000"),
        ] {
            assert_eq!(host_of(url).as_deref(), Some(host), "{url}");
        }
        for url in
            ["https://retriever", "localhost:8000", "127.0.0.1:8000", "http://", "http://a:b"]
        {
            assert_eq!(host_of(url), None, "{url}");
        }
    }
}
