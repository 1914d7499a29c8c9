use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use serde_json::{Value, json};

use super::*;

/// Returns a row as training writes it.
pub(super) fn row(step: u64) -> StepMetrics {
    let row = json!({
        "step": step, "reward_mean": 0.25, "em": 0.5, "searches_per_question": 1.5, "invalid_actions": 3,
        "trajectories": 32, "dropped_trajectories": 0, "response_tokens": 61.5, "entropy": 0.8, "kl": 0.001,
        "clip_fraction": 0.01, "policy_loss": -0.02, "grad_norm": 0.7, "learning_rate": 1e-6,
        "log_prob_gap": 1e-4, "tokens_per_second": 120.0, "peak_memory_mib": 4000,
        "seconds": {"rollout": 10.0, "search": 1.0, "log_probs": 2.0, "update": 5.0, "total": 17.0},
    });
    serde_json::from_value(row).unwrap()
}

fn point(step: u64) -> Point {
    Point::of_step(&row(step))
}

/// A tracker that waits for permission before each attempt and reports the steps that it got.
struct Steered {
    permits: Receiver<bool>,
    got: SyncSender<Vec<u64>>,
}

impl Tracker for Steered {
    fn send(&mut self, points: &[Arc<Point>], _: &mut Memory) -> Result<Option<u64>, Fault> {
        if !self.permits.recv().unwrap_or(true) {
            return Err(Fault("refused".to_owned()));
        }
        self.got.send(points.iter().map(|point| point.step).collect()).unwrap();
        Ok(points.last().map(|point| point.position()))
    }

    fn end(&mut self, _: Outcome, _: &mut Memory) -> Result<(), Fault> {
        Ok(())
    }
}

struct Steering {
    lane: Lane,
    permits: SyncSender<bool>,
    got: Receiver<Vec<u64>>,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

fn steered() -> Steering {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory.json");
    let (permits, receiver) = sync_channel(1000);
    let (got, steps) = sync_channel(1000);
    let tracker = Steered { permits: receiver, got };
    let memory = Memory::load(&path, None, 0);
    let lane = Lane::start("steered", Box::new(tracker), memory, [].into()).unwrap();
    Steering { lane, permits, got: steps, path, _folder: folder }
}

#[test]
fn a_tracker_that_hangs_delays_nobody_and_gets_the_points_later() {
    let Steering { mut lane, permits, got, path, _folder } = steered();
    // Far more points than the queue has places. The tracker hangs in its first attempt.
    for step in 1..=2000 {
        lane.log(&Arc::new(point(step)));
    }
    for _ in 0..1000 {
        permits.send(true).unwrap();
    }
    drop(permits);
    lane.end(Outcome::Finished).join();
    let steps: Vec<u64> = got.iter().flatten().collect();
    assert!(steps.len() >= 256 && steps.len() < 2000, "{} points", steps.len());
    assert!(steps.is_sorted_by(|one, next| one < next), "in order, none twice");
    assert!(Memory::load(&path, Some(2000), 0).has(&point(*steps.last().unwrap())));
}

#[test]
fn points_that_a_tracker_refuses_are_sent_again() {
    let Steering { mut lane, permits, got, path, _folder } = steered();
    permits.send(false).unwrap();
    lane.log(&Arc::new(point(1)));
    lane.log(&Arc::new(point(2)));
    permits.send(true).unwrap();
    drop(permits);
    lane.end(Outcome::Finished).join();
    let steps: Vec<u64> = got.iter().flatten().collect();
    assert_eq!(steps, [1, 2]);
    let memory = Memory::load(&path, Some(2), 0);
    assert!(memory.has(&point(2)) && !memory.has(&point(3)));
    assert_ne!(memory.id(), Memory::load(&path, None, 0).id(), "a new run has another identifier");
}

#[test]
fn a_run_that_goes_back_sends_its_steps_again() {
    let Steering { mut lane, permits, got, path, _folder } = steered();
    drop(permits);
    for step in 1..=3 {
        lane.log(&Arc::new(point(step)));
    }
    lane.end(Outcome::Stopped).join();
    assert_eq!(got.iter().flatten().collect::<Vec<u64>>(), [1, 2, 3]);
    let resumed = Memory::load(&path, Some(1), 0);
    assert!(resumed.has(&point(3)), "a resumed run repeats what was sent");
    let mut returned = Memory::load(&path, Some(1), 1);
    assert!(returned.has(&point(1)) && !returned.has(&point(2)));
    returned.set_server_id(Some("r1".to_owned()));
    // The same rollback counts once.
    let again = Memory::load(&path, Some(1), 1);
    assert_eq!((again.id(), again.rollbacks()), (resumed.id(), 1));
}

/// A server that answers with a function of path and body, and remembers both.
#[derive(Clone)]
struct Fake {
    url: String,
    requests: Arc<Mutex<Vec<(String, Value)>>>,
}

type Answerer = fn(&str, &Value, usize) -> (u16, Value);

fn fake(answer: Answerer) -> Fake {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let fake = Fake { url, requests: Arc::default() };
    let state = (fake.clone(), answer);
    let handle = |State((fake, answer)): State<(Fake, Answerer)>, uri: Uri, body: String| async move {
        let body = serde_json::from_str(&body).unwrap_or(Value::Null);
        let path = uri.to_string();
        let mut requests = fake.requests.lock().unwrap();
        let (status, reply) = answer(&path, &body, requests.len());
        requests.push((path, body));
        (StatusCode::from_u16(status).unwrap(), reply.to_string())
    };
    let app = Router::new().fallback(handle).with_state(state);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, app).await.unwrap();
        });
    });
    fake
}

