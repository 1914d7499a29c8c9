//! Reads request bodies within limits of size and time.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, EXPECT};

use super::respond::HttpError;
use crate::admission::{Admission, Memory};

/// The number of bytes of a too large body that are read and discarded. Many clients look for a response
/// only after they have sent everything, and report a broken connection if it is closed before.
const MAX_DISCARDED_BYTES: usize = 64 * 1024 * 1024;

/// The largest body whose memory is taken at once. A client may announce more than it sends.
const MAX_TAKEN_BYTES: usize = 1024 * 1024;

/// A body, with its part of the memory for all bodies.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) bytes: Vec<u8>,
    memory: Memory,
}

/// Reads a body of at most `limit_bytes` that arrives within `time_limit`, as long as there is memory for it.
pub(crate) async fn read(
    request: Request,
    limit_bytes: usize,
    time_limit: Duration,
    admission: &Admission,
) -> Result<Read, HttpError> {
    let (parts, body) = request.into_parts();
    let announced = announced_bytes(&parts.headers);
    // A client that asks before it sends (Expect: 100-continue) is refused before it sends.
    if announced.is_some_and(|bytes| bytes > limit_bytes) && parts.headers.contains_key(EXPECT) {
        return Err(HttpError::TooLarge { limit_bytes });
    }
    let capacity = announced.unwrap_or(0).min(limit_bytes).min(MAX_TAKEN_BYTES);
    tokio::time::timeout(time_limit, collect(body, limit_bytes, capacity, admission))
        .await
        .unwrap_or(Err(HttpError::BodyTimeout))
}

/// Reads and discards a body that arrives within `time_limit`, up to a limit of bytes. A client that asks before it
/// sends is left to ask.
pub(crate) async fn discard(request: Request, time_limit: Duration) {
    if !request.headers().contains_key(EXPECT) {
        let mut body = request.into_body();
        let all = async {
            let mut received = 0;
            while received <= MAX_DISCARDED_BYTES
                && let Ok(Some(data)) = next(&mut body).await
            {
                received += data.len();
            }
        };
        // However it ends, nothing is done with it.
        let _ = tokio::time::timeout(time_limit, all).await;
    }
}

/// Returns the next bytes of a body.
async fn next(body: &mut Body) -> Result<Option<Bytes>, HttpError> {
    while let Some(frame) = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await {
        if let Ok(data) = frame.map_err(|_| HttpError::BodyBroken)?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// Collects the bytes of a body. The rest of one that is refused is discarded.
async fn collect(
    mut body: Body,
    limit_bytes: usize,
    capacity: usize,
    admission: &Admission,
) -> Result<Read, HttpError> {
    let mut read = Read { bytes: Vec::with_capacity(capacity), memory: Memory::default() };
    let mut received: usize = 0;
    let mut refused = None;
    while let Some(data) = next(&mut body).await? {
        received = received.saturating_add(data.len());
        if received > limit_bytes {
            refused = Some(HttpError::TooLarge { limit_bytes });
        } else if let Err(overloaded) = admission.grow(&mut read.memory, received) {
            refused = Some(HttpError::Overloaded(overloaded));
        }
        if refused.is_none() {
            read.bytes.extend_from_slice(&data);
        } else {
            read = Read::default();
            if received > limit_bytes.saturating_add(MAX_DISCARDED_BYTES) {
                break;
            }
        }
    }
    refused.map_or(Ok(read), Err)
}

fn announced_bytes(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::turns::{TurnLimits, Turns};

    /// Returns limits with room for bodies of this size together.
    fn admission(bodies_bytes: usize) -> Admission {
        let limits = TurnLimits { max_in_flight: 1, max_slice: 1, max_wait: Duration::ZERO };
        Admission::new(1, 1, Arc::new(Turns::new(limits))).with_memory(bodies_bytes)
    }

    fn request(body: &'static str) -> Request {
        Request::new(Body::from(body))
    }

    #[tokio::test]
    async fn the_limit_is_inclusive() {
        let limit = Duration::from_mins(1);
        let admission = admission(1 << 20);
        let body = read(request("12345"), 5, limit, &admission).await.unwrap();
        assert_eq!(body.bytes, b"12345");
        let error = read(request("123456"), 5, limit, &admission).await.unwrap_err();
        assert!(matches!(error, HttpError::TooLarge { limit_bytes: 5 }));
    }

    #[tokio::test]
    async fn all_bodies_together_are_bounded() {
        let limit = Duration::from_mins(1);
        let admission = admission(2048);
        let first = read(request("one"), 5, limit, &admission).await.unwrap();
        let _second = read(request("two"), 5, limit, &admission).await.unwrap();
        let error = read(request("three"), 5, limit, &admission).await.unwrap_err();
        assert!(matches!(error, HttpError::Overloaded(_)), "{error:?}");
        drop(first);
        read(request("four"), 5, limit, &admission).await.unwrap();
    }
}
