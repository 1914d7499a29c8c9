//! One request from its head to its response: its id, its span, its time, and the count of its outcome.
//!
//! A request keeps the id that its client sent in `x-request-id`; one without gets a new id. Log lines of the request
//! have the id, and so has the response.

use std::sync::Arc;
use std::time::Instant;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use shared::machine::traces::{Headers, Role};
use tracing::{Span, debug, debug_span, warn};

use super::respond::{self, HttpError};
use crate::metrics::{Metrics, Observation, Route};
use crate::state::{AppState, RequestIds};

/// The header of the id.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is taken over from a client.
const MAX_ID_BYTES: usize = 128;
/// The code of a request whose client went away before its response.
const CLIENT_GONE: &str = "client_gone";

/// Returns the id that the client sent, if it is visible ASCII of a bounded length, else a new one.
fn id_of(headers: &HeaderMap, ids: &RequestIds) -> HeaderValue {
    let is_fit = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        (1..=MAX_ID_BYTES).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    };
    headers.get(REQUEST_ID).filter(is_fit).cloned().unwrap_or_else(|| {
        HeaderValue::from_str(&ids.next()).expect("hexadecimal digits are visible ASCII")
    })
}

/// The codes of requests that failed by a fault of this server or of a service behind it. Each is worth a line of the log,
/// unlike requests that are wrong, late or too many.
const FAULTS_OF_SERVERS: [&str; 3] = ["internal", "upstream_failed", "upstream_refused"];

/// A request that has begun. If it is dropped without an end, its client went away.
pub(super) struct Scope {
    route: Route,
    began: Instant,
    id: HeaderValue,
    observation: Observation,
    has_ended: bool,
}

impl Scope {
    pub(super) fn begin(state: &AppState, route: Route, headers: &HeaderMap) -> Self {
        let span = state.traces.continued(&Carried(headers), route.path(), Role::Server);
        let observation = Observation { metrics: Arc::clone(&state.metrics), span };
        let id = id_of(headers, &state.request_ids);
        Self { route, began: Instant::now(), id, observation, has_ended: false }
    }

    /// Returns the counts and the trace of the request, for its ticket.
    pub(super) fn observation(&self) -> Observation {
        self.observation.clone()
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.observation.metrics
    }

    /// Returns the span of the log, whose lines have the id of the request and of its trace. It costs microseconds, so it
    /// is there only if the log has details; else the line about a failed request has the ids.
    pub(super) fn log_span(&self) -> Span {
        let id = self.id.to_str().unwrap_or_default();
        if let Some(trace) = self.observation.span.trace_id() {
            debug_span!("request", id, trace)
        } else {
            debug_span!("request", id)
        }
    }

    /// Turns the outcome into the response, and counts it.
    pub(super) fn end(mut self, outcome: Result<Response, HttpError>) -> Response {
        self.has_ended = true;
        let span = &self.observation.span;
        let code = outcome.as_ref().err().map(HttpError::code);
        self.metrics().request(self.route, self.began, code);
        if let Some(code) = code {
            span.fail(code);
            let id = self.id.to_str().unwrap_or_default();
            let (trace, path) = (span.trace_id(), self.route.path());
            if FAULTS_OF_SERVERS.contains(&code) {
                warn!(id, trace, path, code, "a request failed");
            } else {
                debug!(id, trace, path, code, "a request has no result");
            }
        }
        let mut response = outcome.unwrap_or_else(respond::error);
        span.set("http.response.status_code", i64::from(response.status().as_u16()));
        response.headers_mut().insert(REQUEST_ID, self.id.clone());
        response
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        if !self.has_ended {
            self.observation.span.fail(CLIENT_GONE);
            self.observation.metrics.request(self.route, self.began, Some(CLIENT_GONE));
        }
    }
}

/// The headers of a request, for its trace.
struct Carried<'a>(&'a HeaderMap);

impl Headers for Carried<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_the_client_is_kept_if_it_is_fit_for_a_log() {
        let ids = RequestIds::default();
        let long = "i".repeat(MAX_ID_BYTES + 1);
        for (sent, is_kept) in [("a-1", true), ("", false), ("a b", false), (&long, false)] {
            let headers =
                HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_str(sent).unwrap())]);
            assert_eq!(id_of(&headers, &ids) == sent, is_kept, "{sent}");
        }
        let new = [(); 2].map(|()| id_of(&HeaderMap::new(), &ids));
        assert!(new[0] != new[1] && new.iter().all(|id| id.len() == 16), "{new:?}");
    }
}
