//! The HTTP interface. No other room names axum: bytes become a batch of queries, outcomes become
//! bytes, and one table maps errors to statuses.
//!
//! In reading order: errors and responses (`respond`), bodies (`body`), the request shapes of clients
//! (`dialect`), the time that a client gives (`deadline`), responses (`render`), the routes
//! (`retrieve`, `rerank`, `access`, `admin`), and connections (`stream`, `listener`).

mod respond;
mod body;
mod dialect;
mod deadline;
mod render;
mod retrieve;
mod rerank;
mod access;
mod admin;
mod stream;
mod listener;

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodRouter, get, post};
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

use crate::state::AppState;
use respond::HttpError;

/// Serves all routes on `listener` until `shutdown` ends, then closes connections as they become idle.
pub(crate) async fn serve(
    listener: TcpListener,
    state: Arc<AppState>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let limits = state.config.load;
    listener::serve(listener, limits, router(state), shutdown).await;
    Ok(())
}

/// Returns all routes, each also with a slash at its end: other servers redirect from the one to the other.
fn router(state: Arc<AppState>) -> Router {
    let routes = [
        ("/retrieve", post(retrieve::retrieve)),
        ("/search", post(retrieve::search)),
        ("/batch_search", post(retrieve::batch_search)),
        ("/queries", post(retrieve::queries)),
        ("/access", post(access::access)),
        ("/rerank", post(rerank::rerank)),
        ("/livez", get(admin::livez)),
        ("/readyz", get(admin::readyz)),
        ("/health", get(admin::readyz)),
        ("/healthz", get(admin::readyz)),
        ("/info", get(admin::info)),
        ("/stats", get(admin::stats)),
    ];
    let add = |router: Router<Arc<AppState>>, (path, answer): (&str, MethodRouter<_>)| {
        router.route(path, answer.clone()).route(&format!("{path}/"), answer)
    };
    let routes = routes
        .into_iter()
        .fold(Router::new(), add)
        .fallback(respond::not_found)
        .method_not_allowed_fallback(respond::method_not_allowed)
        .with_state(state);
    guarded(routes)
}

/// Answers a request whose handler panics with an error in JSON, so that the connection and the requests
/// behind it survive.
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
        let panics = || async { panic!("as the test wants") as Response };
        let routes = guarded(Router::new().route("/", get(panics)));
        let answer = routes.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = to_bytes(answer.into_body(), 1000).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["code"], "internal");
    }
}
