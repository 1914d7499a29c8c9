//! The chat endpoint of `trainer serve`, over HTTP.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde_json::{Value, json};
use shared::machine::shutdown::Shutdown;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use trainer::run::serve_on;
use trainer::stop::StopFlag;

use crate::harness::http::{PATIENCE, client, get, post_bytes_to};
use crate::harness::retriever::RetrieverHandle;
use crate::harness::tiny_world::TinyWorld;
use crate::harness::wait::wait_until;

const PATH: &str = "/v1/chat/completions";
const QUESTION: &str = "Where does Person7 live?";

/// A server that stops when this value is dropped.
struct AgentHandle {
    url: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl AgentHandle {
    fn start(world: &TinyWorld, retriever_url: &str, more: &[&str]) -> Self {
        let settings =
            [&["deterministic=false", "serve.name=agent", "eval.temperature=0"], more].concat();
        let config = world.config(retriever_url, "serve", &settings);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let wished = Arc::clone(&stop);
        let flag =
            StopFlag::asking(move || wished.load(Ordering::Relaxed).then_some(Shutdown::Terminate));
        let run = move || serve_on(&config, listener, &flag, &mut Vec::new());
        Self { url, stop, thread: Some(std::thread::spawn(run)) }
    }

    fn end(&mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map_or(Ok(()), |thread| thread.join().unwrap())
    }
}

impl Drop for AgentHandle {
    fn drop(&mut self) {
        let ended = self.end();
        assert!(std::thread::panicking() || ended.is_ok(), "{ended:?}");
    }
}

fn ask(question: &str, more: &Value) -> Vec<u8> {
    let mut body = json!({"model": "agent", "messages": [{"role": "user", "content": question}]});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body.to_string().into_bytes()
}

fn runtime() -> Runtime {
    Runtime::new().unwrap()
}

/// Returns the data of a stream of server-sent events.
fn chunks(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("data: ")).collect()
}

#[test]
fn an_answer_has_its_searches_whole_or_in_chunks() {
    let world = TinyWorld::build();
    let retriever = RetrieverHandle::start(&world.index());
    world.warm_start(&retriever);
    let agent = AgentHandle::start(&world, &retriever.url(), &[]);

    runtime().block_on(async {
        let whole = post_bytes_to(&agent.url, PATH, ask(QUESTION, &json!({}))).await;
        assert_eq!(whole.status, 200, "{:?}", whole.body);
        let choice = &whole.body["choices"][0];
        let answer = choice["message"]["content"].as_str().unwrap();
        assert!(!answer.is_empty() && !answer.contains('<'), "{answer:?}");
        assert_eq!(choice["finish_reason"], "stop");
        assert_eq!(
            (&whole.body["model"], &whole.body["object"]),
            (&json!("agent"), &json!("chat.completion"))
        );
        let events = whole.body["search_r1"]["events"].as_array().unwrap();
        let kinds: Vec<&Value> = events.iter().map(|event| &event["type"]).collect();
        assert_eq!(kinds[..2], ["search", "passages"], "{events:?}");
        assert!(events[1]["passages"][0]["text"].as_str().is_some_and(|text| !text.is_empty()));
        let usage = &whole.body["usage"];
        let total =
            usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap();
        assert_eq!(usage["total_tokens"], total);

        let more = json!({"stream": true, "stream_options": {"include_usage": true}});
        let request = client().post(format!("{}{PATH}", agent.url)).body(ask(QUESTION, &more));
        let response = request.send().await.unwrap();
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        assert!(kind.starts_with("text/event-stream"), "{kind}");
        let text = response.text().await.unwrap();
        let data = chunks(&text);
        let (done, chunks) = data.split_last().unwrap();
        assert_eq!(*done, "[DONE]");
        let chunks: Vec<Value> =
            chunks.iter().map(|chunk| serde_json::from_str(chunk).unwrap()).collect();
        let deltas = |name: &str| -> String {
            chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"][name].as_str()).collect()
        };
        // The chunks together equal the whole answer.
        assert_eq!(deltas("content").trim(), answer);
        assert_eq!(deltas("reasoning_content").trim(), choice["message"]["reasoning_content"]);
        let streamed: Vec<&Value> = chunks
            .iter()
            .map(|chunk| &chunk["search_r1"])
            .filter(|event| event["type"] == "search" || event["type"] == "passages")
            .collect();
        assert_eq!(streamed, events.iter().collect::<Vec<_>>());
        let last = &chunks[chunks.len() - 2];
        assert_eq!(last["choices"][0]["finish_reason"], "stop");
        assert_eq!(&chunks.last().unwrap()["usage"], usage);

        let models = get(&agent.url, "/v1/models").await.body;
        assert_eq!(models["data"][0]["id"], "agent");
        assert_eq!(get(&agent.url, "/readyz").await.status, 200);
    });
}

