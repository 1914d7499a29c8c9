//! The variables of web search. Keys appear in no message.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::BadValue;
use super::reader::{FaultNoted, Reader, path};
use super::variables::{self as var, Variable};
use crate::upstream::secret::Secret;
use crate::web::provider::Provider;
use crate::web::settings::{
    CacheSettings, ProviderSettings, WebSettings, parse_endpoint, parse_limit, parse_millionths,
    parse_pairs, parse_providers, parse_rate,
};

/// The largest file of keys that is read.
const MAX_KEYS_BYTES: u64 = 64 * 1024;

/// The text in the place of a value that holds keys.
const HIDDEN: &str = "(hidden)";

/// Values of providers by their names.
type Pairs<T> = Vec<(&'static Provider, T)>;

impl Reader<'_> {
    /// Reads the settings of web search. The providers are read if the back end `is_used`, the rest is always
    /// checked.
    pub(super) fn web(&mut self, is_used: bool) -> Result<Option<WebSettings>, FaultNoted> {
        let timeout = self.milliseconds(&var::WEB_TIMEOUT_MS);
        let budget = self.take_optional(&var::WEB_BUDGET, |text| parse_limit(text).map(Some));
        let reads_pages = self.take(&var::WEB_PAGES, |text| text.parse().ok());
        let cache = self.web_cache();
        if !is_used {
            timeout?;
            budget?;
            reads_pages?;
            cache?;
            return Ok(None);
        }
        let providers = self.take(&var::WEB_PROVIDER, parse_providers)?;
        let only = match providers.as_slice() {
            [only] => Some(*only),
            _ => None,
        };
        let endpoints =
            self.take_optional(&var::WEB_ENDPOINTS, |text| parse_pairs(text, only, parse_endpoint));
        let rates = self.take_optional(&var::WEB_RATES, |text| parse_pairs(text, only, parse_rate));
        let prices =
            self.take_optional(&var::WEB_PRICES, |text| parse_pairs(text, only, parse_millionths));
        let keys = self.web_keys(&providers);
        let (endpoints, rates, prices) = (endpoints?, rates?, prices?);
        let mut settings = Vec::new();
        let keys = keys?;
        for provider in providers {
            let key = value_of(&keys, provider).cloned();
            let endpoint = self.web_endpoint(provider, &endpoints);
            if provider.needs_key && key.is_none() {
                self.note(&var::WEB_KEYS, None, format!("a key: {}=KEY", provider.name));
            }
            settings.push(endpoint.map(|endpoint| ProviderSettings {
                provider,
                endpoint,
                key,
                requests_per_second:
                    value_of(&rates, provider).copied().unwrap_or(provider.requests_per_second),
                price_millionths: value_of(&prices, provider).copied().unwrap_or_default(),
            }));
        }
        let providers = settings.into_iter().collect::<Result<Vec<_>, _>>()?;
        let (budget, reads_pages) = (budget?, reads_pages?);
        if let Some(crate::web::budget::DailyLimit::Millionths(_)) = budget {
            let is_unpriced = |settings: &&ProviderSettings| {
                settings.provider.needs_key && settings.price_millionths == 0
            };
            if let Some(unpriced) = providers.iter().find(is_unpriced) {
                let name = unpriced.provider.name;
                let accepts = format!(
                    "the price of a request in USD, since RETRIEVER_WEB_BUDGET is in USD: {name}=0.001"
                );
                self.note(&var::WEB_PRICES, None, accepts);
            }
        }
        Ok(Some(WebSettings { providers, timeout: timeout?, budget, cache: cache?, reads_pages }))
    }

    fn web_cache(&mut self) -> Result<CacheSettings, FaultNoted> {
        let path = self.take_optional(&var::WEB_CACHE, |text| path(text).map(Some));
        let max_bytes = self.bytes(&var::WEB_CACHE_BYTES);
        let ttl = self.count(&var::WEB_CACHE_TTL_S);
        Ok(CacheSettings {
            path: path?,
            max_bytes: max_bytes? as u64,
            ttl: Duration::from_secs(ttl? as u64),
        })
    }

    fn web_endpoint(
        &mut self,
        provider: &'static Provider,
        endpoints: &Pairs<reqwest::Url>,
    ) -> Result<reqwest::Url, FaultNoted> {
        let name = provider.name;
        let endpoint = value_of(endpoints, provider).cloned();
        let endpoint = endpoint.or_else(|| parse_endpoint(provider.endpoint?));
        let Some(endpoint) = endpoint else {
            let accepts = format!("the address of your server: {name}=http://host:port");
            return Err(self.note(&var::WEB_ENDPOINTS, None, accepts));
        };
        if let Some(parameter) = provider.needs_parameter
            && !endpoint.query_pairs().any(|(name, value)| name == parameter && !value.is_empty())
        {
            let accepts = format!(
                "an address of {name} with its {parameter}: {name}={endpoint}?{parameter}=ID"
            );
            return Err(self.note(&var::WEB_ENDPOINTS, Some(endpoint.to_string()), accepts));
        }
        Ok(endpoint)
    }

    /// Reads keys from the variable and from the file. The variable counts for a provider that is in both.
    fn web_keys(&mut self, providers: &[&'static Provider]) -> Result<Pairs<Secret>, FaultNoted> {
        let mut keyed = providers.iter().filter(|provider| provider.needs_key);
        let only = match (keyed.next(), keyed.next()) {
            (Some(only), None) => Some(*only),
            _ => None,
        };
        let mut keys = Pairs::new();
        if let Some(text) = self.text(&var::WEB_KEYS) {
            match parse_pairs(&text, only, Secret::new) {
                Some(parsed) => keys.extend(parsed),
                None => return Err(self.hidden(&var::WEB_KEYS)),
            }
        }
        let file = self.take_optional(&var::WEB_KEYS_FILE, |text| path(text).map(Some))?;
        if let Some(file) = file {
            let shown = Some(file.display().to_string());
            let text = read_keys(&file)
                .map_err(|problem| self.problem(&var::WEB_KEYS_FILE, shown.clone(), problem))?;
            let parsed = parse_pairs(&text, only, Secret::new).ok_or_else(|| {
                self.problem(&var::WEB_KEYS_FILE, shown, "a line is not a key".to_owned())
            })?;
            keys.extend(parsed);
        }
        Ok(keys)
    }

    fn hidden(&mut self, variable: &Variable) -> FaultNoted {
        self.note(variable, Some(HIDDEN.to_owned()), variable.accepts.to_owned())
    }

    fn problem(
        &mut self,
        variable: &Variable,
        value: Option<String>,
        problem: String,
    ) -> FaultNoted {
        let Variable { name, flag, accepts, .. } = *variable;
        let (problem, accepts) = (Some(problem), accepts.to_owned());
        self.add_faults([BadValue { variable: name, flag, value, problem, accepts }]);
        FaultNoted
    }
}

fn value_of<'a, T>(pairs: &'a Pairs<T>, provider: &Provider) -> Option<&'a T> {
    pairs.iter().find(|(named, _)| named.name == provider.name).map(|(_, value)| value)
}

