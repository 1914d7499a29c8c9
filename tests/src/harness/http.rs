//! Requests to a service, and what came back.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Long enough for a busy machine; a test that needs it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A response with its JSON body.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) retry_after: Option<String>,
    pub(crate) body: Value,
}

/// A client without limits.
pub(crate) fn client() -> reqwest::Client {
    shared::http::client_builder().build().unwrap()
}

/// Sends a body as it is, without a `Content-Type`.
pub(crate) async fn post_bytes(url: &str, body: Vec<u8>) -> Reply {
    post_bytes_to(url, "/retrieve", body).await
}

/// Like [`post_bytes`], to any path.
pub(crate) async fn post_bytes_to(url: &str, path: &str, body: Vec<u8>) -> Reply {
    let client = client();
    reply(client.post(format!("{url}{path}")).timeout(PATIENCE).body(body)).await
}

/// Sends a JSON body to `/retrieve`.
pub(crate) async fn post(url: &str, body: &Value) -> Reply {
    post_bytes(url, body.to_string().into_bytes()).await
}

/// Asks for a path.
pub(crate) async fn get(url: &str, path: &str) -> Reply {
    reply(client().get(format!("{url}{path}")).timeout(PATIENCE)).await
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

/// A request whose head is sent and whose body is not, so that it stays under way.
pub(crate) struct HeldRequest {
    stream: TcpStream,
    body: String,
}

impl HeldRequest {
    /// Announces a body.
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

    /// Returns the whole response as text without having sent the body.
    pub(crate) fn response(mut self) -> String {
        let mut response = String::new();
        self.stream.read_to_string(&mut response).unwrap();
        response
    }
}
