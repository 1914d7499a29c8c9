//! The only place that knows HTTP: bytes become a query batch, outcomes become bytes, and errors
//! become statuses in one table.

mod admin;
mod body;
mod dialect;
mod listener;
mod rerank;
mod respond;
mod retrieve;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use crate::state::AppState;

pub(crate) use listener::BoundedListener;

/// All routes.
pub(crate) fn router(state: Arc<AppState>) -> Router {
    Router::new()
        .route("/retrieve", post(retrieve::retrieve))
        .route("/rerank", post(rerank::rerank))
        .route("/livez", get(admin::livez))
        .route("/readyz", get(admin::readyz))
        .route("/health", get(admin::readyz))
        .route("/healthz", get(admin::readyz))
        .route("/info", get(admin::info))
        .route("/stats", get(admin::stats))
        .fallback(respond::not_found)
        .method_not_allowed_fallback(respond::method_not_allowed)
        .with_state(state)
}
