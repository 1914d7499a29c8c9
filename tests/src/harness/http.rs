//! Requests to a service, and their responses.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::harness::wait::wait_until;

/// Longest wait, generous for a busy machine; a test that reaches it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A response with its JSON body.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) retry_after: Option<String>,
    pub(crate) body: Value,
}

/// Creates a client without limits.
pub(crate) fn client() -> reqwest::Client {
    shared::machine::http::client_builder().build().unwrap()
}

/// Sends a body without a `Content-Type`.
pub(crate) async fn post_bytes(url: &str, body: Vec<u8>) -> Reply {
    post_bytes_to(url, "/retrieve", body).await
}

/// Sends a body without a `Content-Type` to any path.
pub(crate) async fn post_bytes_to(url: &str, path: &str, body: Vec<u8>) -> Reply {
    let client = client();
    reply(client.post(format!("{url}{path}")).timeout(PATIENCE).body(body)).await
}

/// Sends a JSON body to `/retrieve`.
pub(crate) async fn post(url: &str, body: &Value) -> Reply {
    post_bytes(url, body.to_string().into_bytes()).await
}

/// Requests a path.
pub(crate) async fn get(url: &str, path: &str) -> Reply {
    reply(client().get(format!("{url}{path}")).timeout(PATIENCE)).await
}

/// Requests a path whose body is not JSON.
pub(crate) async fn text_of(url: &str, path: &str) -> String {
    let response = client().get(format!("{url}{path}")).timeout(PATIENCE).send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    response.text().await.unwrap()
}

async fn reply(request: reqwest::RequestBuilder) -> Reply {
    let response = request.send().await.unwrap();
    let header =
        |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    Reply {
        status: response.status().as_u16(),
        content_type: header("content-type").unwrap_or_default(),
        retry_after: header("retry-after"),
        body: response.json().await.unwrap(),
    }
}

/// Polls `/stats` until the counter `name` has the value `expected`.
pub(crate) async fn wait_for_stat(url: &str, name: &str, expected: impl Into<Value>) {
    let expected = expected.into();
    wait_until(PATIENCE, async || get(url, "/stats").await.body, |stats| stats[name] == expected)
        .await;
}

/// A pending request: its head has been sent, its body has not.
pub(crate) struct HeldRequest {
    stream: TcpStream,
    body: String,
}

impl HeldRequest {
    /// Sends the head, which announces the body.
    pub(crate) fn open(addr: SocketAddr, body: &Value) -> Self {
        let body = body.to_string();
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "POST /retrieve HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        Self { stream, body }
    }

    /// Sends the body and returns the whole response as text.
    pub(crate) fn complete(mut self) -> String {
        self.stream.write_all(self.body.as_bytes()).unwrap();
        self.response()
    }

    /// Returns the whole response as text, without sending the body.
    pub(crate) fn response(mut self) -> String {
        let mut response = String::new();
        self.stream.read_to_string(&mut response).unwrap();
        response
    }
}
