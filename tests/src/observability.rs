//! The server as operators see it: metrics, traces from the trainer through the server, ids of requests, and the
//! description of the interface.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde_json::{Value, json};
use shared::contract::client::{ClientConfig, RequestHeaders};
use shared::machine::traces::{TraceConfig, Traces};
use trainer::search::http::{HttpSearcher, trace_headers};
use trainer::search::{SearchRequest, Searcher};
use trainer::stop::StopFlag;

use crate::harness::corpus::IndexedCorpus;
use crate::harness::fake_collector::{FakeCollector, ReceivedSpan};
use crate::harness::fake_searxng::FakeSearxng;
use crate::harness::http::{PATIENCE, client, get, post, post_bytes_to, text_of};
use crate::harness::retriever::RetrieverHandle;
use crate::harness::wait::wait_until;

/// Reads a page in the text format of Prometheus: the value of each sample. Fails at what a scraper would refuse.
fn samples(page: &str) -> BTreeMap<String, f64> {
    let (mut types, mut samples) = (BTreeMap::new(), BTreeMap::new());
    let mut helped = BTreeSet::new();
    assert!(page.ends_with('\n'));
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(helped.insert(name) && !help.is_empty(), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(helped.contains(name) && types.insert(name, kind).is_none(), "{line}");
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let name = sample.split('{').next().unwrap();
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let kind = types.get(name).or_else(|| types.get(base.unwrap_or(name)));
            assert!(kind.is_some() && name.starts_with("retriever_"), "{line}");
            assert_eq!(*kind.unwrap() == "counter", name.ends_with("_total"), "{line}");
            assert!(samples.insert(sample.to_owned(), value.parse().unwrap()).is_none(), "{line}");
        }
    }
    samples
}

#[tokio::test]
async fn prometheus_reads_counts_and_latencies() {
    let corpus = IndexedCorpus::build();
    let retriever = RetrieverHandle::start(&corpus.index());
    let url = retriever.url();
    post(&url, &json!({"queries": ["town1", "town2"]})).await;
    post(&url, &json!({"queries": [1]})).await;
    let page = text_of(&url, "/metrics").await;
    let samples = samples(&page);
    for (sample, expected) in [
        ("retriever_request_seconds_count{path=\"/retrieve\"}", 2.0),
        ("retriever_request_seconds_bucket{path=\"/retrieve\",le=\"+Inf\"}", 2.0),
        ("retriever_errors_total{path=\"/retrieve\",code=\"invalid_request\"}", 1.0),
        ("retriever_stage_seconds_count{stage=\"body\"}", 2.0),
        ("retriever_stage_seconds_count{stage=\"search\"}", 1.0),
        ("retriever_stage_seconds_count{stage=\"passages\"}", 1.0),
        ("retriever_stage_seconds_count{stage=\"render\"}", 1.0),
        ("retriever_stage_seconds_count{stage=\"rerank\"}", 0.0),
        ("retriever_queries_total", 2.0),
        ("retriever_queries_failed_total", 0.0),
        ("retriever_requests_in_flight", 0.0),
        ("retriever_ready", 1.0),
        ("retriever_index_passages", 40.0),
    ] {
        assert_eq!(samples.get(sample), Some(&expected), "{sample} in\n{page}");
    }
    // The buckets of a histogram are cumulative.
    let of = |prefix: &str| -> Vec<f64> {
        page.lines()
            .filter(|line| line.starts_with(prefix))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
            .collect()
    };
    let buckets = of("retriever_stage_seconds_bucket{");
    assert!(buckets.len() > 100, "{buckets:?}");
    for stage in buckets.chunks(20) {
        assert!(stage.is_sorted(), "{stage:?}");
    }
}

