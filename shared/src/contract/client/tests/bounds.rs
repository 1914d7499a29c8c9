//! Bounds of requests and answers.

use super::*;

#[tokio::test]
async fn long_lists_go_out_in_several_requests() {
    let replies =
        vec![passages(&[&["a"], &["b"]]), passages(&[&["c"], &["d"]]), passages(&[&["e"]])];
    let (script, client) = scripted(replies).await;
    let config = ClientConfig { max_request_queries: 2, ..client.config.clone() };
    let client = RetrieveClient::new(config).unwrap();
    let results = client.retrieve(&queries(&["1", "2", "3", "4", "5"]), 1).await;
    let answered: Vec<&str> = results.iter().flat_map(ids).collect();
    assert_eq!(answered, ["a", "b", "c", "d", "e"]);
    assert_eq!(script.requests()[2]["queries"], json!(["5"]));
}

#[tokio::test]
async fn an_answer_beyond_the_limit_is_refused() {
    let (_, client) = scripted(vec![passages(&[&["a long passage"]])]).await;
    let config = ClientConfig { max_response_bytes: 20, ..client.config.clone() };
    let client = RetrieveClient::new(config).unwrap();
    let results = client.retrieve(&queries(&["q"]), 1).await;
    let Err(SearchError::Malformed { reason, .. }) = &results[0] else { panic!("{results:?}") };
    assert!(reason.contains("20 bytes"), "{reason}");
}
