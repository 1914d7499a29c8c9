//! Outside rewards against real servers in this process.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use shared::contract::retry::RetryPolicy;
use shared::machine::shutdown::Shutdown;
use tokio::runtime::Runtime;

use super::*;

type Answer = Box<dyn Fn(usize, &Value) -> Option<Response> + Send + Sync>;

/// A server that answers the n-th request, from 0, by a function; `None` never answers.
struct Server {
    url: String,
    asked: Arc<Asked>,
    _runtime: Runtime,
}

struct Asked {
    answer: Answer,
    count: AtomicUsize,
    running: AtomicUsize,
    most_running: AtomicUsize,
    bodies: Mutex<Vec<Value>>,
    keys: Mutex<Vec<String>>,
}

async fn handle(State(asked): State<Arc<Asked>>, headers: HeaderMap, body: String) -> Response {
    let number = asked.count.fetch_add(1, Ordering::SeqCst);
    let running = asked.running.fetch_add(1, Ordering::SeqCst) + 1;
    asked.most_running.fetch_max(running, Ordering::SeqCst);
    let body: Value = serde_json::from_str(&body).unwrap();
    let answer = (asked.answer)(number, &body);
    asked.bodies.lock().unwrap().push(body);
    let key = headers.get("authorization").map(|key| key.to_str().unwrap().to_owned());
    asked.keys.lock().unwrap().extend(key);
    let Some(answer) = answer else { return std::future::pending().await };
    // Others may arrive before this one leaves.
    tokio::task::yield_now().await;
    asked.running.fetch_sub(1, Ordering::SeqCst);
    answer
}

impl Server {
    fn start(answer: impl Fn(usize, &Value) -> Option<Response> + Send + Sync + 'static) -> Self {
        let runtime = Runtime::new().unwrap();
        let asked = Arc::new(Asked {
            answer: Box::new(answer),
            count: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            most_running: AtomicUsize::new(0),
            bodies: Mutex::default(),
            keys: Mutex::default(),
        });
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}/score", listener.local_addr().unwrap());
        let router = Router::new().route("/score", post(handle)).with_state(Arc::clone(&asked));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { url, asked, _runtime: runtime }
    }

    fn endpoint(&self, attempt_ms: u64, deadline_ms: u64) -> EndpointSettings {
        EndpointSettings {
            url: self.url.clone(),
            api_key: Some("secret".to_owned()),
            attempt_timeout: Duration::from_millis(attempt_ms),
            retry: RetryPolicy {
                first_pause: Duration::from_millis(1),
                max_pause: Duration::from_millis(2),
                deadline: Duration::from_millis(deadline_ms),
            },
            max_in_flight: 2,
        }
    }

    fn service(&self, endpoint: EndpointSettings) -> OutsideRewards {
        assert_eq!(endpoint.url, self.url);
        let settings = ServiceSettings { endpoint, weight: 0.5, batch: 2 };
        OutsideRewards::new(Some(settings), None).unwrap()
    }

    fn judge(&self, verdicts: &std::path::Path, rubric: Option<&str>) -> OutsideRewards {
        let rules = JudgeRules {
            model: "judge".to_owned(),
            template: if rubric.is_some() { RUBRIC_TEMPLATE } else { CORRECTNESS_TEMPLATE }
                .to_owned(),
            rubric: rubric.map(str::to_owned),
            max_tokens: 9,
        };
        let endpoint = self.endpoint(60_000, 60_000);
        let settings =
            JudgeSettings { endpoint, weight: 2.0, rules, verdicts: verdicts.to_owned() };
        OutsideRewards::new(None, Some(settings)).unwrap()
    }

    fn count(&self) -> usize {
        self.asked.count.load(Ordering::SeqCst)
    }
}

fn item(answer: &str) -> OutsideItem {
    OutsideItem {
        id: "q1".to_owned(),
        question: "Who?".to_owned(),
        golden_answers: vec!["Ada".to_owned()],
        trajectory: format!("Who? {answer}"),
        answer: (!answer.is_empty()).then(|| answer.to_owned()),
        searches: 1,
        exact_match: 0.0,
        score: 0.0,
    }
}

fn items(count: usize) -> Vec<OutsideItem> {
    (0..count).map(|number| item(&format!("answer {number}"))).collect()
}

fn json_answer(value: &Value) -> Response {
    axum::Json(value.clone()).into_response()
}

fn never() -> StopFlag {
    StopFlag::never()
}

/// Scores each item by the number in its answer.
fn numbers(body: &Value) -> Response {
    let scores: Vec<Value> = body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            let answer = item["answer"].as_str().unwrap();
            let number: f64 = answer.strip_prefix("answer ").unwrap().parse().unwrap();
            json!({ "score": number, "parts": { "style": number / 2.0 } })
        })
        .collect();
    json_answer(&json!({ "scores": scores }))
}

