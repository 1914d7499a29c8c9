//! Every provider against every case, by a server that speaks as the provider does.

pub(in crate::web) mod fake;
mod shapes;
mod replies;
mod time;
mod file;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::provider::Provider;
use super::result::{WebFault, WebResult};
use super::search::WebSearch;
use super::settings::{CacheSettings, ProviderSettings, WebSettings};
use crate::upstream::exchange::{Exchange, Http};
use crate::upstream::secret::Secret;
use fake::{Act, Fake};
use shapes::body;

const KEY: &str = "s3cret/key+1";
const TIMEOUT: Duration = Duration::from_secs(10);
const DEADLINE: Duration = Duration::from_mins(1);
const MAX_REPLY_BYTES: usize = 256 * 1024;

fn settings_of(provider: &'static Provider, port: u16) -> ProviderSettings {
    let query = provider.needs_parameter.map(|name| format!("?{name}=id")).unwrap_or_default();
    ProviderSettings {
        provider,
        endpoint: format!("http://127.0.0.1:{port}/search{query}").parse().unwrap(),
        key: provider.needs_key.then(|| Secret::new(KEY).unwrap()),
        requests_per_second: 1000.0,
        price_millionths: 0,
    }
}

fn settings(providers: Vec<ProviderSettings>) -> WebSettings {
    WebSettings {
        providers,
        timeout: TIMEOUT,
        budget: None,
        cache: CacheSettings { path: None, max_bytes: 1 << 20, ttl: Duration::from_hours(1) },
        reads_pages: false,
    }
}

/// A search over an exchange.
fn over(settings: WebSettings, exchange: impl Exchange + 'static) -> WebSearch {
    let exchange: Arc<dyn Exchange> = Arc::new(exchange);
    WebSearch::over(settings, &exchange)
}

/// A search over the real client, and its server.
async fn over_tcp(provider: &'static Provider, script: &[Act]) -> (Arc<WebSearch>, Fake) {
    let fake = Fake::new(script);
    let settings = settings(vec![settings_of(provider, fake.listen().await)]);
    let http = Http::new(Duration::from_secs(5), MAX_REPLY_BYTES).unwrap();
    (Arc::new(over(settings, http)), fake)
}

/// A search over memory, for paused time.
fn over_memory(provider: &'static Provider, script: &[Act]) -> (Arc<WebSearch>, Fake) {
    let fake = Fake::new(script);
    (Arc::new(over(settings(vec![settings_of(provider, 80)]), fake.clone())), fake)
}

async fn ask(search: &WebSearch, query: &str) -> Result<Vec<WebResult>, WebFault> {
    search.search(query, 3, Instant::now() + DEADLINE).await
}

/// The reply with two results.
fn found(provider: &Provider) -> Act {
    let items = [
        (json!("Lima"), json!("https://example.org/lima"), json!("A city in Peru.")),
        (json!("Quito"), json!("https://example.org/quito"), json!("A city in Ecuador.")),
    ];
    Act::json(200, &body(provider, &items))
}

fn titles(found: &Result<Vec<WebResult>, WebFault>) -> Vec<&str> {
    let results = found.as_ref().map(Vec::as_slice).unwrap_or_default();
    results.iter().map(|result| result.title.as_str()).collect()
}
