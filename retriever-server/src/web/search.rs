//! One search over the providers, in their order, with a cache before them. Equal queries that are asked at
//! the same time are one request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use super::budget::{DailyBudget, Paid};
use super::cache::AnswerCache;
use super::pages::PageReader;
use super::provider::{Ask, Provider};
use super::result::{WebFault, WebResult};
use super::settings::{ProviderSettings, WebSettings};
use crate::upstream::exchange::{Exchange, Http, Reply, Request};
use crate::upstream::service::{CallFault, RetryBudget, Service, ServiceLimits};

/// Largest accepted reply of a provider.
const MAX_REPLY_BYTES: usize = 4 * 1024 * 1024;

/// Time limit for opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Requests to one provider that are on their way concurrently.
const MAX_CONCURRENT_REQUESTS: usize = 64;

/// Numbers of results that are requested. A query with another `top_k` uses the next larger one, so that its
/// answer is in the cache for the others.
const RESULT_COUNTS: [usize; 4] = [10, 20, 50, 100];

/// Most times that a query joins the search of an equal one that runs out of time.
const MAX_JOINS: usize = 4;

/// Web search.
#[derive(Debug)]
pub struct WebSearch {
    providers: Vec<Asked>,
    cache: AnswerCache,
    pages: Option<PageReader>,
}

/// A provider with its service.
#[derive(Debug)]
struct Asked {
    settings: ProviderSettings,
    service: Service,
}

impl WebSearch {
    /// Opens web search over the network. It connects to nobody yet.
    ///
    /// # Errors
    /// The reason why there is no HTTP client.
    pub fn open(settings: WebSettings) -> Result<Self, String> {
        let http = Arc::new(Http::new(CONNECT_TIMEOUT, MAX_REPLY_BYTES)?);
        let pages = if settings.reads_pages { Some(PageReader::open()?) } else { None };
        let exchange: Arc<dyn Exchange> = http;
        Ok(Self::over(settings, &exchange).with_pages(pages))
    }

    /// Opens web search over any exchange.
    pub fn over(settings: WebSettings, exchange: &Arc<dyn Exchange>) -> Self {
        let WebSettings { providers, timeout, budget, cache, .. } = settings;
        let cache = AnswerCache::open(&cache);
        let keep = cache.keeper_of_expenses();
        let budget = Arc::new(DailyBudget::new(budget, cache.spent(), keep));
        let retries = RetryBudget::new();
        let asked = |settings: ProviderSettings| {
            let limits = ServiceLimits {
                attempt_timeout: timeout,
                requests_per_second: Some(settings.requests_per_second),
                burst_requests: (settings.requests_per_second.ceil() as usize).max(1),
                max_concurrent_requests: MAX_CONCURRENT_REQUESTS,
                first_pause: Duration::from_millis(500),
                max_pause: Duration::from_secs(10),
            };
            let exchange = if settings.provider.needs_key {
                let (exchange, budget) = (Arc::clone(exchange), Arc::clone(&budget));
                let price_millionths = settings.price_millionths;
                Arc::new(Paid { exchange, budget, price_millionths })
            } else {
                Arc::clone(exchange)
            };
            let (name, secret) = (settings.provider.name, settings.key.clone());
            let service = Service::new(name, exchange, limits, retries.clone(), secret);
            Asked { settings, service }
        };
        Self { providers: providers.into_iter().map(asked).collect(), cache, pages: None }
    }

    /// Adds the reading of pages.
    #[must_use]
    pub fn with_pages(self, pages: Option<PageReader>) -> Self {
        Self { pages, ..self }
    }

    /// Returns at most `top_k` results of a query, best first. A query without a word finds nothing.
    pub async fn search(
        &self,
        query: &str,
        top_k: usize,
        deadline: Instant,
    ) -> Result<Vec<WebResult>, WebFault> {
        let query = query.split_whitespace().collect::<Vec<_>>().join(" ");
        if query.is_empty() {
            return Ok(Vec::new());
        }
        let wanted = RESULT_COUNTS.into_iter().find(|count| *count >= top_k);
        let wanted = wanted.unwrap_or(RESULT_COUNTS[RESULT_COUNTS.len() - 1]);
        let key = self.cache_key(&query, wanted);
        for _ in 0..MAX_JOINS {
            let ask = self.ask(&query, wanted, deadline);
            match timeout_at(deadline, self.cache.get_or(&key, ask)).await {
                Ok(Ok(results)) => return Ok(results.iter().take(top_k).cloned().collect()),
                // The deadline may have been that of an equal query, which was asked first.
                Ok(Err(WebFault::Deadline(_))) if Instant::now() < deadline => {}
                Ok(Err(fault)) => return Err(fault),
                Err(_) => break,
            }
        }
        Err(WebFault::Deadline("no answer before the deadline".to_owned()))
    }

