//! Traces: spans of requests with the services that they pass, sent to a collector over OTLP (HTTP, protobuf).
//!
//! Owns the exporter, with a thread and a bounded queue of its own: a request never waits for the collector, and spans
//! that do not fit are dropped. The context travels in the headers `traceparent` and `tracestate` of the W3C. A service
//! without a collector passes the context of a request on unchanged.

use std::borrow::Cow;
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use thiserror::Error;

/// The header with the ids of trace and span.
pub const TRACEPARENT: &str = "traceparent";
/// The header with what other tracing systems add.
pub const TRACESTATE: &str = "tracestate";

/// The path of a collector that takes traces.
const PATH: &str = "/v1/traces";
/// The longest wait for the collector, for one batch and at the end.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// The collector, and the share of requests that are traced.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceConfig {
    /// Address of the collector: `http://host:4318`, with or without `/v1/traces`.
    pub endpoint: String,
    /// The share of traces that are recorded, from 0 to 1. A request that carries the decision of its client keeps it.
    pub sample_ratio: f64,
}

/// The reason why traces cannot be exported.
#[derive(Debug, Error)]
pub enum TracesError {
    /// The exporter refuses its settings.
    #[error("cannot export traces to {endpoint}: {reason}")]
    Exporter {
        /// The address of the collector.
        endpoint: String,
        /// The reason.
        reason: String,
    },
}

/// The place of a span between two services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It answers a request.
    Server,
    /// It waits for the answer of another service.
    Client,
    /// It is work within a service.
    Internal,
}

impl From<Role> for SpanKind {
    fn from(role: Role) -> Self {
        match role {
            Role::Server => Self::Server,
            Role::Client => Self::Client,
            Role::Internal => Self::Internal,
        }
    }
}

/// The origin of spans. Clones share the exporter.
#[derive(Clone, Debug, Default)]
pub struct Traces {
    exporting: Option<(SdkTracerProvider, SdkTracer)>,
}

impl Traces {
    /// Returns an origin whose spans are not recorded.
    pub fn off() -> Self {
        Self::default()
    }

    /// Starts the exporter of a service. It connects when the first spans are sent.
    ///
    /// # Errors
    /// An address that is not a URL, or an HTTP client that cannot be set up.
    pub fn start(service: &'static str, config: &TraceConfig) -> Result<Self, TracesError> {
        let endpoint = with_path(&config.endpoint);
        let failed = |reason: String| TracesError::Exporter { endpoint: endpoint.clone(), reason };
        // The blocking client starts a runtime, which must not happen on a thread of another one.
        let client = std::thread::spawn(|| {
            super::http::prepare_tls();
            reqwest::blocking::Client::builder().timeout(EXPORT_TIMEOUT).build()
        });
        let client = client.join().map_err(|_| failed("its thread panicked".to_owned()))?;
        let client = client.map_err(|error| failed(super::http::with_causes(&error)))?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(&endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let sampler = Sampler::TraceIdRatioBased(config.sample_ratio);
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(sampler)))
            .with_resource(Resource::builder().with_service_name(service).build())
            .build();
        let tracer = provider.tracer(service);
        Ok(Self { exporting: Some((provider, tracer)) })
    }

    /// Begins a span without a parent: a new trace.
    pub fn root(&self, name: &'static str, role: Role) -> Span {
        match &self.exporting {
            Some((_, tracer)) => begin(tracer, &Context::new(), name, role),
            None => Span::default(),
        }
    }

    /// Begins a span of the trace that a request belongs to by its headers, or of a new one if they name none.
    pub fn continued(&self, headers: &dyn Headers, name: &'static str, role: Role) -> Span {
        let is_named = headers.header(TRACEPARENT).is_some();
        if self.exporting.is_none() && !is_named {
            return Span::default();
        }
        let propagator = TraceContextPropagator::new();
        let parent = propagator.extract_with_context(&Context::new(), &Carried(headers));
        match &self.exporting {
            Some((_, tracer)) => begin(tracer, &parent, name, role),
            None => Span { context: Some(parent), tracer: None },
        }
    }

    /// Sends the spans that ended. It blocks for at most some seconds; later spans are lost.
    pub fn end(&self) {
        if let Some((provider, _)) = &self.exporting
            && let Err(error) = provider.shutdown_with_timeout(EXPORT_TIMEOUT)
        {
            tracing::warn!(%error, "the last spans could not be sent to the collector");
        }
    }
}

/// The headers of a request, by their names.
pub trait Headers {
    /// Returns the value of a header, if there is one and it is text.
    fn header(&self, name: &str) -> Option<&str>;
}

