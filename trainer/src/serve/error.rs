//! Errors in the form that OpenAI's clients expect: `{"error": {"message", "type", "param", "code"}}`.

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// An error that a client receives instead of a completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ApiError {
    /// The body is not a request, or a field has a value that is not accepted.
    Invalid { param: Option<String>, message: String },
    /// The client requests another model than the served one.
    NoSuchModel { requested: String, served: String },
    /// The body is larger than the limit.
    TooLarge { limit_bytes: usize },
    /// The running and waiting questions have reached the limit.
    Overloaded,
    /// The server is shutting down.
    ShuttingDown,
    /// The retriever did not answer a search.
    SearchFailed { reason: String },
    /// The episode ended without a result: the engine has failed.
    Internal,
    /// The path does not exist or does not accept the method.
    NotFound,
}

impl ApiError {
    pub(super) fn field(param: &str, found: &Value, accepted: &str) -> Self {
        let message = format!("`{param}` is {found}: expected {accepted}");
        Self::Invalid { param: Some(param.to_owned()), message }
    }

    /// Returns status, type, code and message.
    fn row(&self) -> (StatusCode, &'static str, Option<&'static str>, String) {
        const REQUEST: &str = "invalid_request_error";
        const SERVER: &str = "server_error";
        match self {
            Self::Invalid { message, .. } => {
                (StatusCode::BAD_REQUEST, REQUEST, None, message.clone())
            }
            Self::NoSuchModel { requested, served } => (
                StatusCode::NOT_FOUND,
                REQUEST,
                Some("model_not_found"),
                format!("`model` is {requested:?}: expected {served:?} or no model"),
            ),
            Self::TooLarge { limit_bytes } => (
                StatusCode::PAYLOAD_TOO_LARGE,
                REQUEST,
                Some("body_too_large"),
                format!("the body is larger than {limit_bytes} bytes (serve.max_body_bytes)"),
            ),
            Self::Overloaded => (
                StatusCode::SERVICE_UNAVAILABLE,
                SERVER,
                Some("overloaded"),
                "the server has reached its limit of running and waiting questions".to_owned(),
            ),
            Self::ShuttingDown => (
                StatusCode::SERVICE_UNAVAILABLE,
                SERVER,
                Some("shutting_down"),
                "the server is shutting down".to_owned(),
            ),
            Self::SearchFailed { reason } => (
                StatusCode::BAD_GATEWAY,
                SERVER,
                Some("search_failed"),
                format!("a search failed: {reason}"),
            ),
            Self::Internal => (
                StatusCode::INTERNAL_SERVER_ERROR,
                SERVER,
                Some("internal"),
                "the server failed; its log has the reason".to_owned(),
            ),
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                REQUEST,
                Some("not_found"),
                "the path does not exist or does not accept this method".to_owned(),
            ),
        }
    }

    /// Returns the error as a JSON object, for a body or an event of a stream.
    pub(super) fn body(&self) -> Value {
        let (_, kind, code, message) = self.row();
        let param = match self {
            Self::Invalid { param, .. } => param.as_deref(),
            Self::NoSuchModel { .. } => Some("model"),
            _ => None,
        };
        json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, ..) = self.row();
        let mut response = (status, axum::Json(self.body())).into_response();
        let seconds = match self {
            Self::Overloaded => Some(1),
            Self::ShuttingDown => Some(5),
            _ => None,
        };
        if let Some(seconds) = seconds {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
