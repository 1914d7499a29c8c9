//! The fetching of one page: redirects, limits, and kinds of content.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, LOCATION};
use reqwest::Url;
use reqwest::redirect::Policy;
use shared::machine::http::{client_builder, with_causes};
use tokio::time::Instant;

use super::guard::Guard;
use super::robots::Hosts;
use super::{AGENT, PageFault};
use crate::upstream::exchange::{Exchange, Http, Reply};

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 3;

/// Largest page after unpacking.
const MAX_PAGE_BYTES: usize = 2 * 1024 * 1024;

/// Time limit for opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The fetcher.
#[derive(Debug)]
pub(super) struct Fetcher {
    guard: Guard,
    http: Http,
}

/// A page as it came.
#[derive(Debug)]
pub(super) struct Page {
    /// Its address after redirects.
    pub(super) url: String,
    /// Its text.
    pub(super) text: String,
    /// `true` for HTML, `false` for plain text.
    pub(super) is_html: bool,
}

impl Fetcher {
    pub(super) fn new(guard: Guard) -> Result<Self, String> {
        let client = client_builder()
            .redirect(Policy::none())
            // A proxy would resolve names itself, behind the guard.
            .no_proxy()
            .dns_resolver(Arc::new(guard.clone()))
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(format!("{AGENT}/{}", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| with_causes(&error))?;
        Ok(Self { guard, http: Http::over(client, MAX_PAGE_BYTES) })
    }

    /// Fetches a page that is HTML or plain text, if the robots.txt of every host on the way allows it.
    pub(super) async fn fetch(
        &self,
        url: &str,
        hosts: &Hosts,
        deadline: Instant,
    ) -> Result<Page, PageFault> {
        let mut url = self.guard.vet(url)?;
        for _ in 0..=MAX_REDIRECTS {
            let rules = hosts.rules(&url, self.robots(&url)).await?;
            let permit = rules.admit(&url, deadline).await?;
            let reply = self.get(&url).await?;
            drop(permit);
            match self.redirect(&url, &reply)? {
                Some(next) => url = next,
                None => return page(&url, &reply),
            }
        }
        Err(PageFault::Failed(format!("more than {MAX_REDIRECTS} redirects")))
    }

    /// Fetches the robots.txt of a page's host.
    async fn robots(&self, page: &Url) -> Result<Reply, PageFault> {
        let path =
            page.join("/robots.txt").map_err(|error| PageFault::Robots(error.to_string()))?;
        let mut url = self.guard.vet(path.as_str())?;
        for _ in 0..=MAX_REDIRECTS {
            let reply = self.get(&url).await?;
            match self.redirect(&url, &reply)? {
                Some(next) => url = next,
                None => return Ok(reply),
            }
        }
        Err(PageFault::Robots(format!("more than {MAX_REDIRECTS} redirects")))
    }

    async fn get(&self, url: &Url) -> Result<Reply, PageFault> {
        let failed = |reason: String| PageFault::Failed(reason);
        let request = http::Request::get(url.as_str())
            .header(ACCEPT, "text/html, text/plain;q=0.9")
            .body(Vec::new())
            .map_err(|error| failed(error.to_string()))?;
        self.http.send(request).await.map_err(|fault| failed(fault.to_string()))
    }

    /// Returns the vetted address to which a reply redirects, if it does.
    fn redirect(&self, from: &Url, reply: &Reply) -> Result<Option<Url>, PageFault> {
        if !reply.status.is_redirection() {
            return Ok(None);
        }
        let location = reply.headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let next = location.and_then(|location| from.join(location).ok());
        let nowhere = || PageFault::Failed("a redirect without an address".to_owned());
        self.guard.vet(next.ok_or_else(nowhere)?.as_str()).map(Some)
    }
}

fn page(url: &Url, reply: &Reply) -> Result<Page, PageFault> {
    let failed = |reason: String| Err(PageFault::Failed(reason));
    if !reply.status.is_success() {
        return failed(format!("status {}", reply.status.as_u16()));
    }
    let kind = reply.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.unwrap_or_default().to_ascii_lowercase();
    let mut parts = kind.split(';').map(str::trim);
    let is_html = match parts.next() {
        Some("text/html" | "application/xhtml+xml") => true,
        Some("text/plain") => false,
        other => return failed(format!("the content type {other:?}, expected HTML or plain text")),
    };
    let charset = parts.find_map(|part| part.strip_prefix("charset="));
    let charset = charset.map(|charset| charset.trim_matches('"'));
    if !matches!(charset, None | Some("utf-8" | "utf8" | "us-ascii")) {
        return failed(format!("the charset {charset:?}, expected utf-8"));
    }
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    Ok(Page { url: url.to_string(), text, is_html })
}
