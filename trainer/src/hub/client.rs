//! Requests to the hub over HTTP: the files of a repository, and their contents with digests.
//!
//! This client follows redirects itself: the digest is in the hub's own response, not in that of the file
//! store it redirects to, and the token is sent to the hub only.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use reqwest::header::{self, HeaderMap};
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde_json::Value;
use shared::contract::retry::{Backoff, RetryPolicy};
use shared::machine::http::{self, with_causes};
use tokio::time::Instant;
use tracing::{info, warn};

use super::cache::{Cache, digest_like, is_plain};
use super::error::{HubError, io};
use super::{HubSettings, Repository};

const REDIRECTS_MAX: usize = 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time without data on a connection.
const READ_TIMEOUT: Duration = Duration::from_mins(1);
/// Longest wait for a response about files, over all attempts. It is short because a misspelt folder name
/// also leads to a request.
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);
/// Longest list of files, in bytes.
const LIST_BYTES_MAX: usize = 16 << 20;

/// The files of a repository at one commit.
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<String>,
}

/// A file as the hub describes it.
struct Remote {
    url: Url,
    digest: String,
    size: u64,
}

/// The outcome of one attempt to continue a download.
enum Attempt {
    Whole,
    /// Interrupted after this many new bytes, with the reason.
    Cut(u64, String),
}

/// A client of one hub for one repository.
pub(super) struct HubClient<'a> {
    http: Client,
    endpoint: Url,
    repository: &'a Repository,
    settings: &'a HubSettings,
}