    /// Names everything that an answer depends on.
    fn cache_key(&self, query: &str, wanted: usize) -> String {
        let providers = self
            .providers
            .iter()
            .map(|asked| format!("{} {}", asked.settings.provider.name, asked.settings.endpoint));
        let providers: Vec<String> = providers.collect();
        let reads_pages = self.pages.is_some();
        format!("{}\n{wanted} {reads_pages}\n{query}", providers.join(","))
    }

    /// Asks one provider after the other until one answers. A provider with others behind it gets half of the
    /// remaining time.
    async fn ask(
        &self,
        query: &str,
        wanted: usize,
        deadline: Instant,
    ) -> Result<Vec<WebResult>, WebFault> {
        let mut faults = Faults::default();
        for (index, asked) in self.providers.iter().enumerate() {
            let now = Instant::now();
            let remaining = deadline.saturating_duration_since(now);
            let is_last = index + 1 == self.providers.len();
            let until = if is_last { deadline } else { now + remaining / 2 };
            match asked.search(query, wanted, until).await {
                Ok(mut results) => {
                    if let Some(pages) = &self.pages {
                        pages.enrich(query, &mut results, deadline).await;
                    }
                    return Ok(results);
                }
                Err(fault) => {
                    debug!(provider = asked.settings.provider.name, %fault, "a provider failed");
                    faults.add(&fault);
                }
            }
        }
        let fault = faults.combined();
        warn!(%fault, "no provider answered");
        Err(fault)
    }
}

impl Asked {
    async fn search(
        &self,
        query: &str,
        wanted: usize,
        deadline: Instant,
    ) -> Result<Vec<WebResult>, CallFault> {
        let provider = self.settings.provider;
        let request = self.request(query, wanted).map_err(|_| CallFault::Failed {
            service: provider.name,
            // The text of the error might hold the key.
            detail: "the key or the endpoint cannot be part of a request".to_owned(),
            is_retryable: false,
        })?;
        let read = |reply: &Reply| {
            if let Some(time) = (provider.hold)(&reply.headers) {
                self.service.hold(time);
            }
            provider.read(reply)
        };
        self.service.call(&request, read, deadline).await
    }

    fn request(&self, query: &str, wanted: usize) -> http::Result<Request> {
        let provider: &Provider = self.settings.provider;
        let query = provider.limit.clip(query);
        let mut request = (provider.request)(&Ask {
            endpoint: &self.settings.endpoint,
            key: self.settings.key.as_ref().map_or("", |key| key.expose()),
            query: &query,
            results: wanted.min(provider.max_results),
        })?;
        request.headers_mut().values_mut().for_each(|value| value.set_sensitive(true));
        Ok(request)
    }
}

/// The faults of the providers that were asked.
#[derive(Default)]
struct Faults {
    texts: Vec<String>,
    has_retryable: bool,
    has_deadline: bool,
}

impl Faults {
    fn add(&mut self, fault: &CallFault) {
        self.texts.push(fault.to_string());
        match fault {
            CallFault::Deadline { last: None, .. } => self.has_deadline = true,
            // The provider failed until there was no time left.
            CallFault::Deadline { last: Some(_), .. } => self.has_retryable = true,
            CallFault::Failed { is_retryable, .. } => self.has_retryable |= *is_retryable,
        }
    }

    /// Returns one fault for all: what may help most comes first.
    fn combined(self) -> WebFault {
        let text = self.texts.join("; ");
        if self.has_retryable {
            WebFault::Upstream(text)
        } else if self.has_deadline {
            WebFault::Deadline(text)
        } else {
            WebFault::Refused(text)
        }
    }
}

impl fmt::Debug for Ask<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Ask").field("query", &self.query).finish_non_exhaustive()
    }
}