#[tokio::test]
async fn a_scraper_gets_the_format_that_it_asks_for() {
    let corpus = IndexedCorpus::build();
    let retriever = RetrieverHandle::start(&corpus.index());
    let prometheus =
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;q=0.5";
    for (accept, content_type, has_end) in [
        ("*/*", "text/plain; version=0.0.4; charset=utf-8", false),
        (prometheus, "application/openmetrics-text; version=1.0.0; charset=utf-8", true),
    ] {
        let url = format!("{}/metrics", retriever.operators_url());
        let response = client().get(url).header(ACCEPT, accept).send().await.unwrap();
        assert_eq!(response.headers()[CONTENT_TYPE], content_type);
        let page = response.text().await.unwrap();
        assert_eq!(page.ends_with("# EOF\n"), has_end, "{page}");
        assert_eq!(page.matches("# EOF").count(), usize::from(has_end));
    }
}

#[tokio::test]
async fn a_request_has_an_id() {
    let corpus = IndexedCorpus::build();
    let retriever = RetrieverHandle::start(&corpus.index());
    let url = format!("{}/retrieve", retriever.url());
    let ask = async |id: Option<&str>, body: &'static str| {
        let mut request = client().post(&url).body(body);
        if let Some(id) = id {
            request = request.header("x-request-id", id);
        }
        let response = request.send().await.unwrap();
        response.headers()["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(ask(Some("client-7"), r#"{"queries": []}"#).await, "client-7");
    assert_eq!(ask(Some("client-8"), "no json").await, "client-8");
    let (first, second) = (ask(None, "{}").await, ask(Some("with space"), "{}").await);
    assert!(first.len() == 16 && second.len() == 16 && first != second, "{first} {second}");
}

/// Finds the span with this name of a service, of which there is one.
fn only<'a>(spans: &'a [ReceivedSpan], service: &str, name: &str) -> &'a ReceivedSpan {
    let found: Vec<_> =
        spans.iter().filter(|span| span.service == service && span.name == name).collect();
    assert_eq!(found.len(), 1, "{service} {name} in {spans:?}");
    found[0]
}

/// Sends one query as the trainer does, with traces that go to `collector`, and returns the id of the first passage.
fn search(retriever: &RetrieverHandle, collector: &FakeCollector, query: &str) -> String {
    let config = ClientConfig {
        request_headers: RequestHeaders::new(trace_headers),
        ..ClientConfig::new(&retriever.url())
    };
    let traces = TraceConfig { endpoint: collector.url().to_owned(), sample_ratio: 1.0 };
    let searcher = HttpSearcher::new(config, 4).unwrap();
    let mut searcher = searcher.with_traces(Traces::start("trainer", &traces).unwrap());
    let request = SearchRequest { ticket: 1, query: query.to_owned(), top_k: 2 };
    searcher.submit(vec![request]).unwrap();
    let outcomes = searcher.wait(PATIENCE, &StopFlag::never()).unwrap().unwrap();
    outcomes[0].result.as_ref().unwrap()[0].id.clone()
}

#[test]
fn a_trace_spans_trainer_and_retriever() {
    let (corpus, collector) = (IndexedCorpus::build(), FakeCollector::start());
    let variables = [("RETRIEVER_OTLP_ENDPOINT", collector.url())];
    let retriever = RetrieverHandle::start_with(&corpus.index(), 0, &variables);
    assert_eq!(search(&retriever, &collector, "town7"), "p7");
    // Both have sent their last spans when they have ended.
    retriever.drain();
    let spans = collector.spans();
    let (search, request) =
        (only(&spans, "trainer", "search"), only(&spans, "retriever-server", "/retrieve"));
    assert_eq!((&search.parent[..], &request.parent), (&[][..], &search.id));
    for name in ["body", "parse", "search", "passages", "render"] {
        let stage = only(&spans, "retriever-server", name);
        assert_eq!((&stage.trace, &stage.parent), (&search.trace, &request.id), "{name}");
    }
    assert!(spans.iter().all(|span| !span.has_failed), "{spans:?}");
}

