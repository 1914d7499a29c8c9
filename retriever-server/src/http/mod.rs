//! The HTTP interface. No other room names axum: bytes become a batch of queries, outcomes become
//! bytes, and one table maps errors to statuses.
//!
//! In reading order: errors and responses (`respond`), bodies (`body`), keys and browsers (`guard`), the id, time and
//! trace of a request (`scope`), the request shapes of clients (`dialect`), the time that a client gives (`deadline`),
//! the way in (`entry`), responses (`render`), the routes (`retrieve`, `rerank`, `access`, `admin`), and connections
//! (`stream`, `listener`).

mod respond;
mod body;
mod guard;
mod scope;
mod dialect;
mod deadline;
mod entry;
mod render;
mod retrieve;
mod rerank;
mod access;
mod admin;
mod openapi;
mod stream;
mod listener;

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::{MethodRouter, get, post};
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

use crate::state::AppState;
use respond::HttpError;

/// The routes of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// The routes of clients, and `/metrics` unless operators have a listener of their own.
    Clients,
    /// The routes of operators.
    Operators,
}

/// Serves the routes of `door` on `listener` until `shutdown` ends, then closes connections as they become idle.
pub(crate) async fn serve(
    listener: TcpListener,
    door: Door,
    state: Arc<AppState>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (limits, identity) = (state.config.load, state.access.identity.clone());
    listener::serve(listener, limits, router(door, &state), identity, shutdown).await;
    Ok(())
}

/// A path and what answers it.
type Route = (&'static str, MethodRouter<Arc<AppState>>);

/// Returns the routes of a door, behind its keys. Probes need no key.
fn router(door: Door, state: &Arc<AppState>) -> Router {
    let probes = vec![
        ("/livez", get(admin::livez)),
        ("/readyz", get(admin::readyz)),
        ("/health", get(admin::readyz)),
        ("/healthz", get(admin::readyz)),
    ];
    let mut routes = vec![("/info", get(admin::info)), ("/stats", get(admin::stats))];
    let service = &state.config.service;
    let keys = match door {
        Door::Clients => &state.access.keys,
        Door::Operators => &state.access.admin_keys,
    };
    if door == Door::Operators || service.admin_addr.is_none() {
        routes.push(("/metrics", get(admin::metrics)));
    }
    match door {
        Door::Clients => routes.extend([
            ("/retrieve", post(retrieve::retrieve)),
            ("/search", post(retrieve::search)),
            ("/batch_search", post(retrieve::batch_search)),
            ("/queries", post(retrieve::queries)),
            ("/access", post(access::access)),
            ("/rerank", post(rerank::rerank)),
        ]),
        Door::Operators => routes.push(("/admin/reload", post(admin::reload_index))),
    }
    let document = Bytes::from(openapi::document(&state.config, door).to_string());
    let described = move || async move { respond::json_bytes(StatusCode::OK, document.to_vec()) };
    routes.push(("/openapi.json", get(described)));
    let routes = guard::guarded(with_state(routes, state), keys.clone());
    let routes = routes
        .merge(with_state(probes, state))
        .fallback(respond::not_found)
        .method_not_allowed_fallback(respond::method_not_allowed);
    let routes = match door {
        Door::Clients => guard::shared_with(routes, &service.cors_origins),
        Door::Operators => routes,
    };
    panic_safe(routes)
}

/// Returns routes, each also with a slash at its end: other servers redirect from the one to the other.
fn with_state(routes: Vec<Route>, state: &Arc<AppState>) -> Router {
    let add = |router: Router<Arc<AppState>>, (path, answer): Route| {
        router.route(path, answer.clone()).route(&format!("{path}/"), answer)
    };
    routes.into_iter().fold(Router::new(), add).with_state(Arc::clone(state))
}

/// Answers a request whose handler panics with an error in JSON, so that the connection and the requests
/// behind it survive.
fn panic_safe(routes: Router) -> Router {
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
        let routes = panic_safe(Router::new().route("/", get(panics)));
        let answer = routes.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = to_bytes(answer.into_body(), 1000).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["code"], "internal");
    }
}
