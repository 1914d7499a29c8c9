//! The `web` back end over HTTP: results, no results, and failures, which are never empty lists.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::fake_searxng::FakeSearxng;
use crate::harness::http::{get, post};
use crate::harness::retriever::RetrieverHandle;

fn start(fake: &FakeSearxng, more: &[(&str, &str)]) -> RetrieverHandle {
    let url = fake.url();
    let mut variables = vec![
        ("RETRIEVER_BACKEND", "web"),
        ("RETRIEVER_WEB_PROVIDER", "searxng"),
        ("RETRIEVER_WEB_ENDPOINTS", url.as_str()),
        ("RETRIEVER_WEB_RATES", "1000"),
    ];
    variables.extend(more);
    RetrieverHandle::start_with(Path::new("unused"), 0, &variables)
}

#[tokio::test]
async fn results_are_passages_with_their_addresses() {
    let fake = FakeSearxng::start();
    let retriever = start(&fake, &[("RETRIEVER_PASSAGE_FIELDS", "full")]);
    let body = json!({"queries": ["cities", "cities"], "topk": 2, "return_scores": true});
    let reply = post(&retriever.url(), &body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let lima = format!("{}/lima", fake.url());
    let expected = json!([
        {"document": {"id": lima, "contents": "\"Lima\"\nA city in Peru.", "title": "Lima",
                      "text": "A city in Peru.", "url": lima}, "score": 1.0},
        {"document": {"id": "https://quito.invalid/", "text": "A city in Ecuador.",
                      "contents": "\"quito.invalid\"\nA city in Ecuador.",
                      "url": "https://quito.invalid/"}, "score": 0.5},
    ]);
    assert_eq!(reply.body["result"], json!([expected, expected]));
    assert_eq!(fake.searches(), 1);
    let info = get(&retriever.url(), "/info").await.body;
    assert_eq!((&info["backend"], &info["passage_count"]), (&json!("web"), &Value::Null));
}

#[tokio::test]
async fn no_results_differ_from_a_failure_and_from_a_refusal() {
    let fake = FakeSearxng::start();
    let retriever = start(&fake, &[("RETRIEVER_DEADLINE_MS", "700")]);
    let url = retriever.url();
    let nothing = post(&url, &json!({"queries": ["nothing"]})).await;
    assert_eq!((nothing.status, &nothing.body["result"]), (200, &json!([[]])));
    let broken = post(&url, &json!({"queries": ["broken", "cities"]})).await;
    assert_eq!((broken.status, &broken.body["code"]), (503, &json!("upstream_failed")));
    assert!(broken.retry_after.is_some() && broken.body["result"].is_null());
    let partial = json!({"queries": ["cities", "broken"], "topk": 1, "partial": true});
    let partial = post(&url, &partial).await;
    assert_eq!(partial.status, 200, "{partial:?}");
    let error = json!([{"index": 1, "code": "upstream_failed", "retryable": true}]);
    assert_eq!(partial.body["errors"], error);
    let refused = post(&url, &json!({"queries": ["refused"]})).await;
    assert_eq!((refused.status, &refused.body["code"]), (424, &json!("upstream_refused")));
}

#[tokio::test]
async fn answers_outlast_the_death_of_the_server_and_of_the_provider() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache.redb");
    let cache = [("RETRIEVER_WEB_CACHE", cache.to_str().unwrap())];
    let fake = FakeSearxng::start();
    let retriever = start(&fake, &cache);
    let body = json!({"queries": ["cities"]});
    let first = post(&retriever.url(), &body).await;
    retriever.drain();
    let retriever = start(&fake, &cache);
    assert_eq!(post(&retriever.url(), &body).await.body, first.body);
    assert_eq!(fake.searches(), 1);
}

#[tokio::test]
async fn pages_of_this_machine_are_not_read() {
    let fake = FakeSearxng::start();
    let retriever = start(&fake, &[("RETRIEVER_WEB_PAGES", "true")]);
    let reply = post(&retriever.url(), &json!({"queries": ["cities"], "topk": 1})).await;
    assert_eq!(reply.body["result"][0][0]["contents"], "\"Lima\"\nA city in Peru.");
    assert_eq!((fake.searches(), fake.pages()), (1, 0));
}
