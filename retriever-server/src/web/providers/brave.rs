//! Brave Search. Its headers tell how many requests remain in each window; a 429 has no `Retry-After`.

use std::time::Duration;

use http::HeaderMap;
use serde_json::Value;

use crate::upstream::exchange::Request;
use crate::web::clip::QueryLimit;
use crate::web::provider::{Ask, Failed, Malformed, Provider, Refuse, get, list, row, text, texts};
use crate::web::result::WebResult;

pub(super) const BRAVE: Provider = Provider {
    name: "brave",
    endpoint: Some("https://api.search.brave.com/res/v1/web/search"),
    needs_key: true,
    needs_parameter: None,
    limit: QueryLimit { chars: 400, words: 50, url_bytes: 6 * 1024 },
    max_results: 20,
    requests_per_second: 1.0,
    request,
    parse,
    errors: &[row(422, "TOKEN", Failed(Refuse)), row(429, "QUOTA", Failed(Refuse))],
    hold,
};

fn request(ask: &Ask<'_>) -> http::Result<Request> {
    let count = ask.results.to_string();
    let parameters = [
        ("q", ask.query),
        ("count", &count),
        ("result_filter", "web"),
        ("text_decorations", "false"),
    ];
    get(ask.endpoint, &parameters).header("X-Subscription-Token", ask.key).body(Vec::new())
}

fn parse(body: &Value) -> Result<Vec<WebResult>, Malformed> {
    if text(body, "/type") != "search" {
        return Err(Malformed("a body whose type is not search".to_owned()));
    }
    let results = list(body, "/web/results")?.unwrap_or_default().iter();
    let read = |item: &Value| {
        let said = [text(item, "/description"), &texts(item, "/extra_snippets")].join("\n");
        WebResult::new(text(item, "/title"), Some(text(item, "/url")), &said)
    };
    Ok(results.map(read).collect())
}

/// Returns the time until the last window without remaining requests begins anew.
fn hold(headers: &HeaderMap) -> Option<Duration> {
    let numbers = |name: &str| -> Option<Vec<u64>> {
        let value = headers.get(name)?.to_str().ok()?;
        value.split(',').map(|number| number.trim().parse().ok()).collect()
    };
    let remaining = numbers("x-ratelimit-remaining")?;
    let reset = numbers("x-ratelimit-reset")?;
    let used_up = remaining.iter().zip(&reset).filter(|(remaining, _)| **remaining == 0);
    used_up.map(|(_, reset_s)| Duration::from_secs(*reset_s)).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_up_window_holds_requests_until_its_reset() {
        let held = |remaining: &str, reset: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-ratelimit-remaining", remaining.parse().unwrap());
            headers.insert("x-ratelimit-reset", reset.parse().unwrap());
            hold(&headers).map(|time| time.as_secs())
        };
        assert_eq!(held("1, 1000", "1, 1419704"), None);
        assert_eq!(held("0, 1000", "1, 1419704"), Some(1));
        assert_eq!(held("0, 0", "1, 1419704"), Some(1_419_704));
        assert_eq!(held("none", "1"), None);
        assert_eq!(hold(&HeaderMap::new()), None);
    }
}
