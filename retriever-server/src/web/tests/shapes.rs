//! The bodies of each provider, as its documentation shows them.

use serde_json::{Value, json};

use super::fake::Act;
use crate::web::provider::Provider;

/// A result: title, address and text.
pub(super) type Item = (Value, Value, Value);

/// Returns the body of a successful search.
pub(super) fn body(provider: &Provider, items: &[Item]) -> Value {
    let list = |title: &str, url: &str, text: &str| -> Value {
        let item = |(t, u, x): &Item| {
            let mut item = json!({});
            for (key, value) in [(title, t), (url, u), (text, x)] {
                // A missing value is absent, not null.
                if *value != json!("absent") {
                    item[key] = value.clone();
                }
            }
            item
        };
        items.iter().map(item).collect()
    };
    match provider.name {
        "serper" => json!({
            "searchParameters": {"q": "q", "type": "search"}, "credits": 1,
            "organic": list("title", "link", "snippet"),
        }),
        "brave" => json!({
            "type": "search", "query": {"original": "q", "more_results_available": false},
            "web": {"type": "search", "results": list("title", "url", "description")},
        }),
        "tavily" => json!({
            "query": "q", "images": [], "response_time": 0.5, "request_id": "r",
            "results": list("title", "url", "content"),
        }),
        "exa" => json!({
            "requestId": "r", "searchType": "auto", "costDollars": {"total": 0.005},
            "results": list("title", "url", "text"),
        }),
        "serpapi" => json!({
            "search_metadata": {"id": "i", "status": "Success"},
            "search_information": {"organic_results_state": "Results for exact spelling"},
            "organic_results": list("title", "link", "snippet"),
        }),
        "searxng" => json!({
            "query": "q", "answers": [], "corrections": [], "infoboxes": [], "suggestions": [],
            "unresponsive_engines": [], "results": list("title", "url", "content"),
        }),
        "you" => json!({
            "results": {"web": list("title", "url", "description")},
            "metadata": {"request_uuid": "r", "query": "q", "latency": 0.3},
        }),
        "jina" => json!({
            "code": 200, "status": 20000, "data": list("title", "url", "description"),
            "meta": {"usage": {"tokens": 10000}},
        }),
        "google" => json!({
            "kind": "customsearch#search", "searchInformation": {"totalResults": "2"},
            "items": list("title", "link", "snippet"),
        }),
        "bing" => json!({
            "_type": "SearchResponse", "webPages": {"totalEstimatedMatches": 2,
            "value": list("name", "url", "snippet")},
        }),
        other => panic!("{other}"),
    }
}

/// Returns the reply of a provider that finds nothing.
pub(super) fn empty(provider: &Provider) -> Act {
    let mut found = body(provider, &[]);
    match provider.name {
        "brave" => drop(found.as_object_mut().unwrap().remove("web")),
        "google" => drop(found.as_object_mut().unwrap().remove("items")),
        "bing" => drop(found.as_object_mut().unwrap().remove("webPages")),
        "serpapi" => {
            found.as_object_mut().unwrap().remove("organic_results");
            found["error"] = json!("Google hasn't returned any results for this query.");
        }
        "jina" => {
            let words = "No search results available for query q";
            let error = json!({
                "data": null, "code": 422, "name": "AssertionFailureError", "status": 42206,
                "message": words, "readableMessage": format!("AssertionFailureError: {words}"),
            });
            return Act::json(422, &error);
        }
        _ => {}
    }
    Act::json(200, &found)
}

/// Returns the reply to a request beyond the plan.
pub(super) fn out_of_quota(provider: &Provider) -> Act {
    let (status, body) = match provider.name {
        "serper" => (400, json!({"message": "Not enough credits", "statusCode": 400})),
        "brave" => (
            429,
            json!({"type": "ErrorResponse", "error": {"status": 429, "code": "QUOTA_LIMITED",
                   "detail": "Request quota limit exceeded for plan"}}),
        ),
        "tavily" => {
            (432, json!({"detail": {"error": "This request exceeds your plan's set usage limit."}}))
        }
        "exa" => {
            (402, json!({"requestId": "r", "error": "credits used up", "tag": "NO_MORE_CREDITS"}))
        }
        "serpapi" => (429, json!({"error": "Your account has run out of searches."})),
        "searxng" => return Act::bytes(403, "<h1>403 Forbidden</h1>"),
        "you" => (402, json!({"detail": "payment required"})),
        "jina" => (402, json!({"data": null, "code": 402, "message": "Insufficient balance"})),
        "google" => (
            429,
            json!({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message":
                   "Quota exceeded for quota metric 'Queries' and limit 'Queries per day'"}}),
        ),
        "bing" => (
            403,
            json!({"_type": "ErrorResponse", "errors": [{"code": "InsufficientAuthorization",
                   "message": "Out of call volume quota."}]}),
        ),
        other => panic!("{other}"),
    };
    Act::json(status, &body)
}
