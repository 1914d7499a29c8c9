//! Tavily. Limits of the plan are 432 and 433.

use serde_json::{Value, json};

use crate::upstream::exchange::Request;
use crate::web::clip::QueryLimit;
use crate::web::provider::{
    Ask, Failed, Malformed, Provider, Refuse, no_hold, post, required, result, row,
};
use crate::web::result::WebResult;

pub(super) const TAVILY: Provider = Provider {
    name: "tavily",
    endpoint: Some("https://api.tavily.com/search"),
    needs_key: true,
    needs_parameter: None,
    limit: QueryLimit { chars: 400, words: usize::MAX, url_bytes: usize::MAX },
    max_results: 20,
    requests_per_second: 1.5,
    request,
    parse,
    errors: &[row(432, "", Failed(Refuse)), row(433, "", Failed(Refuse))],
    hold: no_hold,
};

fn request(ask: &Ask<'_>) -> http::Result<Request> {
    let body = json!({
        "query": ask.query, "max_results": ask.results, "search_depth": "basic", "topic": "general",
    });
    post(ask.endpoint, &[("Authorization", format!("Bearer {}", ask.key))], body)
}

fn parse(body: &Value) -> Result<Vec<WebResult>, Malformed> {
    let results = required(body, "/results")?.iter();
    Ok(results.map(|item| result(item, "/title", "/url", "/content")).collect())
}
