//! SearXNG and SearX, run by the user. Their engines fail one by one: an answer without results but with
//! engines that did not respond is a failure, because nobody knows what they would have found.

use reqwest::Url;
use serde_json::Value;

use crate::upstream::exchange::Request;
use crate::web::clip::QueryLimit;
use crate::web::provider::{
    Ask, ErrorRow, Failed, Malformed, Provider, Refuse, get, list, no_hold, required, result, text,
};
use crate::web::result::WebResult;

const PATH: &str = "/search";

pub(super) const SEARXNG: Provider = Provider {
    name: "searxng",
    endpoint: None,
    needs_key: false,
    needs_parameter: None,
    limit: QueryLimit::OF_URL,
    max_results: 100,
    requests_per_second: 2.0,
    request,
    parse,
    errors: &[ErrorRow {
        status: 403,
        text: "",
        meaning: Failed(Refuse),
        advice: "search.formats in its settings must list json",
    }],
    hold: no_hold,
};

fn request(ask: &Ask<'_>) -> http::Result<Request> {
    let parameters = [("q", ask.query), ("format", "json")];
    get(&searched(ask.endpoint), &parameters).body(Vec::new())
}

/// Returns the address of searches on a server whose address may end before or after the path.
fn searched(endpoint: &Url) -> Url {
    let mut url = endpoint.clone();
    let path = url.path().trim_end_matches('/').to_owned();
    let path = if path.ends_with(PATH) { path } else { path + PATH };
    url.set_path(&path);
    url
}

fn parse(body: &Value) -> Result<Vec<WebResult>, Malformed> {
    let found = required(body, "/results")?;
    let boxes = list(body, "/infoboxes")?.unwrap_or_default().iter();
    let mut results: Vec<WebResult> =
        boxes.map(|item| result(item, "/infobox", "/id", "/content")).collect();
    results.extend(found.iter().map(|item| result(item, "/title", "/url", "/content")));
    let broken = list(body, "/unresponsive_engines")?.unwrap_or_default();
    if results.is_empty() && !broken.is_empty() {
        let names: Vec<String> = broken.iter().map(engine).collect();
        return Err(Malformed(format!("no results, since engines failed: {}", names.join(", "))));
    }
    Ok(results)
}

/// Returns the name of an engine and the reason of its failure.
fn engine(entry: &Value) -> String {
    let (name, reason) = (text(entry, "/0"), text(entry, "/1"));
    if reason.is_empty() { name.to_owned() } else { format!("{name} ({reason})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_searches_is_added_once() {
        for (endpoint, expected) in [
            ("http://host:8080", "http://host:8080/search"),
            ("http://host/", "http://host/search"),
            ("http://host/searx/", "http://host/searx/search"),
            ("http://host/search?language=en", "http://host/search?language=en"),
        ] {
            assert_eq!(searched(&Url::parse(endpoint).unwrap()).as_str(), expected);
        }
    }
}