impl Fake {
    fn paths(&self) -> Vec<String> {
        self.requests.lock().unwrap().iter().map(|(path, _)| path.clone()).collect()
    }

    fn bodies(&self, path: &str) -> Vec<Value> {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|(it, _)| it.contains(path)).map(|(_, body)| body.clone()).collect()
    }
}

fn server(url: &str) -> ServerSettings {
    ServerSettings { url: url.to_owned(), token_file: None, timeout: Duration::from_secs(10) }
}

fn settings() -> TrackingSettings {
    TrackingSettings {
        project: "demo 1".to_owned(),
        name: "first".to_owned(),
        parameters: vec![("seed".to_owned(), "7".to_owned())],
        ..TrackingSettings::default()
    }
}

#[test]
fn mlflow_gets_a_run_once_and_its_points_in_order() {
    let fake = fake(|path, body, _| match path {
        _ if path.contains("get-by-name") => {
            (404, json!({"error_code": "RESOURCE_DOES_NOT_EXIST"}))
        }
        _ if path.ends_with("experiments/create") => (200, json!({"experiment_id": "3"})),
        _ if path.ends_with("runs/create") => {
            assert_eq!(body["experiment_id"], "3");
            (200, json!({"run": {"info": {"run_id": "r1"}}}))
        }
        _ => (200, json!({})),
    });
    let folder = tempfile::tempdir().unwrap();
    let settings = TrackingSettings { mlflow: Some(server(&fake.url)), ..settings() };
    let mut trackers = Trackers::start(&settings, folder.path(), &[], 0);
    trackers.log(point(1));
    trackers.end(Outcome::Stopped);
    // The resumed run has lost step 2 on its way, and repeats none.
    let mut trackers = Trackers::start(&settings, folder.path(), &[row(1), row(2)], 0);
    trackers.log(point(3));
    trackers.end(Outcome::Finished);
    let paths = fake.paths();
    assert!(paths[0].ends_with("get-by-name?experiment_name=demo%201"), "{paths:?}");
    assert_eq!(fake.bodies("runs/create").len(), 1, "{paths:?}");
    let metrics: Vec<Value> = fake.bodies("log-batch");
    assert_eq!(metrics[0]["params"], json!([{"key": "seed", "value": "7"}]));
    let em: Vec<(f64, u64)> = metrics
        .iter()
        .flat_map(|body| body["metrics"].as_array().cloned().unwrap_or_default())
        .filter(|metric| metric["key"] == "train/em")
        .map(|metric| (metric["value"].as_f64().unwrap(), metric["step"].as_u64().unwrap()))
        .collect();
    assert_eq!(em, [(0.5, 1), (0.5, 2), (0.5, 3)]);
    let updates: Vec<Value> =
        fake.bodies("runs/update").iter().map(|body| body["status"].clone()).collect();
    assert_eq!(updates, ["KILLED", "RUNNING", "FINISHED"]);
}

#[test]
fn a_run_that_mlflow_has_lost_is_created_again() {
    let fake = fake(|path, _, count| match path {
        _ if path.ends_with("runs/create") => {
            (200, json!({"run": {"info": {"run_id": format!("r{count}")}}}))
        }
        _ if path.contains("get-by-name") => (200, json!({"experiment": {"experiment_id": "0"}})),
        _ if path.ends_with("runs/update") && count > 4 => (404, json!({})),
        _ => (200, json!({})),
    });
    let folder = tempfile::tempdir().unwrap();
    let settings = TrackingSettings { mlflow: Some(server(&fake.url)), ..settings() };
    for (step, history) in [(1, vec![]), (2, vec![row(1)])] {
        let mut trackers = Trackers::start(&settings, folder.path(), &history, 0);
        trackers.log(point(step));
        trackers.end(Outcome::Finished);
    }
    assert_eq!(fake.bodies("runs/create").len(), 2, "{:?}", fake.paths());
}

#[test]
fn trackio_gets_points_that_it_can_tell_apart() {
    let fake = fake(|_, _, count| match count {
        0 => (500, json!({"error": "busy"})),
        1 => (200, json!({"error": "no such project"})),
        _ => (200, json!({"data": null})),
    });
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "secret\n").unwrap();
    let server = ServerSettings { token_file: Some(token), ..server(&fake.url) };
    let settings = TrackingSettings { trackio: Some(server), ..settings() };
    let mut trackers = Trackers::start(&settings, folder.path(), &[], 0);
    trackers.log(point(1));
    trackers.end(Outcome::Finished);
    assert_eq!(fake.paths(), ["/api/bulk_log"; 3]);
    let bodies = fake.bodies("bulk_log");
    assert_eq!(bodies[0], bodies[2], "the same identifiers again");
    let log = &bodies[2]["kwargs"]["logs"][0];
    assert_eq!((&log["project"], &log["run"]), (&json!("demo 1"), &json!("first")));
    assert_eq!((&log["step"], &log["metrics"]["train/em"]), (&json!(1), &json!(0.5)));
    let id = log["run_id"].as_str().unwrap();
    assert_eq!(log["log_id"], format!("{id}-0-2"));
}

#[test]
fn a_tracker_that_cannot_be_opened_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tensorboard"), "not a folder").unwrap();
    let settings = TrackingSettings { tensorboard: true, wandb: true, ..settings() };
    let mut trackers = Trackers::start(&settings, folder.path(), &[], 0);
    assert_eq!(trackers.lanes.len(), 1);
    trackers.log(point(1));
    trackers.end(Outcome::Failed);
}
