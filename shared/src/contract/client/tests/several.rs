//! Tests of the client with several servers, whose conduct the tests change.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Notify;

use super::super::discovery::Resolver;
use super::*;
use crate::contract::client::{RequestHeaders, TIMEOUT_HEADER};

/// Longest wait for an event, generous for a busy machine; a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_mins(1);
/// More requests than the client needs to know how long answers take.
const MANY: usize = 25;
/// Longer than any pause in which a server is passed over.
const LONG: Duration = Duration::from_mins(2);

/// The conduct of a server.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Conduct {
    Answer,
    /// Accepts requests and never answers.
    Hang,
    /// Answers with this status and `Retry-After`.
    Refuse(u16, &'static str),
    /// Fails each query, in an answer to the request.
    FailQueries,
}

#[derive(Debug)]
struct Seen {
    headers: HeaderMap,
    queries: Value,
}

/// A server that answers each query with one passage, whose id is the server's name.
#[derive(Clone, Debug)]
struct Fake(Arc<FakeState>);

#[derive(Debug)]
struct FakeState {
    name: &'static str,
    conduct: Mutex<Conduct>,
    /// The body of `/info`; the servers of other programs have none.
    info: Mutex<Option<Value>>,
    seen: Mutex<Vec<Seen>>,
    arrived: Notify,
    dropped: Notify,
}

/// Notifies when a request is dropped.
struct Dropped(Fake);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.0.dropped.notify_one();
    }
}

impl Fake {
    fn new(name: &'static str) -> Self {
        Self(Arc::new(FakeState {
            name,
            conduct: Mutex::new(Conduct::Answer),
            info: Mutex::default(),
            seen: Mutex::default(),
            arrived: Notify::new(),
            dropped: Notify::new(),
        }))
    }

    /// Starts a server on a free port. Returns it with its address.
    async fn start(name: &'static str) -> (Self, String) {
        let fake = Self::new(name);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        fake.serve(listener);
        (fake, url)
    }

    fn serve(&self, listener: TcpListener) {
        let app = Router::new()
            .route("/retrieve", post(Self::retrieve))
            .route("/info", get(Self::info))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
    }

    async fn info(State(fake): State<Self>) -> Response {
        match &*fake.0.info.lock().unwrap() {
            Some(info) => info.to_string().into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        }
    }

    async fn retrieve(State(fake): State<Self>, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let queries = body["queries"].clone();
        let count = queries.as_array().unwrap().len();
        fake.0.seen.lock().unwrap().push(Seen { headers: parts.headers, queries });
        fake.0.arrived.notify_one();
        let conduct = *fake.0.conduct.lock().unwrap();
        match conduct {
            Conduct::Answer => {
                let passage = json!([{"id": fake.0.name, "contents": "a"}]);
                json!({"result": vec![passage; count]}).to_string().into_response()
            }
            Conduct::Hang => {
                let _dropped = Dropped(fake);
                std::future::pending().await
            }
            Conduct::Refuse(status, after) => {
                let status = StatusCode::from_u16(status).unwrap();
                (status, [("retry-after", after)], "busy").into_response()
            }
            Conduct::FailQueries => {
                let error = |index| json!({"index": index, "code": "x", "retryable": true});
                let errors: Vec<Value> = (0..count).map(error).collect();
                let result = vec![json!([]); count];
                json!({"result": result, "errors": errors}).to_string().into_response()
            }
        }
    }

    fn behave(&self, conduct: Conduct) {
        *self.0.conduct.lock().unwrap() = conduct;
    }

    fn serve_index(&self, digest: &str) {
        *self.0.info.lock().unwrap() = Some(json!({"index_digest": digest, "backend": "bm25"}));
    }

    /// Returns the number of searches since the last call.
    fn searches(&self) -> usize {
        self.0.seen.lock().unwrap().drain(..).len()
    }
}

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

/// Searches once. Returns the name of the server that answered.
async fn search(client: &RetrieveClient) -> String {
    ids(&client.retrieve(&queries(&["q"]), 1).await[0]).concat()
}

async fn search_many(client: &RetrieveClient, count: usize) -> String {
    let mut answered = String::new();
    for _ in 0..count {
        answered += &search(client).await;
    }
    answered
}