impl<'a> HubClient<'a> {
    /// Checks the address, without connecting.
    pub(super) fn new(
        repository: &'a Repository,
        settings: &'a HubSettings,
    ) -> Result<Self, HubError> {
        let refuse = |reason: String| {
            let (name, endpoint) = (repository.to_string(), settings.endpoint.clone());
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
        Ok(Self { http, endpoint, repository, settings })
    }

    /// Requests the commit of the revision and its files.
    pub(super) async fn listing(&self) -> Result<Listing, HubError> {
        let Repository { name, revision, .. } = self.repository;
        let kind = self.repository.kind.api_word();
        let url = self.url(&format!("api/{kind}/{name}/revision/{revision}"))?;
        let mut response = self.patiently(&url, Method::GET).await?;
        let mut bytes = Vec::new();
        let cut = |error: reqwest::Error| self.unreachable(&url, with_causes(&error));
        while let Some(chunk) = response.chunk().await.map_err(cut)? {
            if bytes.len() + chunk.len() > LIST_BYTES_MAX {
                let reason = format!("the list of files is longer than {LIST_BYTES_MAX} bytes");
                return Err(HubError::Answer { url: url.to_string(), reason });
            }
            bytes.extend_from_slice(&chunk);
        }
        let refuse = |reason: &str| HubError::Answer {
            url: url.to_string(),
            reason: format!("not a description of a repository: {reason}"),
        };
        let described: Value =
            serde_json::from_slice(&bytes).map_err(|error| refuse(&error.to_string()))?;
        let commit = described["sha"].as_str().filter(|commit| is_plain(commit));
        let files = described["siblings"].as_array().ok_or_else(|| refuse("no siblings"))?;
        let names = files.iter().filter_map(|file| file["rfilename"].as_str());
        Ok(Listing {
            commit: commit.ok_or_else(|| refuse("no sha"))?.to_owned(),
            files: names.map(str::to_owned).collect(),
        })
    }

    /// Downloads `file` of `commit` unless the cache has it.
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
            if let Some(digest) = digest_like(&remote.digest, &incomplete)?
                && !digest.eq_ignore_ascii_case(&remote.digest)
            {
                fs::remove_file(&incomplete).map_err(io("remove", &incomplete))?;
                let (url, expected) = (remote.url.to_string(), remote.digest);
                return Err(HubError::Digest { url, found: digest, expected });
            }
            fs::rename(&incomplete, &blob).map_err(io("rename to", &blob))?;
        }
        cache.link(commit, file, &remote.digest)
    }

    /// Requests the size of a file, in bytes.
    pub(super) async fn size(&self, commit: &str, file: &str) -> Result<u64, HubError> {
        Ok(self.describe(commit, file).await?.size)
    }

    /// Requests the digest and the size of a file.
    async fn describe(&self, commit: &str, file: &str) -> Result<Remote, HubError> {
        let Repository { kind, name, .. } = self.repository;
        let url = self.url(&format!("{}{name}/resolve/{commit}/{file}", kind.path_prefix()))?;
        let response = self.patiently(&url, Method::HEAD).await?;
        let headers = response.headers();
        // Large files are in a separate store; the hub reports their digest and size in other headers.
        let digest = text(headers, "x-linked-etag").or_else(|| text(headers, "etag"));
        let size = text(headers, "x-linked-size").or_else(|| text(headers, "content-length"));
        let digest = digest.map(|tag| tag.trim_start_matches("W/").trim_matches('"').to_owned());
        match (digest.filter(|digest| is_plain(digest)), size.and_then(|size| size.parse().ok())) {
            (Some(digest), Some(size)) => Ok(Remote { url, digest, size }),
            (digest, _) => {
                let lacking = if digest.is_none() { "ETag" } else { "Content-Length" };
                let reason = format!("the response has no {lacking}");
                Err(HubError::Answer { url: url.to_string(), reason })
            }
        }
    }

    /// Continues `incomplete` until it has all bytes of the file. Interruptions do not matter as long as the
    /// attempts make progress.
    async fn download(&self, remote: &Remote, incomplete: &Path) -> Result<(), HubError> {
        info!(url = %remote.url, bytes = remote.size, "downloading");
        let mut backoff = Backoff::new(self.settings.retry);
        let mut stalled_since = Instant::now();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let (reason, new_bytes) = match self.attempt(remote, incomplete).await? {
                Attempt::Whole => return Ok(()),
                Attempt::Cut(new_bytes, reason) => (reason, new_bytes),
            };
            if new_bytes > 0 {
                backoff = Backoff::new(self.settings.retry);
                stalled_since = Instant::now();
            }
            let Some(pause) = backoff.next_pause(stalled_since.elapsed(), None) else {
                let (name, url) = (self.repository.to_string(), remote.url.to_string());
                return Err(HubError::Unreachable { name, url, attempts, reason });
            };
            warn!(url = %remote.url, reason, attempts, "the download was interrupted; resuming");
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&self, remote: &Remote, incomplete: &Path) -> Result<Attempt, HubError> {
        let mut start = fs::metadata(incomplete).map_or(0, |metadata| metadata.len());
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
        let resumes = response.status() == StatusCode::PARTIAL_CONTENT
            && text(response.headers(), "content-range")
                .is_some_and(|range| range.starts_with(&format!("bytes {start}-")));
        // A store without support for ranges sends the whole file again.
        let mut file = open(incomplete, resumes)?;
        let mut length = if resumes { start } else { 0 };
        let before = length;
        let reason = loop {
            match response.chunk().await {
                Ok(Some(chunk)) if length + chunk.len() as u64 > remote.size => {
                    fs::remove_file(incomplete).map_err(io("remove", incomplete))?;
                    let reason =
                        format!("the file is longer than the stated {} bytes", remote.size);
                    return Err(HubError::Answer { url: remote.url.to_string(), reason });
                }
                Ok(Some(chunk)) => {
                    file.write_all(&chunk).map_err(io("write", incomplete))?;
                    length += chunk.len() as u64;
                }
                Ok(None) => break "the response ended early".to_owned(),
                Err(error) => break with_causes(&error),
            }
        };
        file.sync_all().map_err(io("sync", incomplete))?;
        if length == remote.size {
            return Ok(Attempt::Whole);
        }
        Ok(Attempt::Cut(length.saturating_sub(before), reason))
    }

    /// Requests the bytes of a file, following redirects to the file store.
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

    /// Requests the hub's own response; retries while the hub cannot be reached.
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

    /// Requests the response of the hub itself. Follows redirects within the hub, as for a renamed model; a
    /// redirect to the file store is the response.
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
            // Lengths and digests refer to the stored bytes.
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

    /// Converts an unsuccessful status into an error.
    fn accept(&self, response: Response, url: &Url) -> Result<Response, HubError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let code = text(response.headers(), "x-error-code").unwrap_or_default();
        let explanation = text(response.headers(), "x-error-message").unwrap_or_default();
        let message = [format!("status {}", status.as_u16()), code.clone(), explanation];
        let message: Vec<String> = message.into_iter().filter(|part| !part.is_empty()).collect();
        let (message, name) = (message.join(", "), self.repository.to_string());
        let url = url.to_string();
        Err(match status {
            _ if code == "GatedRepo" => HubError::Gated { name, message },
            // Without access, a private model looks like one that does not exist.
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
        let (name, url) = (self.repository.to_string(), url.to_string());
        HubError::Unreachable { name, url, attempts: 1, reason }
    }

    fn url(&self, path: &str) -> Result<Url, HubError> {
        let address = format!("{}/{path}", self.settings.endpoint);
        Url::parse(&address)
            .map_err(|error| HubError::Answer { url: address, reason: error.to_string() })
    }
}

fn open(path: &Path, append: bool) -> Result<File, HubError> {
    let mut options = OpenOptions::new();
    options.create(true).write(true).append(append).truncate(!append);
    options.open(path).map_err(io("open", path))
}

/// Returns the target of a redirect.
fn location(url: &Url, response: &Response) -> Option<Url> {
    let location = text(response.headers(), "location")?;
    response.status().is_redirection().then(|| url.join(&location).ok()).flatten()
}

/// Returns `true` for a redirect to the file store, which comes with the digest of the file.
fn is_linked(response: &Response) -> bool {
    response.headers().contains_key("x-linked-etag")
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}
