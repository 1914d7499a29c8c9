//! Tests of the client with several servers.

use axum::http::HeaderMap;

use super::fake::{Conduct, Fake, LONG, PATIENCE, pass, search, search_many};
use super::*;
use crate::contract::client::{RequestHeaders, TIMEOUT_HEADER};

/// More requests than the client needs to know how long answers take.
const MANY: usize = 25;

/// Two servers and their client.
struct Pair {
    a: Fake,
    b: Fake,
    urls: [String; 2],
    client: RetrieveClient,
}

impl Pair {
    async fn start(adjust: fn(&mut ClientConfig)) -> Self {
        let ((a, url_a), (b, url_b)) = (Fake::start("a").await, Fake::start("b").await);
        let mut config = config(&format!("{url_a}, {url_b}"));
        config.attempt_timeout = None;
        adjust(&mut config);
        let urls = [url_a, url_b].map(|url| format!("{url}/retrieve"));
        Self { a, b, urls, client: RetrieveClient::new(config).unwrap() }
    }
}

#[tokio::test]
async fn servers_take_turns() {
    let pair = Pair::start(|config| config.hedge_percent = 0).await;
    assert_eq!(search_many(&pair.client, 8).await, "abababab");
}

#[tokio::test]
async fn a_busy_server_gets_less() {
    let pair = Pair::start(|config| config.hedge_percent = 0).await;
    pair.a.behave(Conduct::Hang);
    let (asked, client) = (queries(&["q"]), pair.client.clone());
    let mut pending = Box::pin(client.retrieve(&asked, 1));
    tokio::select! {
        results = &mut pending => panic!("{results:?}"),
        () = pair.a.0.arrived.notified() => {}
    }
    assert_eq!(search_many(&pair.client, 6).await, "bbbbbb");
    pair.a.behave(Conduct::Answer);
    drop(pending);
    let later = search_many(&pair.client, 6).await;
    assert!(later.contains('a') && later.contains('b'), "{later}");
}

/// `Retry-After` is an hour, and the deadline a minute: whoever waits for the first server fails.
#[tokio::test]
async fn a_busy_server_sends_the_request_to_another_at_once_and_is_passed_over() {
    for conduct in
        [Conduct::Refuse(503, "3600"), Conduct::Refuse(500, "20"), Conduct::Refuse(429, "9")]
    {
        let pair = Pair::start(|config| config.hedge_percent = 0).await;
        pair.a.behave(conduct);
        assert_eq!(search_many(&pair.client, 5).await, "bbbbb");
        assert_eq!((pair.a.searches(), pair.b.searches()), (1, 5), "{conduct:?}");
        pass(LONG).await;
        assert_eq!(search_many(&pair.client, 2).await, "bb", "it is tried again");
        assert_eq!((pair.a.searches(), pair.b.searches()), (1, 2), "{conduct:?}");
        pass(LONG).await;
        pair.a.behave(Conduct::Answer);
        let answered = search_many(&pair.client, 4).await;
        assert_eq!(answered.matches('a').count(), 2, "{answered}");
    }
}

#[tokio::test]
async fn a_server_that_is_gone_is_passed_over_and_found_again() {
    // Bound but not listening: connections are refused, and no other process can take the port.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let gone = format!("http://{}", socket.local_addr().unwrap());
    let (b, url) = Fake::start("b").await;
    let client = RetrieveClient::new(config(&format!("{gone},{url}"))).unwrap();
    assert_eq!(search_many(&client, 5).await, "bbbbb");
    let a = Fake::new("a");
    a.serve(socket.listen(16).unwrap());
    pass(LONG).await;
    assert!(search_many(&client, 4).await.contains('a'));
    assert_eq!(b.searches() + a.searches(), 9);
}

