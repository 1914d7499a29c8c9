//! The pages behind results: fetched from public addresses only, if their owners allow it, and cut down to the
//! paragraphs that fit the query. A page that cannot be read leaves the provider's own text.

pub mod guard;
mod fetch;
mod robots;
mod extract;
mod best;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use moka::future::Cache;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::result::WebResult;
use fetch::Fetcher;
use guard::Guard;
use robots::Hosts;

/// The name under which this server obeys robots.txt, and the start of its `User-Agent`.
pub const AGENT: &str = "search-r1-retriever";

/// Pages that are read for one query, from the best result on.
const MAX_PAGES: usize = 5;

/// Time limit of all pages of a query.
const PAGES_TIMEOUT: Duration = Duration::from_secs(8);

/// Size of all pages that are kept.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// Time for which a page is kept.
const CACHE_TTL: Duration = Duration::from_hours(1);

/// Pages that are taken apart concurrently, which needs a processor.
const MAX_EXTRACTIONS: usize = 4;

/// The reason why a page is not read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PageFault {
    /// The address is not one of the public web.
    #[error("{0}")]
    Forbidden(String),
    /// robots.txt forbids it, or could not be read.
    #[error("robots.txt: {0}")]
    Robots(String),
    /// It was not received.
    #[error("{0}")]
    Failed(String),
}

/// The reader of pages.
#[derive(Debug)]
pub struct PageReader {
    fetcher: Fetcher,
    hosts: Hosts,
    /// The paragraphs of pages by address.
    pages: Cache<String, Arc<[String]>>,
    extractions: Arc<Semaphore>,
}

impl PageReader {
    /// Creates a reader of the public web.
    ///
    /// # Errors
    /// The reason why there is no HTTP client.
    pub fn open() -> Result<Self, String> {
        Self::over(Guard::public_web())
    }

    /// Creates a reader behind any guard.
    pub fn over(guard: Guard) -> Result<Self, String> {
        let pages = Cache::builder()
            .max_capacity(CACHE_BYTES)
            .time_to_live(CACHE_TTL)
            .weigher(|url: &String, page: &Arc<[String]>| {
                let bytes: usize = page.iter().map(String::len).sum();
                u32::try_from(url.len() + bytes).unwrap_or(u32::MAX)
            })
            .build();
        let extractions = Arc::new(Semaphore::new(MAX_EXTRACTIONS));
        Ok(Self { fetcher: Fetcher::new(guard)?, hosts: Hosts::new(), pages, extractions })
    }

    /// Replaces the texts of the first results by the best paragraphs of their pages, where these are read in time.
    pub async fn enrich(&self, query: &str, results: &mut [WebResult], deadline: Instant) {
        let until = deadline.min(Instant::now() + PAGES_TIMEOUT);
        let read = results.iter().take(MAX_PAGES).map(|result| async move {
            let url = result.url.as_deref()?;
            let page = match timeout_at(until, self.page(url, until)).await {
                Ok(Ok(page)) => page,
                Ok(Err(fault)) => {
                    debug!(url, %fault, "a page is not read");
                    return None;
                }
                Err(_) => {
                    debug!(url, "a page is too slow");
                    return None;
                }
            };
            best::paragraphs(query, &page)
        });
        let texts = join_all(read).await;
        for (result, text) in results.iter_mut().zip(texts) {
            if let Some(text) = text {
                *result = WebResult::new(&result.title, result.url.as_deref(), &text);
            }
        }
    }

    /// Returns the paragraphs of a page.
    async fn page(&self, url: &str, deadline: Instant) -> Result<Arc<[String]>, PageFault> {
        let read = async {
            let page = self.fetcher.fetch(url, &self.hosts, deadline).await?;
            let permit = Arc::clone(&self.extractions).acquire_owned().await;
            let extracted = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                extract::paragraphs(&page)
            });
            let paragraphs = extracted.await;
            paragraphs
                .map(Arc::from)
                .map_err(|_| PageFault::Failed("the page cannot be taken apart".to_owned()))
        };
        self.pages.try_get_with_by_ref(url, read).await.map_err(|fault: Arc<_>| (*fault).clone())
    }
}
