//! Jina's search. A search without results is an error, 422 with the name of an assertion.

use serde_json::Value;

use crate::upstream::exchange::Request;
use crate::web::clip::QueryLimit;
use crate::web::provider::{Ask, Malformed, Nothing, Provider, get, no_hold, required, row, text};
use crate::web::result::WebResult;

pub(super) const JINA: Provider = Provider {
    name: "jina",
    endpoint: Some("https://s.jina.ai/"),
    needs_key: true,
    needs_parameter: None,
    limit: QueryLimit::OF_URL,
    max_results: 20,
    requests_per_second: 1.5,
    request,
    parse,
    errors: &[row(422, "No search results", Nothing)],
    hold: no_hold,
};

fn request(ask: &Ask<'_>) -> http::Result<Request> {
    let num = ask.results.to_string();
    get(ask.endpoint, &[("q", ask.query), ("num", &num)])
        .header(http::header::AUTHORIZATION, format!("Bearer {}", ask.key))
        // Without this header, it reads every page and bills that.
        .header("X-Respond-With", "no-content")
        .body(Vec::new())
}

fn parse(body: &Value) -> Result<Vec<WebResult>, Malformed> {
    let read = |item: &Value| {
        let said = [text(item, "/description"), text(item, "/content")].join("\n");
        WebResult::new(text(item, "/title"), Some(text(item, "/url")), &said)
    };
    Ok(required(body, "/data")?.iter().map(read).collect())
}
