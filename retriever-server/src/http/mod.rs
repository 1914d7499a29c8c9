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
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

use crate::state::AppState;
use respond::HttpError;

pub(crate) use listener::BoundedListener;

/// All routes.
pub(crate) fn router(state: Arc<AppState>) -> Router {
    let routes = Router::new()
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
        .with_state(state);
    guarded(routes)
}

/// A handler that panics costs an answer of its own, in JSON as any other, and not the connection
/// with the requests behind it.
fn guarded(routes: Router) -> Router {
    let answer = |_| respond::error(HttpError::Internal);
    routes.layer(ServiceBuilder::new().layer(CatchPanicLayer::custom(answer)))
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::{Request, StatusCode};
    use axum::response::Response;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_answered() {
        let panics = || async { panic!("what never happens") as Response };
        let routes = guarded(Router::new().route("/", get(panics)));
        let answer = routes.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = to_bytes(answer.into_body(), 1000).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["code"], "internal");
    }
}