/// Lets time pass at once, for the client only.
async fn pass(duration: Duration) {
    tokio::time::pause();
    tokio::time::advance(duration).await;
    tokio::time::resume();
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

/// A resolver with answers that the test sets: addresses, or a failure.
#[derive(Clone, Debug, Default)]
struct FakeResolver(Arc<Mutex<VecDeque<Vec<IpAddr>>>>);

impl Resolve for FakeResolver {
    fn resolve(&self, name: Name) -> Resolving {
        assert_eq!(name.as_str(), "retrievers.test");
        let mut answers = self.0.lock().unwrap();
        // The last answer stays.
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        Box::pin(async move {
            let answer = answer.ok_or("no such name")?;
            let addresses = answer.into_iter().map(|ip| SocketAddr::new(ip, 0));
            Ok(Box::new(addresses) as Addrs)
        })
    }
}

/// Starts servers at these addresses, with one port.
async fn start_at(servers: &[(&'static str, [u8; 4])]) -> (Vec<Fake>, u16) {
    'ports: loop {
        let mut listeners: Vec<TcpListener> = Vec::new();
        let mut port = 0;
        for (_, ip) in servers {
            // Another process may have the port at the second address.
            let Ok(listener) = TcpListener::bind((IpAddr::from(*ip), port)).await else {
                continue 'ports;
            };
            port = listener.local_addr().unwrap().port();
            listeners.push(listener);
        }
        let start = |((name, _), listener): (&(&'static str, [u8; 4]), TcpListener)| {
            let fake = Fake::new(name);
            fake.serve(listener);
            fake
        };
        return (servers.iter().zip(listeners).map(start).collect(), port);
    }
}

#[tokio::test]
async fn each_address_of_a_name_is_a_server() {
    let addresses = [[127, 0, 0, 1], [127, 0, 0, 2], [127, 0, 0, 3]];
    let [one, two, three] = addresses.map(IpAddr::from);
    let names = ["a", "b", "c"];
    let servers: Vec<_> = names.into_iter().zip(addresses).collect();
    let (fakes, port) = start_at(&servers).await;
    let resolver = FakeResolver::default();
    let mut config = config(&format!("dns+http://retrievers.test:{port}"));
    config.hedge_percent = 0;
    config.retry.deadline = Duration::from_millis(300);
    let client =
        RetrieveClient::with_resolver(config, Resolver(Arc::new(resolver.clone()))).unwrap();

    let error = client.retrieve(&queries(&["q"]), 1).await.remove(0).unwrap_err().to_string();
    let expected =
        format!("no answer from the retriever at dns+http://retrievers.test:{port}/retrieve");
    assert!(error.starts_with(&expected), "{error}");
    assert!(error.ends_with("cannot look up \"retrievers.test\": no such name"), "{error}");
    let replies = client.ask_each_once("q", 1, PATIENCE).await;
    assert!(replies.len() == 1 && replies[0].result.is_err());

    *resolver.0.lock().unwrap() = VecDeque::from([vec![two, one, two]]);
    assert_eq!(search_many(&client, 4).await, "abab", "sorted, each once");
    fakes[1].behave(Conduct::Refuse(422, "0"));
    let error = loop {
        if let Err(error) = client.retrieve(&queries(&["q"]), 1).await.remove(0) {
            break error.to_string();
        }
    };
    let shown = format!("http://retrievers.test:{port}/retrieve (127.0.0.2)");
    assert!(error.contains(&shown), "{error}");

    // The second server moves. Its failure has the name looked up again.
    fakes[1].behave(Conduct::Refuse(503, "0"));
    *resolver.0.lock().unwrap() = VecDeque::from([vec![one, three]]);
    assert_eq!(search_many(&client, 2).await, "aa");
    pass(Duration::from_secs(2)).await;
    let mut answered = String::new();
    for _ in 0..100 {
        answered += &search(&client).await;
        if answered.contains('c') {
            break;
        }
    }
    assert!(answered.contains('c'), "{answered}");
    // A name that is gone keeps its servers.
    resolver.0.lock().unwrap().clear();
    pass(LONG).await;
    let answered = search_many(&client, 6).await;
    assert!(answered.contains('a') && answered.contains('c'), "{answered}");
}
