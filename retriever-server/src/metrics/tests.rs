use super::*;

fn moment() -> Moment {
    let index = Some(("ab".to_owned(), 40));
    Moment { requests_in_flight: 3, is_ready: true, backend: "bm25", index, ..Moment::default() }
}

#[test]
fn both_formats_have_every_number() {
    let metrics = Arc::new(Metrics::default());
    let began = Instant::now();
    metrics.request(Route::Retrieve, began, None);
    metrics.request(Route::Retrieve, began, Some("overloaded"));
    metrics.stage(Stage::Search, began);
    metrics.batch_queries.observe(7);
    metrics.reload(false);
    metrics.call("serper", "answered", false);
    metrics.call("serper", "failed", true);
    metrics.lookup(true);
    let text = metrics.page(moment(), Format::Text);
    for line in [
        "retriever_request_seconds_count{path=\"/retrieve\"} 2",
        "retriever_request_seconds_count{path=\"/rerank\"} 0",
        "retriever_stage_seconds_count{stage=\"search\"} 1",
        "retriever_errors_total{path=\"/retrieve\",code=\"overloaded\"} 1",
        "retriever_batch_queries_bucket{le=\"8\"} 1",
        "retriever_batch_queries_sum 7.0",
        "retriever_requests_in_flight 3",
        "retriever_reloads_total{outcome=\"failure\"} 1",
        "retriever_upstream_calls_total{service=\"serper\",outcome=\"failed\"} 1",
        "retriever_upstream_breaker_open{service=\"serper\"} 1",
        "retriever_cache_lookups_total{outcome=\"hit\"} 1",
        "retriever_ready 1",
        "retriever_index_passages 40",
        "# TYPE retriever_request_seconds histogram",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("# EOF"), "{text}");
    let open = metrics.page(moment(), Format::OpenMetrics);
    assert!(
        open.ends_with("# EOF\n") && open.contains("# TYPE retriever_errors counter"),
        "{open}"
    );
}

#[test]
fn a_client_chooses_the_format() {
    for (accept, format) in [
        ("", Format::Text),
        ("text/plain;version=0.0.4", Format::Text),
        ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", Format::OpenMetrics),
    ] {
        assert_eq!(Format::accepted(accept), format, "{accept}");
    }
}
