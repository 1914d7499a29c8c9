//! The layers in front of the routes: API keys, and the web sites whose pages may ask.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use axum::response::Response;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::validate_request::ValidateRequestHeaderLayer;

use super::respond::{self, HttpError};
use crate::access::Guard;
use crate::turns::Caller;

/// The header of a key, beside `Authorization`.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// The scheme of `Authorization`.
const BEARER: &str = "bearer ";
/// The time for which a browser remembers the answer to its question.
const PREFLIGHT_AGE: Duration = Duration::from_mins(10);

/// Refuses requests to `routes` without an accepted key. The holder of the key is the caller of the others, in place of
/// its address: clients behind one proxy have shares of their own, and one client with many machines has one.
pub(super) fn guarded(routes: Router, guard: Option<Arc<Guard>>) -> Router {
    let Some(guard) = guard else { return routes };
    #[expect(clippy::result_large_err, reason = "the layer takes this signature")]
    let validate = move |request: &mut Request<_>| -> Result<(), Response> {
        let holder = key(request.headers()).and_then(|key| guard.holder_of(key));
        let holder = holder.ok_or_else(|| respond::error(HttpError::Unauthorized))?;
        request.extensions_mut().insert(Caller::Key(holder));
        Ok(())
    };
    routes.layer(ValidateRequestHeaderLayer::custom(validate))
}

/// Returns the key that a request presents.
fn key(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let (scheme, key) = value.as_bytes().split_at_checked(BEARER.len())?;
        return scheme.eq_ignore_ascii_case(BEARER.as_bytes()).then(|| key.trim_ascii());
    }
    headers.get(API_KEY).map(HeaderValue::as_bytes)
}

/// Lets pages of the web sites `origins` send requests. Without any, browsers let none.
pub(super) fn shared_with(routes: Router, origins: &[String]) -> Router {
    if origins.is_empty() {
        return routes;
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
    };
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([CONTENT_TYPE, AUTHORIZATION, API_KEY])
        .max_age(PREFLIGHT_AGE);
    routes.layer(layer)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use axum::Extension;
    use axum::body::{Body, to_bytes};
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;
    use crate::access::{Access, AccessFiles};

    #[tokio::test]
    async fn the_caller_of_a_guarded_route_is_the_holder_of_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys");
        fs::write(&keys, "a key-of-a-0123456789\na new-key-of-a-01234\nb key-of-b-0123456789\n")
            .unwrap();
        let files = AccessFiles { keys: Some(keys), ..AccessFiles::default() };
        let guard = Access::load(&files).unwrap().keys;
        let answer = async |caller: Extension<Caller>| format!("{:?}", caller.0);
        let routes = guarded(Router::new().route("/", get(answer)), guard);
        let caller = async |key: &str| {
            let address = Caller::of([10, 0, 0, 1].into());
            let request = Request::get("/").header(API_KEY, key).extension(address);
            let request = request.body(Body::empty()).unwrap();
            let response = routes.clone().oneshot(request).await.unwrap();
            let status = response.status().as_u16();
            (status, to_bytes(response.into_body(), 1000).await.unwrap())
        };
        let [first, rotated, other] = [
            caller("key-of-a-0123456789").await,
            caller("new-key-of-a-01234").await,
            caller("key-of-b-0123456789").await,
        ];
        assert!(first.0 == 200 && first.1.starts_with(b"Key("), "{first:?}");
        assert_eq!(first, rotated);
        assert_ne!(first, other);
        assert_eq!(caller("key-of-c-0123456789").await.0, 401);
    }

    #[test]
    fn a_key_is_read_from_either_header() {
        let other = HeaderName::from_static("x-other");
        for (name, value, expected) in [
            (AUTHORIZATION, "Bearer abc", Some("abc")),
            (AUTHORIZATION, "bearer  abc ", Some("abc")),
            (AUTHORIZATION, "Basic abc", None),
            (AUTHORIZATION, "abc", None),
            (API_KEY, "abc", Some("abc")),
            (other, "abc", None),
        ] {
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
            assert_eq!(key(&headers), expected.map(str::as_bytes), "{value}");
        }
    }
}