/// A span. It ends when its last clone is dropped; the default is a span that is not recorded.
#[derive(Clone, Debug, Default)]
pub struct Span {
    context: Option<Context>,
    /// The tracer of children; `None` if the span is not recorded.
    tracer: Option<SdkTracer>,
}

impl Span {
    /// Returns `true` if the span will be sent to a collector.
    pub fn is_recorded(&self) -> bool {
        self.tracer.is_some()
    }

    /// Returns the id of the trace as 32 hexadecimal digits, if the span belongs to one.
    pub fn trace_id(&self) -> Option<String> {
        let context = self.context.as_ref()?;
        let span = context.span();
        let ids = span.span_context();
        ids.is_valid().then(|| ids.trace_id().to_string())
    }

    /// Returns the headers that carry the context to another service: names and values, none if there is no context.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = Sent(Vec::new());
        if let Some(context) = &self.context {
            TraceContextPropagator::new().inject_context(context, &mut headers);
        }
        headers.0
    }

    /// Begins a span of work for this one. Without a recorder, it is this one.
    #[must_use]
    pub fn child(&self, name: &'static str, role: Role) -> Self {
        match (&self.tracer, &self.context) {
            (Some(tracer), Some(context)) => begin(tracer, context, name, role),
            _ => self.clone(),
        }
    }

    /// Records work for this span that began at `began` and ends now.
    pub fn record(&self, name: &'static str, began: Instant) {
        if let (Some(tracer), Some(context)) = (&self.tracer, &self.context) {
            let start =
                SystemTime::now().checked_sub(began.elapsed()).unwrap_or_else(SystemTime::now);
            let builder = tracer.span_builder(name).with_kind(SpanKind::Internal);
            drop(builder.with_start_time(start).start_with_context(tracer, context));
        }
    }

    /// Adds a fact to the span.
    pub fn set(&self, key: &'static str, value: impl Into<opentelemetry::Value>) {
        if let (Some(_), Some(context)) = (&self.tracer, &self.context) {
            context.span().set_attribute(KeyValue::new(key, value));
        }
    }

    /// Marks the span as failed.
    pub fn fail(&self, reason: impl Into<Cow<'static, str>>) {
        if let (Some(_), Some(context)) = (&self.tracer, &self.context) {
            context.span().set_status(Status::error(reason));
        }
    }
}

/// Begins a span. One that the sampler leaves out only carries the context.
fn begin(tracer: &SdkTracer, parent: &Context, name: &'static str, role: Role) -> Span {
    let builder = tracer.span_builder(name).with_kind(role.into());
    let context = parent.with_span(builder.start_with_context(tracer, parent));
    let tracer = context.span().is_recording().then(|| tracer.clone());
    Span { context: Some(context), tracer }
}

/// Returns the address that takes traces.
fn with_path(endpoint: &str) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    if endpoint.ends_with(PATH) { endpoint.to_owned() } else { format!("{endpoint}{PATH}") }
}

/// Headers as the propagator reads them.
struct Carried<'a>(&'a dyn Headers);

impl Extractor for Carried<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.header(key)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT, TRACESTATE]
    }
}

/// Headers as the propagator writes them.
struct Sent(Vec<(&'static str, String)>);

impl Injector for Sent {
    fn set(&mut self, key: &str, value: String) {
        let name = if key == TRACEPARENT { TRACEPARENT } else { TRACESTATE };
        if !value.is_empty() {
            self.0.push((name, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct One(&'static str);

    impl Headers for One {
        fn header(&self, name: &str) -> Option<&str> {
            (name == TRACEPARENT).then_some(self.0)
        }
    }

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn without_a_collector_the_context_is_passed_on() {
        let span = Traces::off().continued(&One(PARENT), "request", Role::Server);
        assert!(!span.is_recorded());
        assert_eq!(span.trace_id().unwrap(), "0af7651916cd43dd8448eb211c80319c");
        let passed_on = span.child("provider", Role::Client).headers();
        assert_eq!(passed_on, [(TRACEPARENT, PARENT.to_owned())]);
    }

    #[test]
    fn a_malformed_context_is_none() {
        for text in ["", "00-0-0-01", "00-00000000000000000000000000000000-b7ad6b7169203331-01"] {
            let span = Traces::off().continued(&One(text), "request", Role::Server);
            assert_eq!((span.trace_id(), span.headers()), (None, Vec::new()), "{text}");
        }
        assert_eq!(Traces::off().root("request", Role::Server).headers(), Vec::new());
    }

    #[test]
    fn the_path_is_added_once() {
        for endpoint in ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces"] {
            assert_eq!(with_path(endpoint), "http://c:4318/v1/traces");
        }
    }
}
