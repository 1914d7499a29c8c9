//! HTTP clients for all parts of the project. TLS is rustls with ring. Trusted certificates are those of the operating
//! system, or those in the file `SSL_CERT_FILE`.

use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, StatusCode, Url};

/// The URL schemes that clients support.
pub const SCHEMES: [&str; 2] = ["http", "https"];

/// Returns the message of an error, followed by those of its causes.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut reason = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        reason.push_str(": ");
        reason.push_str(&cause.to_string());
        source = cause.source();
    }
    reason
}

/// Most redirects that a request follows.
const MAX_REDIRECTS: usize = 3;

/// Returns the rule that follows a redirect only if it keeps the method and the body (307, 308) and stays on the
/// server. Any other one is returned as the answer: a POST that became a GET would ask something else.
pub fn redirects_within_server() -> Policy {
    Policy::custom(|attempt| {
        let keeps_request = matches!(
            attempt.status(),
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
        );
        let is_within =
            attempt.previous().last().is_some_and(|from| is_same_server(from, attempt.url()));
        if keeps_request && is_within && attempt.previous().len() <= MAX_REDIRECTS {
            attempt.follow()
        } else {
            attempt.stop()
        }
    })
}

/// Returns `true` for two addresses of one server, or of its secure form.
fn is_same_server(from: &Url, to: &Url) -> bool {
    let is_upgrade = from.scheme() == "http" && to.scheme() == "https";
    let is_same_port =
        from.scheme() == to.scheme() && from.port_or_known_default() == to.port_or_known_default();
    from.host() == to.host() && (is_upgrade || is_same_port)
}

/// Returns a builder of clients.
pub fn client_builder() -> ClientBuilder {
    prepare_tls();
    Client::builder()
}

/// Makes ring the cryptography of TLS in this process.
pub fn prepare_tls() {
    // An error means that a provider is already installed, by an earlier call of this function.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
