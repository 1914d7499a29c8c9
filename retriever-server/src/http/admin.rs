//! The routes for operators and load balancers: liveness, readiness, the parts of the server and its
//! counts.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use shared::contract::wire::{ServerInfo, ServerLimits};

use super::respond::{self, HttpError};
use crate::config::ServeConfig;
use crate::state::{AppState, IndexFacts};

#[derive(Debug, Serialize)]
struct Health {
    status: &'static str,
}

/// Answers 200 as long as the process runs.
pub(crate) async fn livez() -> Response {
    respond::json(StatusCode::OK, &Health { status: "ok" })
}

/// Answers 200 from the time the index is loaded until the server starts to drain.
pub(crate) async fn readyz(State(state): State<Arc<AppState>>) -> Response {
    match state.ready() {
        Ok(_) => respond::json(StatusCode::OK, &Health { status: "ok" }),
        Err(phase) => respond::error(HttpError::NotReady(phase)),
    }
}

/// Answers with back end, index and limits.
pub(crate) async fn info(State(state): State<Arc<AppState>>) -> Response {
    match state.ready() {
        Ok(loaded) => {
            respond::json(StatusCode::OK, &server_info(&state.config, loaded.index.as_ref()))
        }
        Err(phase) => respond::error(HttpError::NotReady(phase)),
    }
}

/// Answers with the counts since the start.
pub(crate) async fn stats(State(state): State<Arc<AppState>>) -> Response {
    respond::json(StatusCode::OK, &state.statistics())
}

/// Describes the server for its clients.
fn server_info(config: &ServeConfig, index: Option<&IndexFacts>) -> ServerInfo {
    let (request, components) = (config.request, config.backend.components());
    ServerInfo {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        backend: config.backend.kind.name().to_owned(),
        components: components.iter().map(|kind| kind.name().to_owned()).collect(),
        has_reranker: config.reranker.is_some(),
        index_digest: index.map(|index| index.digest.to_string()),
        passage_count: index.map(|index| index.passage_count),
        analyzer: index.map(|index| index.analyzer.clone()),
        k1: config.bm25.k1(),
        b: config.bm25.b(),
        limits: ServerLimits {
            default_top_k: request.default_top_k,
            max_top_k: request.max_top_k,
            max_batch_queries: request.max_batch_queries,
            max_query_bytes: request.max_query_bytes,
            max_body_bytes: request.max_body_bytes,
            max_queued_queries: config.load.max_queued_queries,
            deadline_ms: request.deadline.as_millis() as u64,
        },
    }
}
