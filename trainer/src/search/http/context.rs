//! The context of the search that a request belongs to: its trace, which travels in the headers of the request.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use shared::machine::traces::Span;

tokio::task_local! {
    /// The span of the search that this task waits for.
    static ACTIVE: Span;
}

/// Waits for `work` as a part of the search with this span.
pub(super) async fn within<T>(span: Span, work: impl Future<Output = T>) -> T {
    ACTIVE.scope(span, work).await
}

/// Returns the headers that carry the trace of the search that this task waits for; none outside of a search.
pub fn trace_headers() -> HeaderMap {
    let headers = ACTIVE.try_with(Span::headers).unwrap_or_default();
    let header = |(name, value): (&'static str, String)| {
        Some((HeaderName::from_static(name), HeaderValue::from_str(&value).ok()?))
    };
    headers.into_iter().filter_map(header).collect()
}
