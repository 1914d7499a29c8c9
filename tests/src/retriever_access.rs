//! Who may ask a retriever, and how: API keys that are replaced without a restart, TLS, pages of other web sites.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rcgen::CertifiedKey;
use reqwest::Method;
use reqwest::header::{ACCESS_CONTROL_ALLOW_ORIGIN, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::harness::corpus::IndexedCorpus;
use crate::harness::http::{PATIENCE, client, post_bytes_to};
use crate::harness::program::{run, text};
use crate::harness::retriever::RetrieverHandle;

const OLD: &str = "old-key-0123456789abcdef";
const NEW: &str = "new-key-0123456789abcdef";

/// Returns the status of a query with these headers, and those of the answer.
async fn ask(url: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap) {
    let mut request = client().post(format!("{url}/retrieve")).body(r#"{"query": "town1"}"#);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.headers().clone())
}

#[tokio::test]
async fn a_request_needs_one_of_the_keys_and_probes_need_none() {
    let corpus = IndexedCorpus::build();
    let keys = corpus.folder().join("keys");
    fs::write(&keys, format!("# clients\ntrainer {OLD}\n")).unwrap();
    let variables = [("RETRIEVER_API_KEYS_FILE", text(&keys))];
    let retriever = RetrieverHandle::start_with(&corpus.index(), 0, &variables);
    let url = retriever.url();
    let (bearer, wrong) = (format!("Bearer {OLD}"), format!("Bearer {OLD}x"));
    for (headers, status) in [
        (vec![("authorization", bearer.as_str())], 200),
        (vec![("x-api-key", OLD)], 200),
        (vec![], 401),
        (vec![("authorization", wrong.as_str())], 401),
        (vec![("authorization", OLD)], 401),
        (vec![("x-api-key", "trainer")], 401),
    ] {
        let (seen, answered) = ask(&url, &headers).await;
        assert_eq!(seen, status, "{headers:?}");
        assert_eq!(answered.contains_key("www-authenticate"), status == 401);
    }
    for (path, status) in [
        ("/livez", 200),
        ("/readyz", 200),
        ("/health", 200),
        ("/info", 401),
        ("/openapi.json", 401),
    ] {
        let response = client().get(format!("{url}{path}")).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{path}");
    }
    // A bad file changes nothing; a good one replaces the keys without a restart.
    fs::write(&keys, "short").unwrap();
    let reply = post_bytes_to(&retriever.operators_url(), "/admin/reload", Vec::new()).await;
    assert_eq!(reply.status, 500);
    assert!(
        reply.body["detail"].as_str().unwrap().contains("keys line 1 has a key of 5"),
        "{reply:?}"
    );
    assert_eq!(ask(&url, &[("x-api-key", OLD)]).await.0, 200);
    fs::write(&keys, format!("{NEW}\n")).unwrap();
    let reply = post_bytes_to(&retriever.operators_url(), "/admin/reload", Vec::new()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(ask(&url, &[("x-api-key", NEW)]).await.0, 200);
    assert_eq!(ask(&url, &[("x-api-key", OLD)]).await.0, 401);
}

#[test]
fn bad_files_are_named_before_the_start() {
    let corpus = IndexedCorpus::build();
    let (keys, missing) = (corpus.folder().join("keys"), corpus.folder().join("missing.pem"));
    fs::write(&keys, "secret").unwrap();
    let index = corpus.index();
    let (code, _, err) = run(&[
        &["check", "--index", text(&index), "--api-keys-file", text(&keys)][..],
        &["--tls-cert", text(&missing), "--tls-key", text(&keys)],
    ]
    .concat());
    assert_eq!(code, 64);
    for part in [
        "RETRIEVER_API_KEYS_FILE",
        "keys line 1 has a key of 6 characters",
        "RETRIEVER_TLS_CERT",
        "missing.pem",
    ] {
        assert!(err.contains(part), "{part} in {err}");
    }
    assert!(!err.contains("secret"), "{err}");
}

/// Writes a new certificate with its key, and returns the certificate.
fn certify(certificate: &Path, key: &Path) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(certificate, cert.pem()).unwrap();
    fs::write(key, signing_key.serialize_pem()).unwrap();
    cert.der().clone()
}

/// Sends a request over TLS and returns the whole response.
fn ask_securely(
    addr: SocketAddr,
    trusted: &CertificateDer<'static>,
    head: &str,
) -> io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut stream = StreamOwned::new(connection, stream);
    write!(
        stream,
        "{head} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    )?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response)
}

#[test]
fn a_server_with_a_certificate_speaks_tls_only_and_takes_a_new_one() {
    let corpus = IndexedCorpus::build();
    let (certificate, key) = (corpus.folder().join("cert.pem"), corpus.folder().join("key.pem"));
    let first = certify(&certificate, &key);
    let variables = [("RETRIEVER_TLS_CERT", text(&certificate)), ("RETRIEVER_TLS_KEY", text(&key))];
    let retriever = RetrieverHandle::start_with(&corpus.index(), 0, &variables);
    let (addr, operators) = (retriever.addr(), retriever.operators_addr());
    let answer = ask_securely(addr, &first, "GET /info").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("passage_count"), "{answer}");
    let mut plain = TcpStream::connect(addr).unwrap();
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    plain.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // The server answers with an alert, or the connection is reset.
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    let second = certify(&certificate, &key);
    let answer = ask_securely(operators, &first, "POST /admin/reload").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(ask_securely(addr, &second, "GET /livez").unwrap().starts_with("HTTP/1.1 200 OK"));
    assert!(ask_securely(addr, &first, "GET /livez").is_err());
}

#[tokio::test]
async fn pages_of_other_web_sites_may_not_ask_unless_they_are_listed() {
    let corpus = IndexedCorpus::build();
    let (listed, other) = ("https://a.example", "https://b.example");
    for (origins, origin, expected) in [
        (None, listed, None),
        (Some("https://a.example,http://localhost:3000"), listed, Some(listed)),
        (Some("https://a.example,http://localhost:3000"), other, None),
        (Some("*"), other, Some("*")),
    ] {
        let variables: Vec<_> =
            origins.map(|origins| ("RETRIEVER_CORS_ORIGINS", origins)).into_iter().collect();
        let retriever = RetrieverHandle::start_with(&corpus.index(), 0, &variables);
        let url = retriever.url();
        let (status, answered) = ask(&url, &[("origin", origin)]).await;
        let allowed =
            answered.get(ACCESS_CONTROL_ALLOW_ORIGIN).map(|value| value.to_str().unwrap());
        assert_eq!((status, allowed), (200, expected), "{origins:?} {origin}");
        let request = client()
            .request(Method::OPTIONS, format!("{url}/retrieve"))
            .header(ORIGIN, origin)
            .header(
                HeaderName::from_static("access-control-request-method"),
                HeaderValue::from_static("POST"),
            );
        let preflight = request.send().await.unwrap();
        assert_eq!(preflight.status().as_u16(), if origins.is_some() { 200 } else { 405 });
        assert_eq!(
            preflight.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN),
            expected.is_some()
        );
    }
}
