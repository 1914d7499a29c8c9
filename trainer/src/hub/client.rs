//! The hub over HTTP: the list of a repository's files, and files with their digests.
//!
//! Redirects are followed by hand: the digest stands in the hub's own answer, not in that of the
//! store that it sends to, and the token goes to the hub alone.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use reqwest::header::{self, HeaderMap};
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde_json::Value;
use shared::http::{self, with_causes};
use shared::retry::{Backoff, RetryPolicy};
use tokio::time::Instant;
use tracing::{info, warn};

use super::cache::{Cache, digest_like, is_plain};
use super::error::{HubError, io};
use super::{HubSettings, ModelName};

const REDIRECTS_MAX: usize = 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence of a connection.
const READ_TIMEOUT: Duration = Duration::from_mins(1);
/// Longest wait for an answer about files, with all attempts: a folder whose name is misspelt should
/// not take minutes to be refused.
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);
/// A longer list of files is refused.
const LIST_BYTES_MAX: usize = 16 << 20;

/// What a repository holds at one commit.
pub(super) struct Repository {
    pub(super) commit: String,
    pub(super) files: Vec<String>,
}

/// A file as the hub describes it.
struct Remote {
    url: Url,
    digest: String,
    size: u64,
}

/// What became of one attempt to go on with a download.
enum Attempt {
    Whole,
    /// Cut off after this many new bytes.
    Cut(u64, String),
}

/// Asks one hub for one model.
pub(super) struct HubClient<'a> {
    http: Client,
    endpoint: Url,
    name: &'a ModelName,
    settings: &'a HubSettings,
}

