//! SerpAPI, results of Google. Its 429 means too many requests in an hour or no searches left: the text
//! decides. A search without results is a success with an `error`.

use serde_json::Value;

use crate::upstream::exchange::Request;
use crate::web::clip::QueryLimit;
use crate::web::provider::{
    Ask, Failed, Malformed, Provider, Refuse, get, list, no_hold, result, row, text,
};
use crate::web::result::WebResult;

pub(super) const SERPAPI: Provider = Provider {
    name: "serpapi",
    endpoint: Some("https://serpapi.com/search"),
    needs_key: true,
    needs_parameter: None,
    limit: QueryLimit::OF_URL,
    max_results: 10,
    requests_per_second: 2.0,
    request,
    parse,
    errors: &[
        row(429, "run out of searches", Failed(Refuse)),
        row(429, "have run out", Failed(Refuse)),
    ],
    hold: no_hold,
};

fn request(ask: &Ask<'_>) -> http::Result<Request> {
    let num = ask.results.to_string();
    let parameters = [
        ("engine", "google"),
        ("output", "json"),
        ("q", ask.query),
        ("num", &num),
        ("api_key", ask.key),
    ];
    get(ask.endpoint, &parameters).body(Vec::new())
}

fn parse(body: &Value) -> Result<Vec<WebResult>, Malformed> {
    let status = text(body, "/search_metadata/status");
    if status != "Success" {
        let error = text(body, "/error");
        return Err(Malformed(format!("the search status {status:?}: {error}")));
    }
    let mut results = Vec::new();
    if let Some(answer) = body.get("answer_box") {
        let said = [text(answer, "/answer"), text(answer, "/snippet")].join("\n");
        results.push(WebResult::new(text(answer, "/title"), Some(text(answer, "/link")), &said));
    }
    if let Some(graph) = body.get("knowledge_graph") {
        let link = text(graph, "/source/link");
        results.push(WebResult::new(
            text(graph, "/title"),
            Some(link),
            text(graph, "/description"),
        ));
    }
    let organic = list(body, "/organic_results")?.unwrap_or_default().iter();
    results.extend(organic.map(|item| result(item, "/title", "/link", "/snippet")));
    Ok(results)
}
