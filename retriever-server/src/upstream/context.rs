//! The observation of the request that a call belongs to. Calls count in its metrics and are part of its trace; a call
//! that belongs to no request counts nowhere.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use shared::machine::traces::{Role, Span};

use crate::metrics::Observation;

tokio::task_local! {
    /// The observation of the request that this task answers.
    static ACTIVE: Observation;
}

/// Waits for `work` as a part of a request.
pub async fn within<T>(observation: Option<Observation>, work: impl Future<Output = T>) -> T {
    match observation {
        Some(observation) => ACTIVE.scope(observation, work).await,
        None => work.await,
    }
}

/// Passes the observation of the current request to `see`, if there is one.
pub(crate) fn observe(see: impl FnOnce(&Observation)) {
    // An error means that this task answers no request.
    let _ = ACTIVE.try_with(see);
}

/// Begins the span of a request to a service, and adds the headers that carry the trace to it.
pub(super) fn begin(service: &'static str, headers: &mut HeaderMap) -> Span {
    let mut span = Span::default();
    observe(|observation| span = observation.span.child(service, Role::Client));
    for (name, value) in span.headers() {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    span
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shared::machine::traces::{Headers, TRACEPARENT, Traces};

    use super::*;
    use crate::metrics::Metrics;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    struct Sent;

    impl Headers for Sent {
        fn header(&self, name: &str) -> Option<&str> {
            (name == TRACEPARENT).then_some(PARENT)
        }
    }

    #[tokio::test]
    async fn a_call_carries_the_trace_of_its_request() {
        let span = Traces::off().continued(&Sent, "request", Role::Server);
        let observation = Observation { metrics: Arc::new(Metrics::default()), span };
        let mut headers = HeaderMap::new();
        within(Some(observation), async { begin("service", &mut headers) }).await;
        assert_eq!(headers[TRACEPARENT], PARENT);
        let mut headers = HeaderMap::new();
        within(None, async { begin("service", &mut headers) }).await;
        assert!(headers.is_empty());
    }
}
