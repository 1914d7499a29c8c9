//! Services that answer as Bing Web Search v7 did. Microsoft retired its own on 2025-08-11; other vendors
//! offer the same interface, so the endpoint must be named.

use serde_json::Value;

use crate::upstream::exchange::Request;
use crate::web::clip::QueryLimit;
use crate::web::provider::{Ask, Malformed, Provider, get, list, no_hold, result, text};
use crate::web::result::WebResult;

pub(super) const BING: Provider = Provider {
    name: "bing",
    endpoint: None,
    needs_key: true,
    needs_parameter: None,
    limit: QueryLimit { chars: 1500, words: usize::MAX, url_bytes: 1400 },
    max_results: 50,
    requests_per_second: 3.0,
    request,
    parse,
    errors: &[],
    hold: no_hold,
};

fn request(ask: &Ask<'_>) -> http::Result<Request> {
    let count = ask.results.to_string();
    let parameters = [
        ("q", ask.query),
        ("count", &count),
        ("responseFilter", "Webpages"),
        ("textDecorations", "false"),
    ];
    get(ask.endpoint, &parameters).header("Ocp-Apim-Subscription-Key", ask.key).body(Vec::new())
}

fn parse(body: &Value) -> Result<Vec<WebResult>, Malformed> {
    if text(body, "/_type") != "SearchResponse" {
        return Err(Malformed("a body whose _type is not SearchResponse".to_owned()));
    }
    let pages = list(body, "/webPages/value")?.unwrap_or_default().iter();
    Ok(pages.map(|item| result(item, "/name", "/url", "/snippet")).collect())
}
