//! The shape of a provider: a request as a function of a query, results as a function of a body, and a table
//! of errors. A provider neither sends nor waits.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use reqwest::Url;
use serde_json::Value;

use super::clip::QueryLimit;
use super::result::{WebResult, distinct};
use crate::upstream::exchange::{Reply, Request};
use crate::upstream::service::{Failure, Remedy};

/// One search.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// The address, perhaps with parameters, which are kept.
    pub endpoint: &'a Url,
    /// The key; empty for a provider without one.
    pub key: &'a str,
    /// The query, already clipped.
    pub query: &'a str,
    /// The requested number of results.
    pub results: usize,
}

/// A provider of web search.
#[derive(Debug)]
pub struct Provider {
    /// The name in the configuration and in messages.
    pub name: &'static str,
    /// The address of its API; `None` if each user has another one.
    pub endpoint: Option<&'static str>,
    /// `true` if it needs a key, and therefore costs money or has a quota.
    pub needs_key: bool,
    /// A parameter that the endpoint must have.
    pub needs_parameter: Option<&'static str>,
    /// The longest query.
    pub limit: QueryLimit,
    /// The most results of a request.
    pub max_results: usize,
    /// Requests per second that its smallest plan allows.
    pub requests_per_second: f64,
    /// Makes the request.
    pub request: fn(&Ask<'_>) -> http::Result<Request>,
    /// Reads the body of a successful reply.
    pub parse: fn(&Value) -> Result<Vec<WebResult>, Malformed>,
    /// Errors that differ from [`COMMON`].
    pub errors: &'static [ErrorRow],
    /// Reads the time without further requests from headers about limits.
    pub hold: fn(&HeaderMap) -> Option<Duration>,
}

/// A body that is not a result of the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub String);

/// One row of a table of errors. The first row that fits counts.
#[derive(Debug)]
pub struct ErrorRow {
    /// The status.
    pub status: u16,
    /// A part of the body, or the empty text for any body.
    pub text: &'static str,
    /// The meaning.
    pub meaning: Meaning,
    /// Advice for the message; may be empty.
    pub advice: &'static str,
}

/// The meaning of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// There are no results, which is no error.
    Nothing,
    /// The call failed.
    Failed(Remedy),
}

/// Makes a row without advice.
pub const fn row(status: u16, text: &'static str, meaning: Meaning) -> ErrorRow {
    ErrorRow { status, text, meaning, advice: "" }
}

pub use Meaning::{Failed, Nothing};
pub use Remedy::{GiveUp, Refuse, Retry, Wait};

/// The errors of every provider, behind those of its own table.
pub const COMMON: &[ErrorRow] = &[
    row(401, "", Failed(Refuse)),
    row(402, "", Failed(Refuse)),
    row(403, "", Failed(Refuse)),
    row(408, "", Failed(Retry)),
    row(429, "", Failed(Wait)),
    row(500, "", Failed(Retry)),
    row(502, "", Failed(Retry)),
    row(503, "", Failed(Retry)),
    row(504, "", Failed(Retry)),
];

impl Provider {
    /// Reads a reply: results, none, or a failure.
    pub fn read(&self, reply: &Reply) -> Result<Vec<WebResult>, Failure> {
        let status = reply.status;
        // Bytes that are no text are replaced: one bad character must not cost a whole answer.
        let body = String::from_utf8_lossy(&reply.body);
        let fitting = |row: &&ErrorRow| {
            row.status == status.as_u16() && (row.text.is_empty() || body.contains(row.text))
        };
        if let Some(row) = self.errors.iter().chain(COMMON).find(fitting) {
            return match row.meaning {
                Nothing => Ok(Vec::new()),
                Failed(remedy) => Err(Failure { detail: explain(status, &body, row), remedy }),
            };
        }
        if !status.is_success() {
            let detail = match location(reply) {
                Some(to) => {
                    format!("status {}, a redirect to {to}, is not followed", status.as_u16())
                }
                None => explain(status, &body, &row(0, "", Nothing)),
            };
            return Err(Failure { detail, remedy: GiveUp });
        }
        let malformed = |reason: String| Failure {
            detail: format!("status {} with {reason}", status.as_u16()),
            remedy: Retry,
        };
        let value: Value = serde_json::from_str(&body)
            .map_err(|error| malformed(format!("a body that is not JSON: {error}")))?;
        let results = (self.parse)(&value).map_err(|Malformed(reason)| malformed(reason))?;
        Ok(distinct(results))
    }
}

