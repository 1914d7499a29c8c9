//! A server that speaks vLLM's or SGLang's protocol and sends the answers that a test sets. Each character is
//! one token.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};

use crate::engine::external::Dialect;

/// The answer to a turn.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// Characters, and the reason for their end.
    Text(&'static str, &'static str),
    /// Token ids, ended by the length limit.
    Ids(Vec<u32>),
    /// An error status.
    Status(u16),
    /// No answer: the connection breaks.
    Break,
    /// No answer until the client closes the connection.
    Hold,
    /// Characters that are sampled after an unnoticed restart.
    Restarted(&'static str),
}

/// The state of the server and its record of requests.
#[derive(Debug, Default)]
pub(super) struct ServerState {
    /// The answers to the next turns; later turns get "a</answer>".
    pub(super) answers: VecDeque<Answer>,
    pub(super) turns: Vec<Value>,
    /// The paths of all requests except turns.
    pub(super) others: Vec<String>,
    pub(super) loaded: Vec<String>,
    pub(super) weights: String,
    pub(super) context: usize,
    /// `true` if every connection is closed immediately.
    pub(super) dead: bool,
}

pub(super) struct FakeServer {
    pub(super) url: String,
    state: Arc<Mutex<ServerState>>,
    /// Receives a message for each client that closed the connection of a held turn.
    pub(super) gone: Receiver<()>,
}

impl FakeServer {
    pub(super) fn start(dialect: Dialect, answers: &[Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = ServerState {
            answers: answers.iter().cloned().collect(),
            weights: "default".to_owned(),
            context: 1000,
            ..ServerState::default()
        };
        let state = Arc::new(Mutex::new(state));
        let (sender, gone) = sync_channel(1);
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, sender) = (Arc::clone(&shared), sender.clone());
                std::thread::spawn(move || serve(stream, dialect, &shared, &sender));
            }
        });
        Self { url, state, gone }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, ServerState> {
        self.state.lock().unwrap()
    }

    /// Stops answering, or answers again without the loaded weights.
    pub(super) fn set_dead(&self, dead: bool) {
        let mut state = self.state();
        state.dead = dead;
        state.weights = "default".to_owned();
    }

    /// Returns the contexts of all turns as text.
    pub(super) fn prompts(&self) -> Vec<String> {
        let text = |turn: &Value| {
            let ids = turn.get("prompt").unwrap_or(&turn["input_ids"]).as_array().unwrap();
            ids.iter().map(|id| char::from_u32(id.as_u64().unwrap() as u32).unwrap()).collect()
        };
        self.state().turns.iter().map(text).collect()
    }
}

fn serve(stream: TcpStream, dialect: Dialect, state: &Mutex<ServerState>, gone: &SyncSender<()>) {
    if state.lock().unwrap().dead {
        return;
    }
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let lower = line.trim().to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if lower.is_empty() {
            break;
        }
        if head.is_empty() {
            head = line;
        }
    }
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let answer = if path == "/v1/completions" || path == "/generate" {
        let next = {
            let mut state = state.lock().unwrap();
            state.turns.push(body);
            state.answers.pop_front().unwrap_or(Answer::Text("a</answer>", "stop"))
        };
        match next {
            Answer::Break => return,
            Answer::Hold => {
                // Returns when the client closes its side.
                let _ = reader.read(&mut [0]);
                let _ = gone.try_send(());
                return;
            }
            Answer::Status(status) => (status, json!({"error": "what the test wants"})),
            Answer::Text(text, finish) => {
                (200, turn(dialect, &ids_of(text), finish, &state.lock().unwrap()))
            }
            Answer::Ids(ids) => (200, turn(dialect, &ids, "length", &state.lock().unwrap())),
            Answer::Restarted(text) => {
                let mut state = state.lock().unwrap();
                state.weights = "default".to_owned();
                (200, turn(dialect, &ids_of(text), "stop", &state))
            }
        }
    } else {
        (200, other(&path, &body, &mut state.lock().unwrap()))
    };
    respond(stream, answer.0, &answer.1.to_string());
}

pub(super) fn ids_of(text: &str) -> Vec<u32> {
    text.chars().map(u32::from).collect()
}

/// Returns the answer to a turn, in which every token has the log-prob -0.5.
fn turn(dialect: Dialect, ids: &[u32], finish: &str, state: &ServerState) -> Value {
    match dialect {
        Dialect::Vllm => json!({"choices": [{
            "index": 0,
            "finish_reason": finish,
            "token_ids": ids,
            "logprobs": {"token_logprobs": vec![-0.5; ids.len()]},
        }]}),
        Dialect::Sglang => {
            let listed: Vec<Value> = ids.iter().map(|id| json!([-0.5, id, null])).collect();
            json!({"output_ids": ids, "meta_info": {
                "finish_reason": {"type": finish},
                "output_token_logprobs": listed,
                "weight_version": state.weights,
            }})
        }
    }
}

/// Returns the answer to any other request.
fn other(path: &str, body: &Value, state: &mut ServerState) -> Value {
    state.others.push(path.to_owned());
    match path {
        "/v1/models" => json!({"data": [{"id": "policy", "max_model_len": state.context}]}),
        "/weight_info" => json!({"weight_version": state.weights}),
        "/model_info" => json!({"model_path": "m", "weight_version": state.weights}),
        "/collective_rpc" => {
            state.loaded.push(body["kwargs"]["weights_path"].as_str().unwrap().to_owned());
            json!({"results": [null]})
        }
        "/update_weight_version" => {
            state.weights = body["new_version"].as_str().unwrap().to_owned();
            json!({"success": true})
        }
        "/update_weights_from_disk" => {
            state.loaded.push(body["model_path"].as_str().unwrap().to_owned());
            state.weights = body["weight_version"].as_str().unwrap().to_owned();
            json!({"success": true, "message": "", "num_paused_requests": 0})
        }
        _ => json!({"status": "ok"}),
    }
}

fn respond(mut stream: TcpStream, status: u16, body: &str) {
    let length = body.len();
    // A client that has stopped waiting may have closed the connection, which is not an error here.
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    );
}
