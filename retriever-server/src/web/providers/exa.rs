//! Exa. The text of a page comes with the search.

use serde_json::{Value, json};

use crate::upstream::exchange::Request;
use crate::web::clip::QueryLimit;
use crate::web::provider::{Ask, Malformed, Provider, no_hold, post, required, text, texts};
use crate::web::result::WebResult;

/// Characters of a page that are requested.
const TEXT_CHARS: usize = 1000;

pub(super) const EXA: Provider = Provider {
    name: "exa",
    endpoint: Some("https://api.exa.ai/search"),
    needs_key: true,
    needs_parameter: None,
    limit: QueryLimit { chars: 2048, words: usize::MAX, url_bytes: usize::MAX },
    max_results: 100,
    requests_per_second: 10.0,
    request,
    parse,
    errors: &[],
    hold: no_hold,
};

fn request(ask: &Ask<'_>) -> http::Result<Request> {
    let body = json!({
        "query": ask.query, "type": "auto", "numResults": ask.results,
        "contents": {"text": {"maxCharacters": TEXT_CHARS}, "highlights": true},
    });
    post(ask.endpoint, &[("x-api-key", ask.key.to_owned())], body)
}

fn parse(body: &Value) -> Result<Vec<WebResult>, Malformed> {
    let read = |item: &Value| {
        let highlights = texts(item, "/highlights");
        let said = if highlights.is_empty() { text(item, "/text") } else { &highlights };
        WebResult::new(text(item, "/title"), Some(text(item, "/url")), said)
    };
    Ok(required(body, "/results")?.iter().map(read).collect())
}