#[test]
fn a_trace_reaches_the_provider_of_web_search() {
    let (provider, collector) = (FakeSearxng::start(), FakeCollector::start());
    let url = provider.url();
    let variables = [
        ("RETRIEVER_OTLP_ENDPOINT", collector.url()),
        ("RETRIEVER_BACKEND", "web"),
        ("RETRIEVER_WEB_PROVIDER", "searxng"),
        ("RETRIEVER_WEB_ENDPOINTS", url.as_str()),
        ("RETRIEVER_WEB_RATES", "1000"),
    ];
    let retriever = RetrieverHandle::start_with(Path::new("unused"), 0, &variables);
    search(&retriever, &collector, "cities");
    search(&retriever, &collector, "cities");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let page = runtime.block_on(text_of(&retriever.url(), "/metrics"));
    let samples = samples(&page);
    for (sample, expected) in [
        ("retriever_cache_lookups_total{outcome=\"miss\"}", 1.0),
        ("retriever_cache_lookups_total{outcome=\"hit\"}", 1.0),
        ("retriever_upstream_calls_total{service=\"searxng\",outcome=\"answered\"}", 1.0),
        ("retriever_upstream_breaker_open{service=\"searxng\"}", 0.0),
    ] {
        assert_eq!(samples.get(sample), Some(&expected), "{sample} in\n{page}");
    }
    retriever.drain();
    let spans = collector.spans();
    let call = only(&spans, "retriever-server", "searxng");
    let request = spans.iter().find(|span| span.id == call.parent).unwrap();
    let search = spans.iter().find(|span| span.id == request.parent).unwrap();
    assert_eq!((request.name.as_str(), search.service.as_str()), ("/retrieve", "trainer"));
    let hex =
        |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    let carried = format!("00-{}-{}-01", hex(&call.trace), hex(&call.id));
    assert_eq!((call.trace == search.trace, provider.traceparents()), (true, vec![carried]));
}

#[tokio::test]
async fn a_client_decides_if_its_request_is_traced() {
    let (corpus, collector) = (IndexedCorpus::build(), FakeCollector::start());
    let variables = [("RETRIEVER_OTLP_ENDPOINT", collector.url()), ("RETRIEVER_TRACE_RATIO", "0")];
    let retriever = RetrieverHandle::start_with(&corpus.index(), 0, &variables);
    let url = format!("{}/retrieve", retriever.url());
    for (trace, flags) in [("1", "00"), ("2", "01"), ("x", "01")] {
        let parent = format!("00-{}-00f067aa0ba902b7-{flags}", trace.repeat(32));
        let request = client().post(&url).header("traceparent", parent).body("no json");
        assert_eq!(request.send().await.unwrap().status(), 422);
    }
    tokio::task::spawn_blocking(|| retriever.drain()).await.unwrap();
    let spans = collector.spans();
    let request = only(&spans, "retriever-server", "/retrieve");
    assert_eq!((&request.trace[..], request.has_failed), (&[0x22; 16][..], true));
    assert_eq!(request.parent, [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
}

#[tokio::test]
async fn a_collector_that_is_gone_delays_no_answer() {
    let corpus = IndexedCorpus::build();
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = format!("http://{gone}");
    let variables = [("RETRIEVER_OTLP_ENDPOINT", endpoint.as_str())];
    let retriever = RetrieverHandle::start_with(&corpus.index(), 0, &variables);
    for _ in 0..20 {
        assert_eq!(post(&retriever.url(), &json!({"queries": ["town1"]})).await.status, 200);
    }
    let count = async || get(&retriever.url(), "/stats").await.body["requests"].clone();
    wait_until(PATIENCE, count, |count| *count == 20).await;
}

/// Fails if `value` has a key that its schema does not describe, or lacks one that the schema requires.
fn conforms(document: &Value, schema: &Value, value: &Value) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.strip_prefix('#').unwrap());
        return conforms(document, target.unwrap_or_else(|| panic!("no {reference}")), value);
    }
    if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
        return values.iter().for_each(|value| conforms(document, items, value));
    }
    let (Some(properties), Some(fields)) = (schema["properties"].as_object(), value.as_object())
    else {
        return;
    };
    for (key, value) in fields {
        conforms(
            document,
            properties.get(key).unwrap_or_else(|| panic!("{key} in {schema}")),
            value,
        );
    }
    for key in schema["required"].as_array().into_iter().flatten() {
        assert!(fields.contains_key(key.as_str().unwrap()), "{key} in {value}");
    }
}

