//! The routes for operators and load balancers: liveness, readiness, the parts of the server, its counts, and loading
//! the index again.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;
use shared::contract::wire::{ErrorBody, ServerInfo, ServerLimits};
use utoipa::ToSchema;

use super::openapi::NotReady;
use super::respond::{self, HttpError};
use crate::config::ServeConfig;
use crate::metrics::Format;
use crate::reload::{self, ReloadError};
use crate::state::{AppState, Loaded, NotServing, Statistics};

#[derive(Debug, Serialize, ToSchema)]
struct Health {
    status: &'static str,
}

/// Answers 200 as long as the process runs.
#[utoipa::path(get, path = "/livez", responses((status = 200, description = "The process runs.", body = Health)))]
pub(crate) async fn livez() -> Response {
    respond::json(StatusCode::OK, &Health { status: "ok" })
}

/// Answers 200 from the time the index is loaded until the server starts to drain.
#[utoipa::path(get, path = "/readyz", responses((status = 200, description = "Queries are answered.", body = Health), NotReady))]
pub(crate) async fn readyz(State(state): State<Arc<AppState>>) -> Response {
    match state.ready() {
        Ok(_) => respond::json(StatusCode::OK, &Health { status: "ok" }),
        Err(reason) => respond::error(HttpError::NotReady(reason)),
    }
}

/// Answers with back end, index and limits.
#[utoipa::path(get, path = "/info", responses((status = 200, description = "Back end, index and limits.", body = ServerInfo), NotReady))]
pub(crate) async fn info(State(state): State<Arc<AppState>>) -> Response {
    match state.ready() {
        Ok(loaded) => {
            let (config, loaded) = (&state.config, &*loaded);
            respond::json(StatusCode::OK, &server_info(config, loaded))
        }
        Err(reason) => respond::error(HttpError::NotReady(reason)),
    }
}

/// Answers with the counts since the start.
#[utoipa::path(get, path = "/stats", responses((status = 200, description = "Counts since the start.", body = Statistics)))]
pub(crate) async fn stats(State(state): State<Arc<AppState>>) -> Response {
    respond::json(StatusCode::OK, &state.statistics())
}

/// Answers with the counts since the start for Prometheus.
#[utoipa::path(get, path = "/metrics", responses((status = 200, description = "The same for Prometheus.", body = String, content_type = "text/plain")))]
pub(crate) async fn metrics(State(state): State<Arc<AppState>>, headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let format = Format::accepted(accept);
    let mut response = Response::new(Body::from(state.metrics.page(state.moment(), format)));
    let content_type = HeaderValue::from_static(format.content_type());
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// The body of the answer to `POST /admin/reload`.
#[derive(Debug, Serialize, ToSchema)]
struct ReloadResponse {
    /// The digest of the index that answered before; absent if there is no index.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_index_digest: Option<String>,
    /// The digest of the index that answers now; absent if there is no index.
    #[serde(skip_serializing_if = "Option::is_none")]
    index_digest: Option<String>,
    /// The number of its passages.
    #[serde(skip_serializing_if = "Option::is_none")]
    passage_count: Option<u64>,
    /// The time that loading took.
    duration_ms: u64,
}

/// Loads the index again and answers when it is in place. It is loaded to the end even if the client goes away.
#[utoipa::path(
    post,
    path = "/admin/reload",
    responses(
        (status = 200, description = "The index that answers from now on.", body = ReloadResponse),
        (status = 500, description = "Nothing was replaced; the detail names the file.", body = ErrorBody),
        NotReady
    )
)]
pub(crate) async fn reload_index(State(state): State<Arc<AppState>>) -> Response {
    let Ok(outcome) = tokio::spawn(reload::reload(state)).await else {
        return respond::error(HttpError::Internal);
    };
    match outcome {
        Ok(reloaded) => respond::json(
            StatusCode::OK,
            &ReloadResponse {
                previous_index_digest: reloaded.previous_index_digest.map(|it| it.to_string()),
                index_digest: reloaded.index_digest.map(|it| it.to_string()),
                passage_count: reloaded.passage_count,
                duration_ms: reloaded.duration.as_millis() as u64,
            },
        ),
        Err(ReloadError::NotReady(phase)) => {
            respond::error(HttpError::NotReady(NotServing::Phase(phase)))
        }
        Err(fault) => respond::error(HttpError::ReloadFailed(fault.to_string())),
    }
}

/// Describes the server for its clients.
fn server_info(config: &ServeConfig, loaded: &Loaded) -> ServerInfo {
    let (request, components) = (config.request, config.backend.components());
    let index = loaded.index.as_ref();
    ServerInfo {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        backend: config.backend.kind.name().to_owned(),
        components: components.iter().map(|kind| kind.name().to_owned()).collect(),
        has_reranker: config.reranker.is_some(),
        index_digest: index.map(|index| index.digest.to_string()),
        passage_count: index.map(|index| index.passage_count),
        analyzer: index.and_then(|index| index.analyzer.clone()),
        identity: Some(loaded.identity.to_string()),
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
