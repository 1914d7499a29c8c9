//! The settings of web search as values: providers in the order in which they are asked, with their
//! addresses, keys and rates, and the limits of all of them.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use super::budget::DailyLimit;
use super::provider::Provider;
use crate::upstream::secret::Secret;

/// The settings of web search.
#[derive(Clone, Debug)]
pub struct WebSettings {
    /// At least one; a later one is asked if those before it fail.
    pub providers: Vec<ProviderSettings>,
    /// Time limit of one request to a provider.
    pub timeout: Duration,
    /// The most that may be spent in a day; `None` for no limit.
    pub budget: Option<DailyLimit>,
    /// The cache of answers.
    pub cache: CacheSettings,
    /// `true` if pages are read, not only what providers say about them.
    pub reads_pages: bool,
}

/// One provider.
#[derive(Clone, Debug)]
pub struct ProviderSettings {
    /// Its interface.
    pub provider: &'static Provider,
    /// The address of its API.
    pub endpoint: Url,
    /// The key; `None` for a provider without one.
    pub key: Option<Secret>,
    /// Requests per second in the long run.
    pub requests_per_second: f64,
    /// The price of a request, in millionths of the unit of the budget.
    pub price_millionths: u64,
}

/// The cache of answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// The file; `None` to keep answers in memory only.
    pub path: Option<PathBuf>,
    /// The largest size of all answers, in memory and again in the file.
    pub max_bytes: u64,
    /// The time for which an answer is used.
    pub ttl: Duration,
}

/// Parses providers with commas between their names.
pub fn parse_providers(text: &str) -> Option<Vec<&'static Provider>> {
    let named = |name: &str| super::providers::named(name.trim());
    let providers: Vec<&'static Provider> = text.split(',').map(named).collect::<Option<_>>()?;
    let is_repeated = |index: usize| {
        providers[..index].iter().any(|earlier| earlier.name == providers[index].name)
    };
    (!(0..providers.len()).any(is_repeated)).then_some(providers)
}

/// Parses values of providers: pairs `name=value` with commas or line breaks between them, or one value without
/// a name, which is for `only`. Lines that begin with `#` are comments.
pub fn parse_pairs<T>(
    text: &str,
    only: Option<&'static Provider>,
    parse: impl Fn(&str) -> Option<T>,
) -> Option<Vec<(&'static Provider, T)>> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let entries = lines.flat_map(|line| line.split(',')).map(str::trim);
    let mut pairs: Vec<(&'static Provider, T)> = Vec::new();
    for entry in entries.filter(|entry| !entry.is_empty()) {
        let named = entry
            .split_once('=')
            .and_then(|(name, value)| Some((super::providers::named(name.trim())?, value)));
        let (provider, value) = match named {
            Some(named) => named,
            None => (only?, entry),
        };
        if pairs.iter().any(|(earlier, _)| earlier.name == provider.name) {
            return None;
        }
        pairs.push((provider, parse(value.trim())?));
    }
    Some(pairs)
}

/// Parses the address of an API.
pub fn parse_endpoint(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_plain = url.username().is_empty() && url.password().is_none();
    (matches!(url.scheme(), "http" | "https") && url.has_host() && is_plain).then_some(url)
}

/// Parses an amount of money into millionths.
pub fn parse_millionths(text: &str) -> Option<u64> {
    let amount: f64 = text.parse().ok()?;
    (0.0..=1e9).contains(&amount).then(|| (amount * 1e6).round() as u64)
}

/// Parses a daily limit: a number of requests, or an amount followed by `USD`.
pub fn parse_limit(text: &str) -> Option<DailyLimit> {
    match text.strip_suffix("USD") {
        Some(amount) => parse_millionths(amount.trim()).map(DailyLimit::Millionths),
        None => text.parse().ok().map(DailyLimit::Requests),
    }
}

/// Parses a rate.
pub fn parse_rate(text: &str) -> Option<f64> {
    text.parse().ok().filter(|rate| (0.001..=10_000.0).contains(rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str, only: Option<&str>) -> Option<Vec<(&'static str, String)>> {
        let only = only.and_then(crate::web::providers::named);
        let read = parse_pairs(text, only, |value| Some(value.to_owned()))?;
        Some(read.into_iter().map(|(provider, value)| (provider.name, value)).collect())
    }

    #[test]
    fn values_are_named_unless_there_is_one_provider() {
        let both = Some(vec![("serper", "a=b".to_owned()), ("brave", "c".to_owned())]);
        assert_eq!(pairs("serper=a=b,brave=c", None), both);
        assert_eq!(pairs("# keys\nserper = a=b\n\n brave=c\n", None), both);
        assert_eq!(pairs("a=b", Some("serper")), Some(vec![("serper", "a=b".to_owned())]));
        assert_eq!(pairs("a", None), None);
        assert_eq!(pairs("serper=a,serper=b", None), None);
    }

    #[test]
    fn limits_are_requests_or_money() {
        assert_eq!(parse_limit("1000"), Some(DailyLimit::Requests(1000)));
        assert_eq!(parse_limit("2.50USD"), Some(DailyLimit::Millionths(2_500_000)));
        assert_eq!(parse_limit("0.001 USD"), Some(DailyLimit::Millionths(1000)));
        for text in ["", "-1", "2.5", "USD", "-1USD", "nanUSD"] {
            assert_eq!(parse_limit(text), None, "{text}");
        }
    }

    #[test]
    fn providers_are_known_and_named_once() {
        let names = |text: &str| -> Option<Vec<&str>> {
            Some(parse_providers(text)?.iter().map(|provider| provider.name).collect())
        };
        assert_eq!(names("serper, searxng"), Some(vec!["serper", "searxng"]));
        for text in ["", "serper,", "serper,serper", "altavista"] {
            assert_eq!(names(text), None, "{text}");
        }
        assert!(parse_endpoint("https://user:key@host/").is_none());
        assert!(parse_endpoint("ftp://host/").is_none());
    }
}
