//! Serper.dev, results of Google. A wrong key is 403, used-up credits are 400.

use serde_json::{Value, json};

use crate::upstream::exchange::Request;
use crate::web::clip::QueryLimit;
use crate::web::provider::{
    Ask, Failed, Malformed, Provider, Refuse, list, no_hold, post, required, result, row, text,
};
use crate::web::result::WebResult;

pub(super) const SERPER: Provider = Provider {
    name: "serper",
    endpoint: Some("https://google.serper.dev/search"),
    needs_key: true,
    needs_parameter: None,
    limit: QueryLimit { chars: 2048, words: usize::MAX, url_bytes: usize::MAX },
    max_results: 100,
    requests_per_second: 50.0,
    request,
    parse,
    errors: &[row(400, "credits", Failed(Refuse))],
    hold: no_hold,
};

fn request(ask: &Ask<'_>) -> http::Result<Request> {
    let body = json!({"q": ask.query, "num": ask.results});
    post(ask.endpoint, &[("X-API-KEY", ask.key.to_owned())], body)
}

fn parse(body: &Value) -> Result<Vec<WebResult>, Malformed> {
    let organic = match list(body, "/organic")? {
        Some(organic) => organic,
        // A page without plain results names its parameters all the same.
        None if body["searchParameters"].is_object() => &[],
        None => required(body, "/organic")?,
    };
    let mut results = Vec::new();
    if let Some(answer) = body.get("answerBox") {
        let parts = [text(answer, "/answer"), text(answer, "/snippet")];
        let said = parts.join("\n");
        results.push(WebResult::new(text(answer, "/title"), Some(text(answer, "/link")), &said));
    }
    if let Some(graph) = body.get("knowledgeGraph") {
        let parts = [text(graph, "/type"), text(graph, "/description")];
        let link = text(graph, "/descriptionLink");
        results.push(WebResult::new(text(graph, "/title"), Some(link), &parts.join("\n")));
    }
    results.extend(organic.iter().map(|item| result(item, "/title", "/link", "/snippet")));
    Ok(results)
}