#[test]
fn batches_are_scored_in_order_and_only_once() {
    let server = Server::start(|_, body| Some(numbers(body)));
    let rewards = server.service(server.endpoint(60_000, 60_000));
    let scores = rewards.scores(&items(7), &never());
    for (number, score) in scores.iter().enumerate() {
        let score = score.as_ref().unwrap();
        assert_eq!(score.service, Some(number as f64));
        assert!((score.total - number as f64 / 2.0).abs() < 1e-12);
        assert!((score.parts["style"] - number as f64 / 2.0).abs() < 1e-12);
    }
    assert_eq!(server.count(), 4, "seven items in batches of two");
    assert!(server.asked.most_running.load(Ordering::SeqCst) <= 2);
    assert_eq!(rewards.scores(&items(7), &never()), scores);
    assert_eq!(server.count(), 4, "scored items are asked for again");
    assert!(server.asked.keys.lock().unwrap().iter().all(|key| key == "Bearer secret"));
    let mut asked = server.asked.bodies.lock().unwrap().clone();
    asked.sort_by_key(ToString::to_string);
    assert_eq!(asked[0]["items"][0], json!(item("answer 0")));
}

#[test]
fn failures_of_a_while_are_retried() {
    for status in [500, 503, 429, 408] {
        let server = Server::start(move |number, body| {
            if number < 2 {
                let status = StatusCode::from_u16(status).unwrap();
                return Some((status, [("retry-after", "0")], "busy").into_response());
            }
            Some(numbers(body))
        });
        let rewards = server.service(server.endpoint(60_000, 60_000));
        let scores = rewards.scores(&items(1), &never());
        assert_eq!(scores[0].as_ref().unwrap().service, Some(0.0), "{status}");
        assert_eq!(server.count(), 3, "{status}");
    }
}

#[test]
fn a_requested_pause_is_waited_for() {
    let server = Server::start(|number, body| {
        if number == 0 {
            let busy = (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "0.05")]);
            return Some(busy.into_response());
        }
        Some(numbers(body))
    });
    let rewards = server.service(server.endpoint(60_000, 60_000));
    let started = Instant::now();
    assert!(rewards.scores(&items(1), &never())[0].is_ok());
    assert!(started.elapsed() >= Duration::from_millis(50));
}

/// The server's answer, and what the failure says.
#[test]
fn lasting_failures_say_what_was_expected_and_are_not_retried() {
    let table: [(Answer, &str); 7] = [
        (Box::new(|_, _| Some("hello".into_response())), "is not JSON"),
        (Box::new(|_, _| Some(json_answer(&json!([1.0])))), "has no list \"scores\": [1.0]"),
        (
            Box::new(|_, _| Some(json_answer(&json!({ "scores": [1, 2, 3] })))),
            "has 3 scores for 1 items; expected {\"scores\": […]}",
        ),
        (
            Box::new(|_, _| Some(json_answer(&json!({ "scores": ["high"] })))),
            "has at scores[0] \"high\", which is no score",
        ),
        (
            Box::new(|_, _| Some(json_answer(&json!({ "scores": [{ "error": "too long" }] })))),
            "scores[0] the error \"too long\"",
        ),
        (
            Box::new(|_, _| {
                Some(json_answer(&json!({ "scores": [{ "score": 1, "parts": { "a": "b" } }] })))
            }),
            "parts.a = \"b\", no number",
        ),
        (
            Box::new(|_, _| Some((StatusCode::UNAUTHORIZED, "who are you").into_response())),
            "status 401: who are you",
        ),
    ];
    for (answer, expected) in table {
        let server = Server::start(answer);
        let rewards = server.service(server.endpoint(60_000, 60_000));
        let scores = rewards.scores(&items(1), &never());
        let reason = scores[0].as_ref().unwrap_err();
        assert!(reason.contains(expected), "{reason}");
        assert!(!reason.contains("secret"), "{reason}");
        assert_eq!(server.count(), 1, "{expected}");
    }
}

#[test]
fn one_bad_score_fails_only_its_item() {
    let server = Server::start(|_, _| Some(json_answer(&json!({ "scores": [1.0, null] }))));
    let rewards = server.service(server.endpoint(60_000, 60_000));
    let scores = rewards.scores(&items(2), &never());
    assert!(scores[0].is_ok() && scores[1].is_err(), "{scores:?}");
}

#[test]
fn a_server_that_never_answers_costs_the_deadline_at_most() {
    let server = Server::start(|_, _| None);
    let rewards = server.service(server.endpoint(20, 100));
    let scores = rewards.scores(&items(1), &never());
    let reason = scores[0].as_ref().unwrap_err();
    assert!(reason.contains("/score"), "{reason}");
    assert!(server.count() >= 2, "a late answer is not asked for again");
}

