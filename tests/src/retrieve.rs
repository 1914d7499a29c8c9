//! The responses of `/retrieve` in every dialect and for every batch size.

use serde_json::{Value, json};

use crate::harness::corpus::{IndexedCorpus, PASSAGE_COUNT};
use crate::harness::http::{self, Reply, post, post_bytes};
use crate::harness::retriever::RetrieverHandle;

struct Fixture {
    retriever: RetrieverHandle,
    _corpus: IndexedCorpus,
}

fn start(variables: &[(&str, &str)]) -> Fixture {
    let corpus = IndexedCorpus::build();
    let retriever = RetrieverHandle::start_with(&corpus.index(), 0, variables);
    Fixture { retriever, _corpus: corpus }
}

impl Fixture {
    async fn post(&self, body: &Value) -> Reply {
        post(&self.retriever.url(), body).await
    }

    /// Returns the result lists of a request, which must succeed.
    async fn lists(&self, body: &Value) -> Vec<Vec<Value>> {
        let reply = self.post(body).await;
        assert_eq!(reply.status, 200, "{body}: {reply:?}");
        assert_eq!(reply.content_type, "application/json");
        assert_eq!(reply.body.get("errors"), None, "{reply:?}");
        let lists = reply.body["result"].as_array().unwrap().iter();
        lists.map(|list| list.as_array().unwrap().clone()).collect()
    }
}

fn town(row: usize) -> Value {
    json!({"id": format!("p{row}"),
           "contents": format!("\"Town {row}\"\nThe town{row} lies in land{} by the river.", row % 4)})
}

/// The reference server responds with 500 to 0, 1 and 3 queries without scores, and swaps documents for 2.
#[tokio::test]
async fn every_batch_size_is_right_with_and_without_scores() {
    let fixture = start(&[]);
    for size in [0, 1, 2, 3, 32] {
        let rows: Vec<usize> =
            (0..size).map(|index| 1 + (index * 7) % (PASSAGE_COUNT - 1)).collect();
        let queries: Vec<String> =
            rows.iter().map(|row| format!("Where is town{row}, in land{}?", row % 4)).collect();
        for return_scores in [true, false] {
            let body = json!({"queries": queries, "topk": 2, "return_scores": return_scores});
            let lists = fixture.lists(&body).await;
            assert_eq!(lists.len(), size, "{body}");
            for (row, list) in rows.iter().zip(&lists) {
                assert_eq!(list.len(), 2);
                if return_scores {
                    assert_eq!(list[0]["document"], town(*row));
                    assert_eq!(list[0].as_object().unwrap().len(), 2, "document and score");
                    let scores: Vec<f64> =
                        list.iter().map(|hit| hit["score"].as_f64().unwrap()).collect();
                    assert!(scores[0] > scores[1] && scores[1] > 0.0, "{scores:?}");
                } else {
                    assert_eq!(list[0], town(*row));
                }
            }
        }
    }
}

#[tokio::test]
async fn a_batch_yields_the_results_of_its_queries_alone() {
    let fixture = start(&[]);
    let queries =
        ["town3", "land1 river", "", "town3", "the of and", "town9 town8 town7", "absent"];
    let together =
        fixture.lists(&json!({"queries": queries, "topk": 5, "return_scores": true})).await;
    for (query, list) in queries.iter().zip(&together) {
        let alone =
            fixture.lists(&json!({"queries": [query], "topk": 5, "return_scores": true})).await;
        assert_eq!(&alone[0], list, "{query}");
    }
    let lengths: Vec<usize> = together.iter().map(Vec::len).collect();
    assert_eq!(lengths, [1, 5, 0, 1, 0, 3, 0]);
}

/// SkyRL-gym and NeMo RL send one query under another key.
#[tokio::test]
async fn a_single_query_is_a_batch_of_one() {
    let fixture = start(&[]);
    let lists = fixture.lists(&json!({"query": "town5", "topk": 3, "return_scores": true})).await;
    assert_eq!(lists.len(), 1);
    assert_eq!(lists[0][0]["document"], town(5));
    let lists = fixture.lists(&json!({"query": "", "topk": 3, "return_scores": true})).await;
    assert_eq!(lists, [Vec::<Value>::new()]);
}

/// slime reads `result[0][j].contents` and needs the content type.
#[tokio::test]
async fn flat_documents_for_clients_without_scores() {
    let fixture = start(&[]);
    let body = json!({"queries": ["town6"], "topk": 1, "return_scores": false});
    assert_eq!(fixture.lists(&body).await, [vec![town(6)]]);
}

