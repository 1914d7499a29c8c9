//! A retriever behind TLS: asked where its certificate is trusted, and refused where it is not. What is
//! trusted is a matter of the environment, so that this test program asks in a process of its own.

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
use shared::client::{ClientConfig, RetrieveClient};
use shared::retry::RetryPolicy;

/// Names the retriever to the process that asks it.
const URL_VARIABLE: &str = "RETRIEVER_TEST_TLS_URL";
const TEST: &str = "tls::a_retriever_is_asked_where_its_certificate_is_trusted";
const BODY: &str = r#"{"result": [[{"document": {"id": "7", "contents": "Ulm\nUlm has a minster."}, "score": 1.5}]]}"#;

/// Answers as many requests as are expected, by HTTP over TLS; a handshake that fails is one of them.
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
        // A client that trusts nothing here has gone.
        let _ = write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{BODY}", BODY.len());
        stream.conn.send_close_notify();
        let _ = stream.flush();
    }
}

/// What the process printed that asked `url` and trusts the certificates in `trusted`.
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

/// The process that asks.
fn report(url: &str) {
    // The pause before a second attempt would end after the deadline.
    let pause = Duration::from_mins(4);
    let retry = RetryPolicy { first_pause: pause, max_pause: pause, deadline: pause / 4 };
    let client = RetrieveClient::new(ClientConfig { retry, ..ClientConfig::new(url) }).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(client.retrieve(&["Ulm".to_owned()], 1));
    std::io::stdout().write_all(format!("{answer:?}\n").as_bytes()).unwrap();
}

#[test]
fn a_retriever_is_asked_where_its_certificate_is_trusted() {
    if let Ok(url) = std::env::var(URL_VARIABLE) {
        return report(&url);
    }
    let folder = tempfile::tempdir().unwrap();
    let made = |name: &str| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let path = folder.path().join(name);
        fs::write(&path, made.cert.pem()).unwrap();
        (made, path)
    };
    let (CertifiedKey { cert, signing_key }, own) = made("own.pem");
    let (_, other) = made("other.pem");
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
