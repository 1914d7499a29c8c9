//! A collector of OTLP over HTTP, which keeps the spans that it receives.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message;

/// A received span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReceivedSpan {
    pub(crate) service: String,
    pub(crate) trace: Vec<u8>,
    pub(crate) id: Vec<u8>,
    /// The id of the span above; empty for the first of a trace.
    pub(crate) parent: Vec<u8>,
    pub(crate) name: String,
    pub(crate) has_failed: bool,
}

/// A collector on a free port. Its thread ends with the process.
pub(crate) struct FakeCollector {
    url: String,
    spans: Arc<Mutex<Vec<ReceivedSpan>>>,
}

impl FakeCollector {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let spans = Arc::<Mutex<Vec<ReceivedSpan>>>::default();
        let received = Arc::clone(&spans);
        thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), &received);
            }
        });
        Self { url, spans }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn spans(&self) -> Vec<ReceivedSpan> {
        self.spans.lock().unwrap().clone()
    }
}

/// Receives the spans of one request, then answers it: a sender may ask for them as soon as it has the answer.
fn answer(mut stream: TcpStream, received: &Mutex<Vec<ReceivedSpan>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    reader.read_line(&mut head).unwrap();
    assert!(head.starts_with("POST /v1/traces HTTP/1.1"), "{head}");
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    let request = ExportTraceServiceRequest::decode(&body[..]).unwrap();
    let mut spans = Vec::new();
    for resource in request.resource_spans {
        let attributes = resource.resource.unwrap().attributes;
        let name = attributes.into_iter().find(|pair| pair.key == "service.name").unwrap();
        let Some(Value::StringValue(service)) = name.value.unwrap().value else {
            panic!("no name")
        };
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.push(ReceivedSpan {
                service: service.clone(),
                trace: span.trace_id,
                id: span.span_id,
                parent: span.parent_span_id,
                name: span.name,
                has_failed: span.status.is_some_and(|status| status.code == 2),
            });
        }
    }
    received.lock().unwrap().extend(spans);
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf";
    write!(stream, "{head}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").unwrap();
}