#[tokio::test]
async fn if_all_servers_fail_the_error_names_them_and_the_last_reason() {
    let pair = Pair::start(|config| config.retry.deadline = Duration::from_millis(300)).await;
    pair.a.behave(Conduct::Refuse(503, "0"));
    pair.b.behave(Conduct::Refuse(500, "0"));
    let error = pair.client.retrieve(&queries(&["q"]), 1).await.remove(0).unwrap_err();
    let SearchError::Unavailable { url, last, attempts, .. } = error else { panic!("{error:?}") };
    let [url_a, url_b] = &pair.urls;
    assert_eq!(url, format!("{url_a}, {url_b}"));
    assert!(last.contains(url_a.as_str()) || last.contains(url_b.as_str()), "{last}");
    assert!(attempts > 2, "{attempts}");
    assert!(0 < pair.a.searches() && 0 < pair.b.searches());
    // They are well again: pauses only order the servers.
    pair.a.behave(Conduct::Answer);
    pair.b.behave(Conduct::Answer);
    search(&pair.client).await;
}

#[tokio::test]
async fn a_refusal_names_its_server() {
    let pair = Pair::start(|config| config.hedge_percent = 0).await;
    pair.a.behave(Conduct::Refuse(422, "0"));
    let error = pair.client.retrieve(&queries(&["q"]), 1).await.remove(0).unwrap_err();
    let (url, body) = (pair.urls[0].clone(), "busy".to_owned());
    assert_eq!(error, SearchError::Refused { url, status: 422, body });
}

#[tokio::test]
async fn a_query_that_one_server_fails_is_sent_to_another_at_once() {
    let pause = Duration::from_hours(1);
    let pair = Pair::start(|config| config.hedge_percent = 0).await;
    let mut config = pair.client.config.clone();
    config.retry = RetryPolicy { first_pause: pause, max_pause: pause, deadline: pause };
    let client = RetrieveClient::new(config).unwrap();
    pair.a.behave(Conduct::FailQueries);
    assert_eq!(search(&client).await, "b");
}

#[tokio::test]
async fn a_second_server_is_asked_when_the_first_is_late_and_the_first_is_cancelled() {
    let pair = Pair::start(|config| config.hedge_percent = 100).await;
    search_many(&pair.client, MANY).await;
    for server in [&pair.a, &pair.b] {
        server.searches();
    }
    pair.a.behave(Conduct::Hang);
    let began = Instant::now();
    let mut asked = 0;
    while asked < 3 {
        assert_eq!(search(&pair.client).await, "b");
        asked += pair.a.searches();
    }
    let dropped = tokio::time::timeout(PATIENCE, pair.a.0.dropped.notified()).await;
    assert!(dropped.is_ok(), "the late request was not cancelled");
    let servers = pair.client.fleet.servers();
    let is_passed_over = servers[0].health().passed_over_until(began).is_some();
    assert!(is_passed_over, "it was late three times in succession");
}

#[tokio::test]
async fn without_second_requests_a_silent_server_costs_one_attempt() {
    let pair = Pair::start(|config| {
        config.hedge_percent = 0;
        config.attempt_timeout = Some(Duration::from_millis(300));
    })
    .await;
    pair.a.behave(Conduct::Hang);
    assert_eq!(search_many(&pair.client, 4).await, "bbbb");
    assert!(pair.a.searches() > 0 && pair.b.searches() == 4);
}

#[tokio::test]
async fn requests_tell_their_deadline_and_carry_the_headers_of_the_hook() {
    fn trace() -> HeaderMap {
        let value = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap();
        HeaderMap::from_iter([("traceparent".parse().unwrap(), value)])
    }
    let pair = Pair::start(|config| config.request_headers = RequestHeaders::new(trace)).await;
    search(&pair.client).await;
    let mut seen = std::mem::take(&mut *pair.a.0.seen.lock().unwrap());
    let seen = seen.pop().unwrap();
    assert_eq!(seen.queries, json!(["q"]));
    assert!(seen.headers["traceparent"].to_str().unwrap().starts_with("00-0af7"));
    let limit_ms: u64 = seen.headers[TIMEOUT_HEADER].to_str().unwrap().parse().unwrap();
    // Half of the minute before the deadline: the other server gets the rest.
    assert!((1..=30_000).contains(&limit_ms), "{limit_ms}");
}

