//! What operators and load balancers ask: is the process alive, can it answer, what is it made of,
//! what has it done.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use super::respond::{self, HttpError};
use crate::state::AppState;

#[derive(Debug, Serialize)]
struct Health {
    status: &'static str,
}

/// 200 as long as the process runs.
pub(crate) async fn livez() -> Response {
    respond::json(StatusCode::OK, &Health { status: "ok" })
}

/// 200 from the moment the index is loaded until the server is asked to end.
pub(crate) async fn readyz(State(state): State<Arc<AppState>>) -> Response {
    match state.ready() {
        Ok(_) => respond::json(StatusCode::OK, &Health { status: "ok" }),
        Err(phase) => respond::error(HttpError::NotReady(phase)),
    }
}

/// Back end, index and limits.
pub(crate) async fn info(State(state): State<Arc<AppState>>) -> Response {
    match state.ready() {
        Ok(loaded) => respond::json(StatusCode::OK, &loaded.info),
        Err(phase) => respond::error(HttpError::NotReady(phase)),
    }
}

/// Counts since the start.
pub(crate) async fn stats(State(state): State<Arc<AppState>>) -> Response {
    respond::json(StatusCode::OK, &state.statistics())
}
