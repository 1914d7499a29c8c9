//! Servers whose conduct the tests change.

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use tokio::sync::Notify;

use super::*;
use crate::contract::wire::IDENTITY_HEADER;

/// Longest wait for an event, generous for a busy machine; a test that reaches it has failed.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);
/// Longer than any pause in which a server is passed over.
pub(super) const LONG: Duration = Duration::from_mins(2);

/// The conduct of a server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Conduct {
    Answer,
    /// Accepts requests and never answers.
    Hang,
    /// Answers with this status and `Retry-After`.
    Refuse(u16, &'static str),
    /// Fails each query, in an answer to the request.
    FailQueries,
}

#[derive(Debug)]
pub(super) struct Seen {
    pub(super) headers: HeaderMap,
    pub(super) queries: Value,
}

/// A server that answers each query with one passage, whose id is the server's name.
#[derive(Clone, Debug)]
pub(super) struct Fake(pub(super) Arc<FakeState>);

#[derive(Debug)]
pub(super) struct FakeState {
    name: &'static str,
    conduct: Mutex<Conduct>,
    /// The body of `/info`; the servers of other programs have none.
    info: Mutex<Option<Value>>,
    /// The identity in answers to queries.
    identity: Mutex<Option<&'static str>>,
    pub(super) seen: Mutex<Vec<Seen>>,
    pub(super) arrived: Notify,
    pub(super) dropped: Notify,
}

/// Notifies when a request is dropped.
pub(super) struct Dropped(Fake);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.0.dropped.notify_one();
    }
}

impl Fake {
    pub(super) fn new(name: &'static str) -> Self {
        Self(Arc::new(FakeState {
            name,
            conduct: Mutex::new(Conduct::Answer),
            info: Mutex::default(),
            identity: Mutex::default(),
            seen: Mutex::default(),
            arrived: Notify::new(),
            dropped: Notify::new(),
        }))
    }

    /// Starts a server on a free port. Returns it with its address.
    pub(super) async fn start(name: &'static str) -> (Self, String) {
        let fake = Self::new(name);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        fake.serve(listener);
        (fake, url)
    }

    pub(super) fn serve(&self, listener: TcpListener) {
        let app = Router::new()
            .route("/retrieve", post(Self::retrieve))
            .route("/info", get(Self::info))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
    }

    fn info(State(fake): State<Self>) -> std::future::Ready<Response> {
        std::future::ready(match &*fake.0.info.lock().unwrap() {
            Some(info) => info.to_string().into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        })
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
                let body = json!({"result": vec![passage; count]}).to_string();
                let identity = *fake.0.identity.lock().unwrap();
                match identity {
                    Some(identity) => ([(IDENTITY_HEADER, identity)], body).into_response(),
                    None => body.into_response(),
                }
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
                let error = |index: usize| json!({"index": index, "code": "x", "retryable": true});
                let errors: Vec<Value> = (0..count).map(error).collect();
                let result = vec![json!([]); count];
                json!({"result": result, "errors": errors}).to_string().into_response()
            }
        }
    }

    pub(super) fn behave(&self, conduct: Conduct) {
        *self.0.conduct.lock().unwrap() = conduct;
    }

    pub(super) fn serve_index(&self, digest: &str) {
        *self.0.info.lock().unwrap() = Some(json!({"index_digest": digest, "backend": "bm25"}));
    }

    /// Has this identity from now on, in `/info` and in answers.
    pub(super) fn identify(&self, identity: &'static str) {
        *self.0.info.lock().unwrap() = Some(json!({"backend": "bm25", "identity": identity}));
        *self.0.identity.lock().unwrap() = Some(identity);
    }

    /// Returns the number of searches since the last call.
    pub(super) fn searches(&self) -> usize {
        self.0.seen.lock().unwrap().drain(..).len()
    }
}

/// Searches once. Returns the name of the server that answered.
pub(super) async fn search(client: &RetrieveClient) -> String {
    ids(&client.retrieve(&queries(&["q"]), 1).await[0]).concat()
}

pub(super) async fn search_many(client: &RetrieveClient, count: usize) -> String {
    let mut answered = String::new();
    for _ in 0..count {
        answered += &search(client).await;
    }
    answered
}

/// Lets time pass at once, for the client only.
pub(super) async fn pass(duration: Duration) {
    tokio::time::pause();
    tokio::time::advance(duration).await;
    tokio::time::resume();
}