#[tokio::test]
async fn servers_with_different_indexes_are_refused_and_never_mixed() {
    let pair = Pair::start(|config| config.retry.deadline = Duration::from_millis(300)).await;
    pair.a.serve_index("1234");
    assert_eq!(pair.client.compare_servers().await, Ok(Vec::new()), "b says nothing");
    pair.b.serve_index("5678");
    let mixed = pair.client.compare_servers().await.unwrap_err().to_string();
    let [url_a, url_b] = &pair.urls;
    let expected = format!("{url_b} has the index_digest \"5678\", but {url_a} has \"1234\"");
    assert!(mixed.starts_with(&expected), "{mixed}");

    // A client that did not compare them finds out before the first query.
    let client = RetrieveClient::new(pair.client.config.clone()).unwrap();
    assert_eq!(search_many(&client, 6).await, "aaaaaa");
    assert_eq!(pair.b.searches(), 0, "b got no query");
    pair.a.behave(Conduct::Refuse(503, "0"));
    let error = client.retrieve(&queries(&["q"]), 1).await.remove(0).unwrap_err().to_string();
    assert!(error.contains("after") && pair.b.searches() == 0, "{error}");
}

#[tokio::test]
async fn a_server_that_comes_back_with_another_index_gets_no_query() {
    let pair = Pair::start(|config| config.hedge_percent = 0).await;
    pair.a.serve_index("1234");
    pair.b.serve_index("1234");
    assert_eq!(search_many(&pair.client, 4).await, "abab");
    pair.a.behave(Conduct::Refuse(503, "0"));
    assert_eq!(search_many(&pair.client, 2).await, "bb");
    pair.a.behave(Conduct::Answer);
    pair.a.serve_index("5678");
    pair.a.searches();
    pass(LONG).await;
    assert_eq!(search_many(&pair.client, 6).await, "bbbbbb");
    assert_eq!(pair.a.searches(), 0);
    pair.a.serve_index("1234");
    pass(LONG).await;
    assert!(search_many(&pair.client, 4).await.contains('a'));
}

#[tokio::test]
async fn servers_that_do_not_answer_are_reported_when_they_are_compared() {
    let gone = TcpSocket::new_v4().unwrap();
    gone.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (_, url) = Fake::start("a").await;
    let list = format!("{url},http://{}", gone.local_addr().unwrap());
    let client = RetrieveClient::new(config(&list)).unwrap();
    let silent = client.compare_servers().await.unwrap();
    assert_eq!(silent.len(), 1);
    assert!(silent[0].starts_with(list.split(',').next_back().unwrap()), "{silent:?}");
    let replies = client.ask_each_once("q", 1, PATIENCE).await;
    assert_eq!(ids(&replies[0].result), ["a"]);
    let message = replies[1].result.as_ref().unwrap_err().to_string();
    assert!(message.starts_with("no answer from the retriever at") && replies.len() == 2);
}

#[tokio::test]
async fn a_server_that_changes_between_two_answers_is_passed_over() {
    let pair = Pair::start(|config| config.hedge_percent = 0).await;
    for server in [&pair.a, &pair.b] {
        server.identify("one");
    }
    assert_eq!(search_many(&pair.client, 4).await, "abab");
    // No request failed meanwhile: only its answer shows that the server has another index.
    pair.a.identify("two");
    assert_eq!(search_many(&pair.client, 4).await, "bbbb");
    pass(LONG).await;
    assert_eq!(search_many(&pair.client, 4).await, "bbbb");
    pair.a.identify("one");
    pass(LONG).await;
    assert!(search_many(&pair.client, 4).await.contains('a'));
}

#[tokio::test]
async fn a_single_server_may_change_unless_its_identity_is_pinned() {
    let (server, url) = Fake::start("a").await;
    let client = RetrieveClient::new(config(&url)).unwrap();
    for identity in ["one", "two"] {
        server.identify(identity);
        assert_eq!(search(&client).await, "a");
    }
    client.pin_identity("two");
    assert_eq!(search(&client).await, "a");
    server.identify("three");
    let error = client.retrieve(&queries(&["q"]), 1).await.remove(0).unwrap_err();
    let expected = SearchError::Changed {
        url: format!("{url}/retrieve"),
        expected: "two".to_owned(),
        found: "three".to_owned(),
    };
    assert_eq!(error, expected);
    let serving = client.serving(PATIENCE).await.unwrap().unwrap();
    assert_eq!(serving.identity(), Some("three"));
    assert_eq!(serving.facts()["backend"], "bm25");
}
