//! HTTP clients, as every part of the project makes them. TLS is that of rustls with ring, and
//! certificates are checked by what the operating system trusts, or the file in `SSL_CERT_FILE`.

use reqwest::{Client, ClientBuilder};

/// Schemes of the addresses that clients can ask.
pub const SCHEMES: [&str; 2] = ["http", "https"];

/// A client in the making.
pub fn client_builder() -> ClientBuilder {
    // An error says that one is installed already, which only happens here.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
}
