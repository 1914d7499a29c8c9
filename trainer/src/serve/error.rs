//! Errors as OpenAI's clients expect them: `{"error": {"message", "type", "param", "code"}}`.

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Why a request has no completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ApiError {
    /// The body is no request, or a field has a value that is not accepted.
    Invalid { param: Option<String>, message: String },
    /// Another model is asked for than the one that is served.
    NoSuchModel { asked: String, served: String },
    /// The body is larger than the limit.
    TooLarge { limit_bytes: usize },
    /// As many questions are being answered and waiting as are taken on.
    Overloaded,
    /// The server is ending.
    ShuttingDown,
    /// The retriever did not answer a search.
    SearchFailed { reason: String },
    /// The episode ended without a word: the engine is gone.
    Internal,
    /// No such path or method.
    NotFound,
}

impl ApiError {
    pub(super) fn field(param: &str, found: &Value, accepted: &str) -> Self {
        let message = format!("`{param}` is {found}: expected {accepted}");
        Self::Invalid { param: Some(param.to_owned()), message }
    }

    fn row(&self) -> (StatusCode, &'static str, Option<&'static str>, String) {
        const REQUEST: &str = "invalid_request_error";
        const SERVER: &str = "server_error";
        match self {
            Self::Invalid { message, .. } => {
                (StatusCode::BAD_REQUEST, REQUEST, None, message.clone())
            }
            Self::NoSuchModel { asked, served } => (
                StatusCode::NOT_FOUND,
                REQUEST,
                Some("model_not_found"),
                format!("`model` is {asked:?}: expected {served:?}, or no model at all"),
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
                "the server has as many questions as it takes on".to_owned(),
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
                "the server is at fault; its log says how".to_owned(),
            ),
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                REQUEST,
                Some("not_found"),
                "there is no such path, or it does not take this method".to_owned(),
            ),
        }
    }

    /// The error as an object, for a body or for a stream that has begun.
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
