//! You.com. Results of the web come before news.

use serde_json::Value;

use crate::upstream::exchange::Request;
use crate::web::clip::QueryLimit;
use crate::web::provider::{Ask, Malformed, Provider, get, list, no_hold, text, texts};
use crate::web::result::WebResult;

pub(super) const YOU: Provider = Provider {
    name: "you",
    endpoint: Some("https://ydc-index.io/v1/search"),
    needs_key: true,
    needs_parameter: None,
    limit: QueryLimit::OF_URL,
    max_results: 100,
    requests_per_second: 10.0,
    request,
    parse,
    errors: &[],
    hold: no_hold,
};

fn request(ask: &Ask<'_>) -> http::Result<Request> {
    let count = ask.results.to_string();
    let parameters = [("query", ask.query), ("count", &count)];
    get(ask.endpoint, &parameters).header("X-API-Key", ask.key).body(Vec::new())
}

fn parse(body: &Value) -> Result<Vec<WebResult>, Malformed> {
    if !body["results"].is_object() {
        return Err(Malformed("no results".to_owned()));
    }
    let web = list(body, "/results/web")?.unwrap_or_default().iter();
    let news = list(body, "/results/news")?.unwrap_or_default().iter();
    let read = |item: &Value| {
        let said = [text(item, "/description"), &texts(item, "/snippets")].join("\n");
        WebResult::new(text(item, "/title"), Some(text(item, "/url")), &said)
    };
    Ok(web.chain(news).map(read).collect())
}
