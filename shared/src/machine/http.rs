//! HTTP clients for all parts of the project. TLS is rustls with ring. Trusted certificates are those of the operating
//! system, or those in the file `SSL_CERT_FILE`.

use reqwest::{Client, ClientBuilder};

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

/// Returns a builder of clients.
pub fn client_builder() -> ClientBuilder {
    // An error means that a provider is already installed, by an earlier call of this function.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
}