#[test]
fn a_stop_ends_the_wait() {
    let server = Server::start(|_, _| None);
    let rewards = server.service(server.endpoint(3_600_000, 3_600_000));
    let asked = Arc::clone(&server.asked);
    let stop = StopFlag::asking(move || {
        (asked.count.load(Ordering::SeqCst) > 0).then_some(Shutdown::Terminate)
    });
    let scores = rewards.scores(&items(1), &stop);
    assert_eq!(scores, [Err("stopped".to_owned())]);
}

fn completion(text: &str) -> Value {
    json!({ "choices": [{ "message": { "role": "assistant", "content": text } }] })
}

#[test]
fn verdicts_are_kept_and_survive_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("verdicts.jsonl");
    let server = Server::start(|_, body| {
        let message = body["messages"][0]["content"].as_str().unwrap();
        let is_right = message.contains("<given>Ada</given>");
        let reply = if is_right { "Yes.\n**Score: 1**" } else { "No.\nScore: 0.0\n" };
        Some(json_answer(&completion(reply)))
    });
    let asked = [item("Ada"), item("Bob"), item("")];
    let verdicts = |rewards: OutsideRewards| -> Vec<(Option<f64>, bool)> {
        let scores = rewards.scores(&asked, &never()).into_iter().map(Result::unwrap);
        scores.map(|score| (score.judge, score.is_known_verdict)).collect()
    };
    let fresh = verdicts(server.judge(&path, None));
    assert_eq!(fresh, [(Some(1.0), false), (Some(0.0), false), (Some(0.0), false)]);
    assert_eq!(server.count(), 2, "a missing answer is wrong without asking");
    let body = server.asked.bodies.lock().unwrap()[0].clone();
    assert_eq!(
        (&body["temperature"], &body["max_tokens"], &body["model"]),
        (&json!(0), &json!(9), &json!("judge"))
    );

    let known = verdicts(server.judge(&path, None));
    assert_eq!(known, [(Some(1.0), true), (Some(0.0), true), (Some(0.0), false)]);
    assert_eq!(server.count(), 2);

    // A kill tears the last line, and something else damages the first one.
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{{broken\n{}", &text[..text.len() - 5])).unwrap();
    verdicts(server.judge(&path, None));
    assert_eq!(server.count(), 3, "only the torn verdict is asked for again");
    assert!(verdicts(server.judge(&path, None))[..2].iter().all(|(_, known)| *known));
}

#[test]
fn a_rubric_judges_the_whole_trajectory_and_its_text_fills_no_placeholder() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(|_, _| Some(json_answer(&completion("Fine.\nScore: 0.25"))));
    let rewards = server.judge(&dir.path().join("verdicts.jsonl"), Some("Be brief."));
    let trick = OutsideItem { trajectory: "I write {rubric} {".to_owned(), ..item("") };
    let scores = rewards.scores(&[trick], &never());
    assert!((scores[0].as_ref().unwrap().total - 0.5).abs() < 1e-12);
    let body = server.asked.bodies.lock().unwrap()[0].clone();
    let message = body["messages"][0]["content"].as_str().unwrap();
    assert!(message.contains("<criteria>Be brief.</criteria>"), "{message}");
    assert!(message.contains("<work>I write {rubric} {</work>"), "{message}");
}

#[test]
fn a_reply_without_a_verdict_is_a_failure_and_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    for (reply, expected) in [
        (completion("It is right."), "no line \"Score: X\" with X from 0 to 1: It is right."),
        (completion("Score: 7"), "from 0 to 1: Score: 7"),
        (json!({ "choices": [] }), "has no choices[0].message.content: {\"choices\":[]}"),
    ] {
        let server = Server::start(move |_, _| Some(json_answer(&reply)));
        let path = dir.path().join("verdicts.jsonl");
        let scores = server.judge(&path, None).scores(&[item("Ada")], &never());
        let reason = scores[0].as_ref().unwrap_err();
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(std::fs::read(&path).unwrap(), b"");
    }
}

/// The table of Cohen's kappa with 20, 5, 10 and 15 decisions: 0.7 observed, 0.5 by chance.
#[test]
fn agreement_is_cohens_kappa() {
    let counted =
        [((true, true), 20), ((true, false), 5), ((false, true), 10), ((false, false), 15)];
    let decisions: Vec<(bool, bool)> = counted
        .iter()
        .flat_map(|&(decision, count)| std::iter::repeat_n(decision, count))
        .collect();
    let (observed, kappa) = agreement(&decisions);
    assert!((observed - 0.7).abs() < 1e-12 && (kappa - 0.4).abs() < 1e-12, "{observed} {kappa}");
    assert!(agreement(&[(true, true)]).1.is_nan());
}
