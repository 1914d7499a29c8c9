//! Turns outcomes into responses. This file alone maps errors to statuses. Every body is JSON, because
//! clients parse it before they look at the status.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;
use shared::contract::wire::{ErrorBody, ValidationError, ValidationErrors};
use tracing::error;

use super::dialect::{EMPTY_QUERY, Encoding};
use crate::admission::Overloaded;
use crate::query::SearchFault;
use crate::state::{NotServing, Phase};

/// The reason why a request has no result.
#[derive(Debug)]
pub(crate) enum HttpError {
    /// The body is not a request.
    Invalid(Vec<ValidationError>),
    /// The query is empty, and the client's own server refuses that.
    EmptyQuery,
    /// The body is too large.
    TooLarge {
        /// The largest accepted body.
        limit_bytes: usize,
    },
    /// The body did not arrive in time.
    BodyTimeout,
    /// The client went away or broke the protocol while it sent the body.
    BodyBroken,
    /// The limits of admission are reached.
    Overloaded(Overloaded),
    /// The time that the client gives has passed before the request was read.
    Late,
    /// The server is starting or draining, or its index is damaged.
    NotReady(NotServing),
    /// The request has no accepted API key.
    Unauthorized,
    /// The index could not be loaded again.
    ReloadFailed(String),
    /// There is no re-ranker.
    NoReranker,
    /// The passages are with another service.
    NoPages,
    /// Queries failed.
    Unanswered {
        /// The number of queries that failed.
        failed: usize,
        /// The number of queries of the request.
        total: usize,
        /// The reason, the worst one of several.
        fault: SearchFault,
    },
    /// The server failed.
    Internal,
    /// The path does not exist.
    NotFound,
    /// The path does not accept the method.
    MethodNotAllowed,
}

/// The response to an error: status, code, text, and the seconds until a retry.
struct Row {
    status: StatusCode,
    code: &'static str,
    detail: String,
    retry_after_s: Option<u16>,
}

fn row(status: StatusCode, code: &'static str, detail: &str) -> Row {
    Row { status, code, detail: detail.to_owned(), retry_after_s: None }
}

impl HttpError {
    /// Returns the error of a request with faults.
    pub(super) fn invalid(faults: Vec<ValidationError>) -> Self {
        let is_empty = faults.iter().all(|fault| fault.kind == EMPTY_QUERY);
        if is_empty { Self::EmptyQuery } else { Self::Invalid(faults) }
    }

    /// Returns the name of the error for programs.
    pub(crate) fn code(&self) -> &'static str {
        self.row().code
    }

    /// Returns the row of the table of errors. Overload is 503 and never 429, which clients do not retry.
    fn row(&self) -> Row {
        let unavailable = |code, detail: &str, seconds| Row {
            retry_after_s: Some(seconds),
            ..row(StatusCode::SERVICE_UNAVAILABLE, code, detail)
        };
        match self {
            Self::Invalid(_) => {
                row(StatusCode::UNPROCESSABLE_ENTITY, "invalid_request", "the request is invalid")
            }
            Self::EmptyQuery => {
                row(StatusCode::BAD_REQUEST, EMPTY_QUERY, "the query is empty, expected a text")
            }
            Self::TooLarge { limit_bytes } => row(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                &format!("the request body is larger than {limit_bytes} bytes"),
            ),
            Self::BodyTimeout => row(
                StatusCode::REQUEST_TIMEOUT,
                "body_timeout",
                "the request body did not arrive in time",
            ),
            Self::BodyBroken => {
                row(StatusCode::BAD_REQUEST, "body_broken", "the request body ended early")
            }
            Self::Overloaded(Overloaded { retry_after_s }) => unavailable(
                "overloaded",
                "the server has reached its limit of requests or queries",
                *retry_after_s,
            ),
            Self::Late => unavailable(
                "deadline_exceeded",
                "the time that the request gives in its header has passed before it was read",
                1,
            ),
            Self::NotReady(NotServing::Phase(Phase::Draining)) => {
                unavailable("shutting_down", "the server is shutting down", 5)
            }
            Self::NotReady(NotServing::Phase(Phase::Starting | Phase::Ready)) => {
                unavailable("starting", "the index is being loaded", 2)
            }
            Self::NotReady(NotServing::Phase(Phase::Failed)) => {
                unavailable("start_failed", "the server cannot start; its log has the cause", 5)
            }
            Self::NotReady(NotServing::Damaged(fault)) => {
                unavailable("index_damaged", &format!("the index is out of service: {fault}"), 5)
            }
            Self::Unanswered { failed, total, fault } => unanswered(*failed, *total, *fault),
            Self::Unauthorized => row(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "this server needs an API key, as Authorization: Bearer KEY or X-Api-Key: KEY",
            ),
            Self::ReloadFailed(reason) => {
                row(StatusCode::INTERNAL_SERVER_ERROR, "reload_failed", reason)
            }
            Self::NoReranker => row(
                StatusCode::NOT_IMPLEMENTED,
                "no_reranker",
                "this server has no re-ranker: RETRIEVER_RERANKER is not set",
            ),
            Self::NoPages => row(
                StatusCode::NOT_IMPLEMENTED,
                "no_pages",
                "this server has no corpus to read pages from: its back end asks another service",
            ),
            Self::Internal => row(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "the server failed; its log has the cause",
            ),
            Self::NotFound => row(StatusCode::NOT_FOUND, "not_found", "the path does not exist"),
            Self::MethodNotAllowed => row(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "the path does not accept this method",
            ),
        }
    }
}