impl<'a> HubClient<'a> {
    /// Checks the address; does not connect yet.
    pub(super) fn new(name: &'a ModelName, settings: &'a HubSettings) -> Result<Self, HubError> {
        let refuse = |reason: String| {
            let (name, endpoint) = (name.to_string(), settings.endpoint.clone());
            HubError::Endpoint { name, endpoint, reason }
        };
        let endpoint = Url::parse(&settings.endpoint).map_err(|error| refuse(error.to_string()))?;
        if !http::SCHEMES.contains(&endpoint.scheme()) {
            return Err(refuse(format!("the scheme {:?} is not supported", endpoint.scheme())));
        }
        let http = http::client_builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| refuse(error.to_string()))?;
        Ok(Self { http, endpoint, name, settings })
    }

    /// The commit that the revision stands for and its files.
    pub(super) async fn repository(&self) -> Result<Repository, HubError> {
        let ModelName { repository, revision } = self.name;
        let url = self.url(&format!("api/models/{repository}/revision/{revision}"))?;
        let mut response = self.patiently(&url, Method::GET).await?;
        let mut bytes = Vec::new();
        let cut = |error: reqwest::Error| self.unreachable(&url, with_causes(&error));
        while let Some(chunk) = response.chunk().await.map_err(cut)? {
            if bytes.len() + chunk.len() > LIST_BYTES_MAX {
                let reason = format!("the list of files is above {LIST_BYTES_MAX} bytes");
                return Err(HubError::Answer { url: url.to_string(), reason });
            }
            bytes.extend_from_slice(&chunk);
        }
        let refuse = |reason: &str| HubError::Answer {
            url: url.to_string(),
            reason: format!("no description of a repository: {reason}"),
        };
        let described: Value =
            serde_json::from_slice(&bytes).map_err(|error| refuse(&error.to_string()))?;
        let commit = described["sha"].as_str().filter(|commit| is_plain(commit));
        let files = described["siblings"].as_array().ok_or_else(|| refuse("no siblings"))?;
        let names = files.iter().filter_map(|file| file["rfilename"].as_str());
        Ok(Repository {
            commit: commit.ok_or_else(|| refuse("no sha"))?.to_owned(),
            files: names.map(str::to_owned).collect(),
        })
    }

    /// Sees that the cache has `file` of `commit`.
    pub(super) async fn fetch(
        &self,
        cache: &Cache,
        commit: &str,
        file: &str,
    ) -> Result<(), HubError> {
        if cache.file(commit, file).is_file() {
            return Ok(());
        }
        let remote = self.describe(commit, file).await?;
        let _lock = cache.lock(&remote.digest)?;
        let blob = cache.blob(&remote.digest);
        if !blob.is_file() {
            let incomplete = cache.incomplete(&remote.digest);
            self.download(&remote, &incomplete).await?;
            if let Some(found) = digest_like(&remote.digest, &incomplete)?
                && !found.eq_ignore_ascii_case(&remote.digest)
            {
                fs::remove_file(&incomplete).map_err(io("remove", &incomplete))?;
                let (url, expected) = (remote.url.to_string(), remote.digest);
                return Err(HubError::Digest { url, found, expected });
            }
            fs::rename(&incomplete, &blob).map_err(io("rename to", &blob))?;
        }
        cache.link(commit, file, &remote.digest)
    }

    /// Digest and size of a file.
    async fn describe(&self, commit: &str, file: &str) -> Result<Remote, HubError> {
        let url = self.url(&format!("{}/resolve/{commit}/{file}", self.name.repository))?;
        let response = self.patiently(&url, Method::HEAD).await?;
        let headers = response.headers();
        // Large files lie in a store of their own; what the hub says of them has other names.
        let digest = text(headers, "x-linked-etag").or_else(|| text(headers, "etag"));
        let size = text(headers, "x-linked-size").or_else(|| text(headers, "content-length"));
        let digest = digest.map(|tag| tag.trim_start_matches("W/").trim_matches('"').to_owned());
        match (digest.filter(|digest| is_plain(digest)), size.and_then(|size| size.parse().ok())) {
            (Some(digest), Some(size)) => Ok(Remote { url, digest, size }),
            (digest, _) => {
                let lacking = if digest.is_none() { "ETag" } else { "Content-Length" };
                let reason = format!("the answer has no {lacking}");
                Err(HubError::Answer { url: url.to_string(), reason })
            }
        }
    }

    /// Goes on with `incomplete` until it has all bytes of the file, through any number of cuts as
    /// long as each attempt brings something.
    async fn download(&self, remote: &Remote, incomplete: &Path) -> Result<(), HubError> {
        info!(url = %remote.url, bytes = remote.size, "downloading");
        let mut backoff = Backoff::new(self.settings.retry);
        let mut still_since = Instant::now();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let (reason, new_bytes) = match self.attempt(remote, incomplete).await? {
                Attempt::Whole => return Ok(()),
                Attempt::Cut(new_bytes, reason) => (reason, new_bytes),
            };
            if new_bytes > 0 {
                backoff = Backoff::new(self.settings.retry);
                still_since = Instant::now();
            }
            let Some(pause) = backoff.next_pause(still_since.elapsed(), None) else {
                let (name, url) = (self.name.to_string(), remote.url.to_string());
                return Err(HubError::Unreachable { name, url, attempts, reason });
            };
            warn!(url = %remote.url, reason, attempts, "the download was cut off, going on");
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&self, remote: &Remote, incomplete: &Path) -> Result<Attempt, HubError> {
        let mut start = fs::metadata(incomplete).map_or(0, |found| found.len());
        if start > remote.size {
            start = 0;
        }
        if start == remote.size && start > 0 {
            return Ok(Attempt::Whole);
        }
        let range = (start > 0).then(|| format!("bytes={start}-"));
        let mut response = match self.get(&remote.url, range.as_deref()).await {
            Ok(response) => response,
            Err(HubError::Unreachable { reason, .. }) => return Ok(Attempt::Cut(0, reason)),
            Err(other) => return Err(other),
        };
        let goes_on = response.status() == StatusCode::PARTIAL_CONTENT
            && text(response.headers(), "content-range")
                .is_some_and(|range| range.starts_with(&format!("bytes {start}-")));
        // A store without ranges sends everything again.
        let mut file = open(incomplete, goes_on)?;
        let mut length = if goes_on { start } else { 0 };
        let before = length;
        let reason = loop {
            match response.chunk().await {
                Ok(Some(chunk)) if length + chunk.len() as u64 > remote.size => {
                    fs::remove_file(incomplete).map_err(io("remove", incomplete))?;
                    let reason = format!("more came than the {} bytes stated", remote.size);
                    return Err(HubError::Answer { url: remote.url.to_string(), reason });
                }
                Ok(Some(chunk)) => {
                    file.write_all(&chunk).map_err(io("write", incomplete))?;
                    length += chunk.len() as u64;
                }
                Ok(None) => break "the answer ended early".to_owned(),
                Err(error) => break with_causes(&error),
            }
        };
        file.sync_all().map_err(io("sync", incomplete))?;
        if length == remote.size {
            return Ok(Attempt::Whole);
        }
        Ok(Attempt::Cut(length.saturating_sub(before), reason))
    }

    /// The bytes of a file, from the store that the hub sends to.
    async fn get(&self, url: &Url, range: Option<&str>) -> Result<Response, HubError> {
        let mut url = url.clone();
        for _ in 0..REDIRECTS_MAX {
            let response = self.send(&url, Method::GET, range).await?;
            match location(&url, &response) {
                Some(next) => url = next,
                None => return self.accept(response, &url),
            }
        }
        let reason = format!("more than {REDIRECTS_MAX} redirects");
        Err(HubError::Answer { url: url.to_string(), reason })
    }

    /// The hub's own answer, tried again while it cannot be reached.
    async fn patiently(&self, url: &Url, method: Method) -> Result<Response, HubError> {
        let started = Instant::now();
        let deadline = self.settings.retry.deadline.min(ANSWER_PATIENCE);
        let mut backoff = Backoff::new(RetryPolicy { deadline, ..self.settings.retry });
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.own_answer(url, method.clone()).await {
                Err(HubError::Unreachable { name, url, reason, .. }) => {
                    let Some(pause) = backoff.next_pause(started.elapsed(), None) else {
                        return Err(HubError::Unreachable { name, url, attempts, reason });
                    };
                    tokio::time::sleep(pause).await;
                }
                other => return other,
            }
        }
    }

    /// The answer of the hub itself: redirects within it (a model that was renamed) are followed,
    /// those to a store are answers.
    async fn own_answer(&self, url: &Url, method: Method) -> Result<Response, HubError> {
        let mut url = url.clone();
        for _ in 0..REDIRECTS_MAX {
            let response = self.send(&url, method.clone(), None).await?;
            match location(&url, &response) {
                Some(next) if next.origin() == url.origin() && !is_linked(&response) => url = next,
                Some(_) => return Ok(response),
                None => return self.accept(response, &url),
            }
        }
        let reason = format!("more than {REDIRECTS_MAX} redirects");
        Err(HubError::Answer { url: url.to_string(), reason })
    }

    async fn send(
        &self,
        url: &Url,
        method: Method,
        range: Option<&str>,
    ) -> Result<Response, HubError> {
        let mut request = self
            .http
            .request(method, url.clone())
            // Lengths and digests are those of the bytes as they are stored.
            .header(header::ACCEPT_ENCODING, "identity");
        if let Some(token) = &self.settings.token
            && url.origin() == self.endpoint.origin()
        {
            request = request.bearer_auth(token);
        }
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        request.send().await.map_err(|error| self.unreachable(url, with_causes(&error)))
    }

    /// Turns a status that is no success into the error that it means.
    fn accept(&self, response: Response, url: &Url) -> Result<Response, HubError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let code = text(response.headers(), "x-error-code").unwrap_or_default();
        let said = text(response.headers(), "x-error-message").unwrap_or_default();
        let message = [format!("status {}", status.as_u16()), code.clone(), said];
        let message: Vec<String> = message.into_iter().filter(|part| !part.is_empty()).collect();
        let (message, name) = (message.join(", "), self.name.to_string());
        let url = url.to_string();
        Err(match status {
            _ if code == "GatedRepo" => HubError::Gated { name, message },
            // The hub does not tell strangers whether a private model exists.
            StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED => {
                HubError::NotFound { name, message }
            }
            StatusCode::FORBIDDEN => HubError::Gated { name, message },
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                HubError::Unreachable { name, url, attempts: 1, reason: message }
            }
            status => HubError::Status { url, status: status.as_u16(), message },
        })
    }

    fn unreachable(&self, url: &Url, reason: String) -> HubError {
        let (name, url) = (self.name.to_string(), url.to_string());
        HubError::Unreachable { name, url, attempts: 1, reason }
    }

    fn url(&self, path: &str) -> Result<Url, HubError> {
        let address = format!("{}/{path}", self.settings.endpoint);
        Url::parse(&address)
            .map_err(|error| HubError::Answer { url: address, reason: error.to_string() })
    }
}

fn open(path: &Path, goes_on: bool) -> Result<File, HubError> {
    let mut options = OpenOptions::new();
    options.create(true).write(true).append(goes_on).truncate(!goes_on);
    options.open(path).map_err(io("open", path))
}

/// Where a redirect leads.
fn location(url: &Url, response: &Response) -> Option<Url> {
    let location = text(response.headers(), "location")?;
    response.status().is_redirection().then(|| url.join(&location).ok()).flatten()
}

/// A redirect that says what it leads to.
fn is_linked(response: &Response) -> bool {
    response.headers().contains_key("x-linked-etag")
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}