/// Fails if a reference of the document leads nowhere.
fn references_lead_somewhere(document: &Value, part: &Value) {
    match part {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
            }
            for value in fields.values() {
                references_lead_somewhere(document, value);
            }
        }
        Value::Array(values) => {
            for value in values {
                references_lead_somewhere(document, value);
            }
        }
        _ => {}
    }
}

#[tokio::test]
async fn the_description_fits_the_answers() {
    let corpus = IndexedCorpus::build();
    let retriever = RetrieverHandle::start(&corpus.index());
    let mut described = BTreeSet::new();
    for url in [retriever.url(), retriever.operators_url()] {
        let document = get(&url, "/openapi.json").await.body;
        assert_eq!(document["openapi"], "3.1.0");
        references_lead_somewhere(&document, &document);
        for (path, operations) in document["paths"].as_object().unwrap() {
            described.insert(path.clone());
            let (method, operation) = operations.as_object().unwrap().iter().next().unwrap();
            let is_page =
                operation["responses"]["200"]["content"].get("application/json").is_none();
            if method == "get" && !is_page {
                let reply = get(&url, path).await;
                let content = &operation["responses"]["200"]["content"]["application/json"];
                assert_eq!(reply.status, 200, "{path}");
                conforms(&document, &content["schema"], &reply.body);
            }
        }
        let has_search = document["paths"].get("/retrieve").is_some();
        assert_eq!(has_search, url == retriever.url());
        if has_search {
            let body = json!({"queries": ["town0"], "topk": 1, "return_scores": true});
            let schemas = "/components/schemas/";
            let schema = |name: &str| document.pointer(&format!("{schemas}{name}")).unwrap();
            conforms(&document, schema("RetrieveResponse"), &post(&url, &body).await.body);
            let invalid = post(&url, &json!({"queries": [1]})).await.body;
            conforms(&document, schema("ValidationErrors"), &invalid);
            assert_eq!(schema("ManyQueries")["properties"]["queries"]["maxItems"], 4096);
            assert!(document["paths"].get("/rerank").is_none(), "there is no re-ranker");
            for (path, body) in [
                ("/search", json!({"query": "town0", "top_n": 2})),
                ("/search", json!({"query": "town0", "return_score": true})),
                ("/batch_search", json!({"query": ["town0", "town1"]})),
                ("/batch_search", json!({"query": ["town0"], "return_score": true})),
                ("/queries", json!({"queries": ["town0"], "k": 2})),
                ("/access", json!({"urls": ["nowhere"]})),
            ] {
                let operation = &document["paths"][path]["post"];
                let content = |part: &Value| part["content"]["application/json"]["schema"].clone();
                conforms(&document, &content(&operation["requestBody"]), &body);
                let reply = post_bytes_to(&url, path, body.to_string().into_bytes()).await;
                assert_eq!(reply.status, 200, "{path}: {reply:?}");
                conforms(&document, &content(&operation["responses"]["200"]), &reply.body);
            }
            for (schema, list) in
                [("BatchSearchBody", "query"), ("QueriesBody", "queries"), ("AccessBody", "urls")]
            {
                let list = &document["components"]["schemas"][schema]["properties"][list];
                assert_eq!(list["maxItems"], 4096, "{schema}");
            }
        }
    }
    for path in ["/search", "/batch_search", "/queries", "/access"] {
        assert!(described.contains(path), "{path} in {described:?}");
    }
    for path in ["/retrieve", "/livez", "/readyz", "/info", "/stats", "/metrics", "/admin/reload"] {
        assert!(described.contains(path), "{path} in {described:?}");
    }
}