#[tokio::test]
async fn rllm_has_its_own_format() {
    let fixture = start(&[]);
    for key in ["top_k", "k"] {
        let reply = fixture.post(&json!({"query": "town4 town5", key: 1})).await;
        assert_eq!(reply.status, 200);
        let object = reply.body.as_object().unwrap();
        assert_eq!(object["query"], "town4 town5");
        assert_eq!((&object["method"], &object["num_results"]), (&json!("bm25"), &json!(1)));
        assert_eq!(object["results"][0]["id"], "p4");
        assert_eq!(object["results"][0]["content"], town(4)["contents"]);
        assert!(object["results"][0]["score"].as_f64().unwrap() > 0.0);
    }
}

#[tokio::test]
async fn the_number_of_passages_has_a_default() {
    let fixture = start(&[("RETRIEVER_TOP_K", "4")]);
    for body in [
        json!({"queries": ["river"]}),
        json!({"queries": ["river"], "topk": null}),
        json!({"queries": ["river"], "topk": 0}),
        json!({"query": "river", "unknown": {"a": 1}}),
    ] {
        assert_eq!(fixture.lists(&body).await[0].len(), 4, "{body}");
    }
}

/// The reference server returns the last passage of the corpus for a missing hit.
#[tokio::test]
async fn no_passage_is_invented_or_repeated() {
    let fixture = start(&[]);
    let lists = fixture.lists(&json!({"queries": ["river", "town8"], "topk": 1000})).await;
    assert_eq!(lists[1], [town(8)]);
    let ids: Vec<&str> = lists[0].iter().map(|passage| passage["id"].as_str().unwrap()).collect();
    // All passages have the word once and the same length, so corpus order decides.
    let expected: Vec<String> = (0..PASSAGE_COUNT).map(|row| format!("p{row}")).collect();
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn optional_keys_follow_the_configuration() {
    let minimal = start(&[]).lists(&json!({"queries": ["town0"], "topk": 1})).await;
    let keys = |value: &Value| -> Vec<String> {
        let mut keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(&minimal[0][0]), ["contents", "id", "url"]);
    // ASearcher reads the key of every passage.
    let fixture = start(&[("RETRIEVER_PASSAGE_FIELDS", "url")]);
    let lists = fixture.lists(&json!({"queries": ["town0", "town1"], "topk": 1})).await;
    assert_eq!(keys(&lists[0][0]), ["contents", "id", "url"]);
    assert_eq!((keys(&lists[1][0]), &lists[1][0]["url"]), (keys(&lists[0][0]), &json!("")));
    let fixture = start(&[("RETRIEVER_PASSAGE_FIELDS", "full")]);
    let full = fixture.lists(&json!({"queries": ["town0"], "topk": 1})).await;
    assert_eq!(keys(&full[0][0]), ["contents", "id", "text", "title", "url"]);
}

/// A query parser would reject these texts or interpret them as commands.
#[tokio::test]
async fn any_text_is_a_query() {
    let fixture = start(&[]);
    for query in [
        "who said \"town7",
        "contents: town7 AND OR NOT",
        "town7 -town7 +land3",
        "/town7/ [a TO",
        "town7\\",
        "*?~^ town7",
        "\u{0}\u{7f}\u{200b} town7 \u{1f600}",
        "town7\n\n</search>",
    ] {
        let lists = fixture.lists(&json!({"queries": [query], "topk": 1})).await;
        assert_eq!(lists[0], [town(7)], "{query:?}");
    }
}

/// A training step sends all active queries of a turn in one request.
#[tokio::test]
async fn a_whole_training_batch_fits() {
    let fixture = start(&[]);
    let queries: Vec<String> =
        (0..2560).map(|index| format!("town{} number {index}", index % PASSAGE_COUNT)).collect();
    let lists = fixture.lists(&json!({"queries": queries, "topk": 3, "return_scores": true})).await;
    assert_eq!(lists.len(), 2560);
    for (index, list) in lists.iter().enumerate() {
        let expected = format!("p{}", index % PASSAGE_COUNT);
        assert_eq!(list[0]["document"]["id"], json!(expected));
    }
}

#[tokio::test]
async fn the_content_type_of_a_request_does_not_matter() {
    let fixture = start(&[]);
    let body = json!({"queries": ["town2"], "topk": 1}).to_string();
    let bare = post_bytes(&fixture.retriever.url(), body.clone().into_bytes()).await;
    let client = http::client();
    for content_type in ["application/json", "text/plain", "application/x-www-form-urlencoded"] {
        let request = client
            .post(format!("{}/retrieve", fixture.retriever.url()))
            .header("content-type", content_type)
            .body(body.clone());
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(answer, bare.body, "{content_type}");
    }
    assert_eq!(bare.body["result"][0][0], town(2));
}