/// Returns the server to which a reply redirects, without path and parameters, which may hold a key.
fn location(reply: &Reply) -> Option<String> {
    if !reply.status.is_redirection() {
        return None;
    }
    let location = reply.headers.get(http::header::LOCATION)?.to_str().ok()?;
    let host = Url::parse(location).ok().and_then(|url| url.host_str().map(str::to_owned));
    Some(host.unwrap_or_else(|| "another path".to_owned()))
}

/// Returns the message of an error: the status, the provider's own words, and advice.
fn explain(status: StatusCode, body: &str, row: &ErrorRow) -> String {
    let words = serde_json::from_str::<Value>(body).ok().and_then(|value| message(&value));
    let mut detail = format!("status {}", status.as_u16());
    for part in [words.as_deref().unwrap_or_default(), row.advice] {
        if !part.is_empty() {
            detail.push_str(": ");
            detail.push_str(part);
        }
    }
    detail
}

/// Finds the message in the bodies of errors, which have it at different keys.
fn message(value: &Value) -> Option<String> {
    const PLACES: [&str; 10] = [
        "/error/message",
        "/error/detail",
        "/detail/error",
        "/errors/0/message",
        "/error",
        "/message",
        "/detail",
        "/readableMessage",
        "/error_message",
        "/detail/0/msg",
    ];
    let found = PLACES.iter().find_map(|place| value.pointer(place)?.as_str());
    found.map(str::to_owned)
}

/// Returns the list at a path; `None` if it is absent or null.
pub fn list<'a>(value: &'a Value, pointer: &str) -> Result<Option<&'a [Value]>, Malformed> {
    match value.pointer(pointer) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items)),
        Some(_) => {
            Err(Malformed(format!("{} that is not a list", pointer.trim_start_matches('/'))))
        }
    }
}

/// Returns the list at a path, which must be there.
pub fn required<'a>(value: &'a Value, pointer: &str) -> Result<&'a [Value], Malformed> {
    let absent = || Malformed(format!("no {}", pointer.trim_start_matches('/')));
    list(value, pointer)?.ok_or_else(absent)
}

/// Returns the text at a path; empty if it is absent, null or no text.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Returns the texts of a list, or a single text, on one line each.
pub fn texts(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        Some(Value::Array(items)) => {
            items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
        }
        Some(Value::String(text)) => text.clone(),
        _ => String::new(),
    }
}

/// Reads a result of text keys.
pub fn result(item: &Value, title: &str, url: &str, text_of: &str) -> WebResult {
    WebResult::new(text(item, title), Some(text(item, url)), text(item, text_of))
}

/// Starts a GET request: the endpoint with `parameters`, which replace its own of the same name unless the
/// endpoint sets them on purpose.
pub fn get(endpoint: &Url, parameters: &[(&str, &str)]) -> http::request::Builder {
    let mut url = endpoint.clone();
    let own: Vec<String> = endpoint.query_pairs().map(|(name, _)| name.into_owned()).collect();
    url.query_pairs_mut()
        .extend_pairs(parameters.iter().filter(|(name, _)| !own.iter().any(|own| own == name)));
    http::Request::get(url.as_str()).header(http::header::ACCEPT, "application/json")
}

/// Makes a POST request of a JSON body. Parameters of the endpoint become keys of the body.
pub fn post(endpoint: &Url, headers: &[(&str, String)], mut body: Value) -> http::Result<Request> {
    for (name, given) in endpoint.query_pairs() {
        let value = serde_json::from_str(&given).unwrap_or_else(|_| Value::from(&*given));
        body[&*name] = value;
    }
    let mut url = endpoint.clone();
    url.set_query(None);
    let mut request = http::Request::post(url.as_str())
        .header(http::header::CONTENT_TYPE, "application/json")
        .header(http::header::ACCEPT, "application/json");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    request.body(body.to_string().into_bytes())
}

/// The headers of most providers say nothing about limits.
pub fn no_hold(_: &HeaderMap) -> Option<Duration> {
    None
}
