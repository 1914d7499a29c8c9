//! Google's Custom Search JSON API, which ends on 2027-01-01 and takes no new customers. The endpoint must
//! name the search engine in the parameter `cx`.

use serde_json::Value;

use crate::upstream::exchange::Request;
use crate::web::clip::QueryLimit;
use crate::web::provider::{
    Ask, Failed, Malformed, Provider, Refuse, Wait, get, list, no_hold, result, row, text,
};
use crate::web::result::WebResult;

pub(super) const GOOGLE: Provider = Provider {
    name: "google",
    endpoint: Some("https://customsearch.googleapis.com/customsearch/v1"),
    needs_key: true,
    needs_parameter: Some("cx"),
    limit: QueryLimit { chars: 2048, words: 32, url_bytes: 1800 },
    max_results: 10,
    requests_per_second: 1.5,
    request,
    parse,
    errors: &[
        row(400, "API key not valid", Failed(Refuse)),
        row(403, "userRateLimitExceeded", Failed(Wait)),
        row(429, "per day", Failed(Refuse)),
        row(429, "dailyLimitExceeded", Failed(Refuse)),
    ],
    hold: no_hold,
};

fn request(ask: &Ask<'_>) -> http::Result<Request> {
    let num = ask.results.to_string();
    get(ask.endpoint, &[("q", ask.query), ("num", &num), ("key", ask.key)]).body(Vec::new())
}

fn parse(body: &Value) -> Result<Vec<WebResult>, Malformed> {
    // Without results there is no list, so something else must tell that this is an answer.
    if text(body, "/kind") != "customsearch#search" && !body["searchInformation"].is_object() {
        return Err(Malformed("neither kind nor searchInformation".to_owned()));
    }
    let items = list(body, "/items")?.unwrap_or_default().iter();
    Ok(items.map(|item| result(item, "/title", "/link", "/snippet")).collect())
}
