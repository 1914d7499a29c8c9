//! HTTP clients, as every part of the project makes them. TLS is that of rustls with ring, and
//! certificates are checked by what the operating system trusts, or the file in `SSL_CERT_FILE`.

use reqwest::{Client, ClientBuilder};

/// Schemes of the addresses that clients can ask.
pub const SCHEMES: [&str; 2] = ["http", "https"];

/// What an error says, and what each of its causes says.
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

/// A client in the making.
pub fn client_builder() -> ClientBuilder {
    // An error says that one is installed already, which only happens here.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
}
