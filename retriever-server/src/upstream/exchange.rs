//! One request to a service and its reply, within limits of size. [`Http`] is the exchange over the network.
//! It follows no redirect, because a redirect may lead a key to another server.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use reqwest::redirect::Policy;
use shared::machine::http::{client_builder, with_causes};
use thiserror::Error;

/// A request with its whole body, so that it can be sent again.
pub type Request = http::Request<Vec<u8>>;

/// The outcome of an exchange as a future.
pub type ExchangeFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Reply, ExchangeFault>> + Send + 'a>>;

/// A reply with its whole body, unpacked.
#[derive(Clone)]
pub struct Reply {
    /// The status, which may be any.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl fmt::Debug for Reply {
    // A body may repeat a key.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Reply")
            .field("status", &self.status)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// The reason why a request has no whole reply.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ExchangeFault {
    /// There was no connection, or it broke.
    #[error("no reply: {0}")]
    Broken(String),
    /// The body is too large.
    #[error("the reply is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The largest accepted body.
        limit_bytes: usize,
    },
    /// The request was not sent, and will not be for some time.
    #[error("{0}")]
    Withheld(String),
}

/// The sending of requests.
pub trait Exchange: fmt::Debug + Send + Sync {
    /// Sends a request and reads its whole reply. The caller limits the time: a dropped future ends the exchange.
    fn send(&self, request: Request) -> ExchangeFuture<'_>;
}

/// The exchange over HTTP and HTTPS. Connections are kept and shared.
#[derive(Clone, Debug)]
pub struct Http {
    client: reqwest::Client,
    max_body_bytes: usize,
}

impl Http {
    /// Creates a client that refuses bodies of more than `max_body_bytes` after unpacking.
    pub fn new(connect_timeout: Duration, max_body_bytes: usize) -> Result<Self, String> {
        let client = client_builder()
            .redirect(Policy::none())
            .connect_timeout(connect_timeout)
            .user_agent(concat!("search-r1-retriever/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| with_causes(&error))?;
        Ok(Self::over(client, max_body_bytes))
    }

    /// Wraps a client, which should follow no redirect.
    pub fn over(client: reqwest::Client, max_body_bytes: usize) -> Self {
        Self { client, max_body_bytes }
    }
}

impl Exchange for Http {
    fn send(&self, request: Request) -> ExchangeFuture<'_> {
        Box::pin(async move {
            // The URL may hold a key, so errors are shown without it.
            let broken =
                |error: reqwest::Error| ExchangeFault::Broken(with_causes(&error.without_url()));
            let request = reqwest::Request::try_from(request).map_err(broken)?;
            let mut response = self.client.execute(request).await.map_err(broken)?;
            let limit_bytes = self.max_body_bytes;
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(broken)? {
                if body.len() + chunk.len() > limit_bytes {
                    return Err(ExchangeFault::TooLarge { limit_bytes });
                }
                body.extend_from_slice(&chunk);
            }
            let (status, headers) = (response.status(), response.headers().clone());
            Ok(Reply { status, headers, body })
        })
    }
}