/// Returns the row of a request of whose queries some failed.
fn unanswered(failed: usize, total: usize, fault: SearchFault) -> Row {
    let (status, code, reason) = match fault {
        SearchFault::DeadlineExceeded => {
            (StatusCode::SERVICE_UNAVAILABLE, "deadline_exceeded", "were not answered in time")
        }
        SearchFault::Upstream => (
            StatusCode::SERVICE_UNAVAILABLE,
            "upstream_failed",
            "failed at a service behind this server; the log has the cause",
        ),
        // 502 would be retried by clients that know nothing of the code.
        SearchFault::Refused => (
            StatusCode::FAILED_DEPENDENCY,
            "upstream_refused",
            "were refused by a service behind this server; the log has the cause",
        ),
        SearchFault::Internal => {
            (StatusCode::SERVICE_UNAVAILABLE, "internal", "failed; the log has the cause")
        }
    };
    let detail = format!(
        "{failed} of {total} queries {reason}; with \"partial\": true, a request receives the answers to the \
         others"
    );
    let retry_after_s = (fault != SearchFault::Refused).then_some(1);
    Row { retry_after_s, ..row(status, code, &detail) }
}

/// Returns the response to an error.
pub(crate) fn error(error: HttpError) -> Response {
    let Row { status, code, detail, retry_after_s } = error.row();
    let limit_bytes = match &error {
        HttpError::TooLarge { limit_bytes } => Some(*limit_bytes),
        _ => None,
    };
    let needs_key = matches!(error, HttpError::Unauthorized);
    let mut response = match error {
        HttpError::Invalid(detail) => json(status, &ValidationErrors { detail }),
        _ => json(status, &ErrorBody { detail, code: code.to_owned(), limit_bytes }),
    };
    if let Some(seconds) = retry_after_s {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if needs_key {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Returns a response in JSON.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => json_bytes(status, bytes),
        Err(fault) => {
            error!(%fault, "a response could not be serialised");
            json_bytes(StatusCode::INTERNAL_SERVER_ERROR, br#"{"detail":"internal"}"#.to_vec())
        }
    }
}

/// Returns a response of serialised JSON.
pub(crate) fn json_bytes(status: StatusCode, bytes: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Returns a body in the encoding of its request, or nothing if it cannot be written, which is logged.
pub(super) fn encode(encoding: Encoding, body: &impl Serialize) -> Option<Vec<u8>> {
    let written = match encoding {
        Encoding::Json => serde_json::to_vec(body).map_err(|fault| fault.to_string()),
        Encoding::MessagePack => rmp_serde::to_vec_named(body).map_err(|fault| fault.to_string()),
    };
    written.map_err(|fault| error!(%fault, "a response could not be serialised")).ok()
}

/// Returns a successful response of an encoded body.
pub(super) fn encoded(encoding: Encoding, bytes: Vec<u8>) -> Response {
    let mut response = json_bytes(StatusCode::OK, bytes);
    if encoding == Encoding::MessagePack {
        let name = HeaderValue::from_static("application/msgpack");
        response.headers_mut().insert(CONTENT_TYPE, name);
    }
    response
}

/// Answers requests for unknown paths.
pub(crate) async fn not_found() -> Response {
    error(HttpError::NotFound)
}

/// Answers requests with unknown methods.
pub(crate) async fn method_not_allowed() -> Response {
    error(HttpError::MethodNotAllowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_and_retry_after() {
        let unanswered = |fault| HttpError::Unanswered { failed: 1, total: 2, fault };
        let table = [
            (HttpError::Invalid(Vec::new()), 422, None),
            (HttpError::EmptyQuery, 400, None),
            (HttpError::TooLarge { limit_bytes: 1 }, 413, None),
            (HttpError::BodyTimeout, 408, None),
            (HttpError::BodyBroken, 400, None),
            (HttpError::Overloaded(Overloaded { retry_after_s: 7 }), 503, Some("7")),
            (HttpError::Late, 503, Some("1")),
            (HttpError::NotReady(NotServing::Phase(Phase::Starting)), 503, Some("2")),
            (HttpError::NotReady(NotServing::Phase(Phase::Draining)), 503, Some("5")),
            (HttpError::NotReady(NotServing::Phase(Phase::Failed)), 503, Some("5")),
            (HttpError::NotReady(NotServing::Damaged("x".into())), 503, Some("5")),
            (unanswered(SearchFault::DeadlineExceeded), 503, Some("1")),
            (unanswered(SearchFault::Internal), 503, Some("1")),
            (unanswered(SearchFault::Upstream), 503, Some("1")),
            (unanswered(SearchFault::Refused), 424, None),
            (HttpError::Unauthorized, 401, None),
            (HttpError::ReloadFailed("it is corrupt".to_owned()), 500, None),
            (HttpError::NoReranker, 501, None),
            (HttpError::NoPages, 501, None),
            (HttpError::Internal, 500, None),
            (HttpError::NotFound, 404, None),
            (HttpError::MethodNotAllowed, 405, None),
        ];
        for (fault, status, retry_after) in table {
            let name = format!("{fault:?}");
            let response = error(fault);
            assert_eq!(response.status().as_u16(), status, "{name}");
            let header = response.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap());
            assert_eq!(header, retry_after, "{name}");
            assert_eq!(response.headers()[CONTENT_TYPE], "application/json", "{name}");
        }
    }
}
