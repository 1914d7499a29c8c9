//! A retriever behind TLS: it is queried if its certificate is trusted and refused otherwise. Trust depends on
//! the environment, so this test program sends its queries from a separate process.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rcgen::CertifiedKey;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, Stream};
use shared::contract::client::{ClientConfig, RetrieveClient};
use shared::contract::retry::RetryPolicy;

/// The variable with the retriever's URL for the separate process.
const URL_VARIABLE: &str = "RETRIEVER_TEST_TLS_URL";
const TEST: &str = "tls::a_retriever_is_queried_if_its_certificate_is_trusted";
const BODY: &str = r#"{"result": [[{"document": {"id": "7", "contents": "Ulm\nUlm has a minster."}, "score": 1.5}]]}"#;

/// Answers `requests` requests over TLS; a failed handshake counts as one.
fn serve(listener: &TcpListener, config: &Arc<ServerConfig>, requests: usize) {
    for _ in 0..requests {
        let (mut socket, _) = listener.accept().unwrap();
        let mut connection = ServerConnection::new(Arc::clone(config)).unwrap();
        let mut stream = Stream::new(&mut connection, &mut socket);
        let mut request = Vec::new();
        let mut part = [0; 4096];
        while !request.ends_with(b"}") {
            match stream.read(&mut part) {
                Ok(count) if count > 0 => request.extend_from_slice(&part[..count]),
                _ => break,
            }
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
        // A client without trust has closed the connection.
        let _ = write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{BODY}", BODY.len());
        stream.conn.send_close_notify();
        let _ = stream.flush();
    }
}

/// Queries `url` from a process that trusts the certificates in `trusted`. Returns its output.
fn ask(url: &str, trusted: &Path) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(URL_VARIABLE, url)
        .env("SSL_CERT_FILE", trusted)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// Queries the retriever and prints the result, in the separate process.
fn report(url: &str) {
    // The pause before a second attempt is longer than the deadline.
    let pause = Duration::from_mins(4);
    let retry = RetryPolicy { first_pause: pause, max_pause: pause, deadline: pause / 4 };
    let client = RetrieveClient::new(ClientConfig { retry, ..ClientConfig::new(url) }).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(client.retrieve(&["Ulm".to_owned()], 1));
    std::io::stdout().write_all(format!("{answer:?}\n").as_bytes()).unwrap();
}

#[test]
fn a_retriever_is_queried_if_its_certificate_is_trusted() {
    if let Ok(url) = std::env::var(URL_VARIABLE) {
        return report(&url);
    }
    let folder = tempfile::tempdir().unwrap();
    let generate = |name: &str| {
        let generated = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let path = folder.path().join(name);
        fs::write(&path, generated.cert.pem()).unwrap();
        (generated, path)
    };
    let (CertifiedKey { cert, signing_key }, own) = generate("own.pem");
    let (_, other) = generate("other.pem");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let config = Arc::new(config);
    let server = thread::spawn(move || serve(&listener, &config, 2));
    let answer = ask(&url, &own);
    assert!(answer.contains("Ulm has a minster."), "{answer}");
    let refusal = ask(&url, &other);
    assert!(!refusal.contains("minster") && refusal.contains("certificate"), "{refusal}");
    server.join().unwrap();
}