fn read_keys(path: &Path) -> Result<String, String> {
    let bytes = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if bytes > MAX_KEYS_BYTES {
        return Err(format!("it has {bytes} bytes, at most {MAX_KEYS_BYTES} are read"));
    }
    fs::read_to_string(path).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::config::{ConfigError, ServeConfig};
    use crate::web::settings::WebSettings;

    fn resolve(values: &[(&str, &str)]) -> Result<WebSettings, ConfigError> {
        let mut source = BTreeMap::from([("RETRIEVER_BACKEND".to_owned(), "web".to_owned())]);
        let named =
            |(name, value): &(&str, &str)| (format!("RETRIEVER_{name}"), (*value).to_owned());
        source.extend(values.iter().map(named));
        ServeConfig::resolve(&source).map(|config| config.web.unwrap())
    }

    #[track_caller]
    fn refused(values: &[(&str, &str)], expected: &str) {
        let message = resolve(values).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains("s3cret"), "{message}");
    }

    #[test]
    fn providers_have_their_addresses_keys_and_rates() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys");
        std::fs::write(&file, "# of the team\nbrave = b-key\nserper=other\n").unwrap();
        let settings = resolve(&[
            ("WEB_PROVIDER", "serper,brave,searxng"),
            ("WEB_KEYS", "serper=s-key"),
            ("WEB_KEYS_FILE", file.to_str().unwrap()),
            ("WEB_ENDPOINTS", "searxng=http://searx:8080,brave=https://proxy/brave?country=DE"),
            ("WEB_RATES", "brave=20"),
        ])
        .unwrap();
        let seen: Vec<_> = settings
            .providers
            .iter()
            .map(|settings| {
                let key = settings.key.as_ref().map(|key| key.expose().to_owned());
                (settings.endpoint.to_string(), key, settings.requests_per_second)
            })
            .collect();
        let key = |text: &str| Some(text.to_owned());
        assert_eq!(seen[0], ("https://google.serper.dev/search".to_owned(), key("s-key"), 50.0));
        assert_eq!(seen[1], ("https://proxy/brave?country=DE".to_owned(), key("b-key"), 20.0));
        assert_eq!(seen[2], ("http://searx:8080/".to_owned(), None, 2.0));
        let shown = format!("{settings:?}");
        assert!(!shown.contains("s-key") && !shown.contains("b-key"), "{shown}");
    }

    #[test]
    fn what_is_missing_is_named_and_keys_are_not_shown() {
        refused(&[], "RETRIEVER_WEB_PROVIDER (--web-provider) is not set");
        refused(&[("WEB_PROVIDER", "altavista")], "is \"altavista\": expected serper");
        let serper = ("WEB_PROVIDER", "serper");
        refused(
            &[serper],
            "RETRIEVER_WEB_KEYS (--web-keys) is not set: expected a key: serper=KEY",
        );
        let searxng = ("WEB_PROVIDER", "searxng");
        refused(&[searxng], "expected the address of your server: searxng=http://host:port");
        refused(&[("WEB_PROVIDER", "google"), ("WEB_KEYS", "s3cret")], "google with its cx");
        let both = ("WEB_PROVIDER", "serper,brave");
        refused(&[both, ("WEB_KEYS", "s3cret")], "RETRIEVER_WEB_KEYS (--web-keys) is \"(hidden)\"");
        refused(&[both, ("WEB_KEYS", "serper=s3cret")], "expected a key: brave=KEY");
        let key = ("WEB_KEYS", "s3cret");
        refused(&[serper, key, ("WEB_BUDGET", "5USD")], "the price of a request in USD");
        refused(&[serper, key, ("WEB_BUDGET", "five")], "RETRIEVER_WEB_BUDGET (--web-budget) is");
        refused(&[serper, ("WEB_KEYS_FILE", "/nowhere/keys")], "but No such file");
        refused(&[serper, key, ("WEB_RATES", "0")], "RETRIEVER_WEB_RATES (--web-rates) is \"0\"");
    }
}