#[test]
fn concurrent_questions_are_answered_and_a_seed_always_yields_the_same_answer() {
    let world = TinyWorld::build();
    let retriever = RetrieverHandle::start(&world.index());
    world.warm_start(&retriever);
    let agent = AgentHandle::start(&world, &retriever.url(), &["rollout.max_sequences=6"]);
    runtime().block_on(async {
        let mut asking = JoinSet::new();
        for number in 0..18_u64 {
            let url = agent.url.clone();
            let question = format!("Where does Person{} live?", number % 9);
            let body = ask(&question, &json!({"seed": number % 9, "temperature": 1.0}));
            asking.spawn(async move { (number % 9, post_bytes_to(&url, PATH, body).await) });
        }
        let mut answers: Vec<Vec<Value>> = vec![Vec::new(); 9];
        while let Some(answered) = asking.join_next().await {
            let (number, reply) = answered.unwrap();
            assert_eq!(reply.status, 200, "{:?}", reply.body);
            answers[number as usize].push(reply.body["choices"][0]["message"].clone());
        }
        for pair in &answers {
            assert_eq!(pair.len(), 2);
            assert_eq!(pair[0], pair[1]);
        }
        let first = &answers[0][0];
        assert!(answers.iter().any(|pair| &pair[0] != first), "all answers are the same: {first}");
    });
}

#[test]
fn invalid_requests_are_refused_and_a_stop_waits_for_running_ones() {
    let world = TinyWorld::build();
    let retriever = RetrieverHandle::start(&world.index());
    world.warm_start(&retriever);
    let bounds = ["rollout.max_sequences=1", "serve.max_waiting=0", "serve.max_body_bytes=2000"];
    let mut agent = AgentHandle::start(&world, &retriever.url(), &bounds);
    runtime().block_on(async {
        let refused = async |body: Vec<u8>| {
            let reply = post_bytes_to(&agent.url, PATH, body).await;
            (reply.status, reply.body["error"].clone())
        };
        let (status, error) = refused(ask(QUESTION, &json!({"temperature": 9}))).await;
        assert_eq!((status, &error["param"]), (400, &json!("temperature")), "{error}");
        let (status, error) = refused(ask(QUESTION, &json!({"model": "other"}))).await;
        assert_eq!((status, &error["code"]), (404, &json!("model_not_found")), "{error}");
        let (status, error) = refused(ask(&"long ".repeat(120), &json!({}))).await;
        assert_eq!((status, &error["param"]), (400, &json!("messages")), "{error}");
        assert!(
            error["message"].as_str().unwrap().contains("rollout.max_prompt_tokens"),
            "{error}"
        );
        let (status, error) = refused(ask(&"long ".repeat(600), &json!({}))).await;
        assert_eq!((status, &error["code"]), (413, &json!("body_too_large")), "{error}");
        let reply = get(&agent.url, "/v1/nothing").await;
        assert_eq!((reply.status, &reply.body["error"]["code"]), (404, &json!("not_found")));
        let short = post_bytes_to(&agent.url, PATH, ask(QUESTION, &json!({"max_tokens": 1}))).await;
        assert_eq!(short.body["choices"][0]["finish_reason"], "length", "{:?}", short.body);
        assert_eq!(short.body["usage"]["completion_tokens"], 1);

        // The server accepts one question. A stream that is not read holds it until the client drops it.
        let stream = json!({"stream": true});
        let request = client().post(format!("{}{PATH}", agent.url)).body(ask(QUESTION, &stream));
        let mut held = request.send().await.unwrap();
        assert!(held.chunk().await.unwrap().is_some());
        drop(held);
        let ask_again = async || {
            let reply = post_bytes_to(&agent.url, PATH, ask(QUESTION, &json!({}))).await;
            if reply.status == 503 {
                assert_eq!(reply.body["error"]["code"], "overloaded");
                assert!(reply.retry_after.is_some());
            }
            (reply.status, reply.body)
        };
        wait_until(PATIENCE, ask_again, |(status, _)| *status == 200).await;

        let url = agent.url.clone();
        let request = client().post(format!("{url}{PATH}")).body(ask(QUESTION, &stream));
        let running = request.send().await.unwrap();
        agent.end().unwrap();
        let text = running.text().await.unwrap();
        assert_eq!(chunks(&text).last(), Some(&"[DONE]"), "{text}");
        assert!(text.contains("\"finish_reason\":\"stop\""), "{text}");
        assert!(client().get(format!("{url}/readyz")).send().await.is_err());
    });
}

/// Without a retriever, the client receives an error, not an answer without passages.
#[test]
fn a_failed_search_is_an_error() {
    let world = TinyWorld::build();
    let retriever = RetrieverHandle::start(&world.index());
    world.warm_start(&retriever);
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = ["retriever.deadline_ms=50", "retriever.attempt_timeout_ms=50"];
    let agent = AgentHandle::start(&world, &format!("http://{gone}/retrieve"), &settings);
    runtime().block_on(async {
        let reply = post_bytes_to(&agent.url, PATH, ask(QUESTION, &json!({}))).await;
        assert_eq!((reply.status, &reply.body["error"]["code"]), (502, &json!("search_failed")));
        let body = ask(QUESTION, &json!({"stream": true}));
        let request = client().post(format!("{}{PATH}", agent.url)).body(body);
        let text = request.send().await.unwrap().text().await.unwrap();
        let data = chunks(&text);
        assert!(data[data.len() - 2].contains("search_failed"), "{text}");
        assert_eq!(data.last(), Some(&"[DONE]"));
    });
}
