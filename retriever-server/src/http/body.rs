//! Reads request bodies within limits of size and time.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, EXPECT};

use super::respond::HttpError;

/// The number of bytes of a too large body that are read and discarded. Many clients look for a response
/// only after they have sent everything, and report a broken connection if it is closed before.
const MAX_DISCARDED_BYTES: usize = 64 * 1024 * 1024;

/// Reads a body of at most `limit_bytes` that arrives within `time_limit`.
pub(crate) async fn read(
    request: Request,
    limit_bytes: usize,
    time_limit: Duration,
) -> Result<Vec<u8>, HttpError> {
    let (parts, body) = request.into_parts();
    let announced = announced_bytes(&parts.headers);
    // A client that asks before it sends (Expect: 100-continue) is refused before it sends.
    if announced.is_some_and(|bytes| bytes > limit_bytes) && parts.headers.contains_key(EXPECT) {
        return Err(HttpError::TooLarge { limit_bytes });
    }
    let capacity = announced.unwrap_or(0).min(limit_bytes);
    tokio::time::timeout(time_limit, collect(body, limit_bytes, capacity))
        .await
        .unwrap_or(Err(HttpError::BodyTimeout))
}

/// Reads and discards a body that arrives within `time_limit`, up to a limit of bytes. A client that asks before it
/// sends is left to ask.
pub(crate) async fn discard(request: Request, time_limit: Duration) {
    if !request.headers().contains_key(EXPECT) {
        // However it ends, nothing is done with it.
        let _ = tokio::time::timeout(time_limit, collect(request.into_body(), 0, 0)).await;
    }
}

/// Collects the frames of a body.
async fn collect(
    mut body: Body,
    limit_bytes: usize,
    capacity: usize,
) -> Result<Vec<u8>, HttpError> {
    let mut bytes = Vec::with_capacity(capacity);
    let mut received: usize = 0;
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(|_| HttpError::BodyBroken)?;
        let Ok(data) = frame.into_data() else { continue };
        received = received.saturating_add(data.len());
        if received <= limit_bytes {
            bytes.extend_from_slice(&data);
        } else {
            bytes = Vec::new();
            if received > limit_bytes.saturating_add(MAX_DISCARDED_BYTES) {
                break;
            }
        }
    }
    if received > limit_bytes { Err(HttpError::TooLarge { limit_bytes }) } else { Ok(bytes) }
}

fn announced_bytes(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(body: &'static str) -> Request {
        Request::new(Body::from(body))
    }

    #[tokio::test]
    async fn the_limit_is_inclusive() {
        let limit = Duration::from_mins(1);
        assert_eq!(read(request("12345"), 5, limit).await.unwrap(), b"12345");
        let error = read(request("123456"), 5, limit).await.unwrap_err();
        assert!(matches!(error, HttpError::TooLarge { limit_bytes: 5 }));
    }
}
