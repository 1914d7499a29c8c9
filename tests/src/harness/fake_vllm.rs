//! A server with vLLM's protocol that samples with the trainer's own engine, from the weights that it was
//! asked to load. It can be killed and restarted; after a restart it has its original weights.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use trainer::engine::{
    BuiltinEngine, BuiltinEngineConfig, Engine as _, GenerateRequest, Sampling, SamplingKey,
    StopRule,
};
use trainer::policy::{Decoder, Policy, select_compute};
use trainer::token::Tokenizer;

use crate::harness::wait::wait_for_event;

const CONTEXT_TOKENS: usize = 512;
/// Most events that wait for the test: far more than a test causes.
const EVENTS_MAX: usize = 1 << 16;

/// An event of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EngineEvent {
    /// The server died during this turn.
    Died,
    /// The connection was closed because the server is dead.
    Lost,
    /// Weights were loaded.
    Loaded,
}

/// The state of the server.
#[derive(Debug)]
struct State {
    /// The model folder whose weights sample turns.
    folder: PathBuf,
    weights_name: String,
    is_dead: bool,
    /// Number of turns until the server dies.
    turns_left: Option<usize>,
    turns: usize,
}

/// A running server.
pub(crate) struct FakeVllm {
    pub(crate) url: String,
    start: PathBuf,
    state: Arc<Mutex<State>>,
    events: Receiver<EngineEvent>,
}

impl FakeVllm {
    /// Serves the model of `folder`. If `turns` is given, dies in the turn after that many.
    pub(crate) fn start(folder: &Path, turns: Option<usize>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = State {
            folder: folder.to_owned(),
            weights_name: "default".to_owned(),
            is_dead: false,
            turns_left: turns,
            turns: 0,
        };
        let state = Arc::new(Mutex::new(state));
        let (sender, events) = sync_channel(EVENTS_MAX);
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            let tokenizer = Tokenizer::from_folder(&shared.lock().unwrap().folder).unwrap();
            for stream in listener.incoming().flatten() {
                serve(stream, &tokenizer, &shared, &sender);
            }
        });
        Self { url, start: folder.to_owned(), state, events }
    }

    /// Waits for the next event of this kind and skips other events before it.
    pub(crate) fn wait_for(&self, wanted: EngineEvent) {
        wait_for_event(&self.events, wanted);
    }

    /// Restarts the server with its original weights.
    pub(crate) fn revive(&self) {
        let mut state = self.state.lock().unwrap();
        state.folder.clone_from(&self.start);
        "default".clone_into(&mut state.weights_name);
        state.is_dead = false;
    }

    /// Returns the number of answered turns.
    pub(crate) fn turns(&self) -> usize {
        self.state.lock().unwrap().turns
    }
}

fn serve(
    mut stream: TcpStream,
    tokenizer: &Tokenizer,
    state: &Mutex<State>,
    events: &SyncSender<EngineEvent>,
) {
    let mut state = state.lock().unwrap();
    if state.is_dead {
        let _ = events.send(EngineEvent::Lost);
        return;
    }
    let Some((path, body)) = read(&stream) else { return };
    let answer = match path.as_str() {
        "/v1/models" => json!({"data": [{"id": "policy", "max_model_len": CONTEXT_TOKENS}]}),
        "/weight_info" => json!({"weight_version": state.weights_name}),
        "/collective_rpc" => {
            assert_eq!(body["method"], "reload_weights");
            state.folder = PathBuf::from(body["kwargs"]["weights_path"].as_str().unwrap());
            let _ = events.send(EngineEvent::Loaded);
            json!({"results": [null]})
        }
        "/update_weight_version" => {
            body["new_version"].as_str().unwrap().clone_into(&mut state.weights_name);
            json!({"success": true})
        }
        "/v1/completions" => {
            if state.turns_left == Some(0) {
                state.turns_left = None;
                state.is_dead = true;
                let _ = events.send(EngineEvent::Died);
                return;
            }
            state.turns_left = state.turns_left.map(|turns| turns - 1);
            state.turns += 1;
            sampled(&state.folder, &body, tokenizer)
        }
        "/pause?mode=abort" | "/reset_prefix_cache" | "/resume" => json!({"status": "ok"}),
        other => panic!("unknown path {other}"),
    };
    let text = answer.to_string();
    // A client that cancelled may have closed the connection: ignore the error.
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: \
         close\r\n\r\n{text}",
        text.len()
    );
}

/// Reads the path and the body of a request.
fn read(stream: &TcpStream) -> Option<(String, Value)> {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        let lower = line.trim().to_ascii_lowercase();
        if lower.is_empty() {
            break;
        }
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if head.is_empty() {
            head = line;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    Some((path, serde_json::from_slice(&body).unwrap_or(Value::Null)))
}

/// Samples one turn with the weights of `folder`.
fn sampled(folder: &Path, body: &Value, tokenizer: &Tokenizer) -> Value {
    let compute = select_compute("cpu", "f32").unwrap();
    let policy = Policy::load(folder, compute).unwrap();
    let decoder = Decoder::new(&policy.config, CONTEXT_TOKENS, compute.device);
    let config = BuiltinEngineConfig {
        max_sequences: 1,
        max_context_tokens: CONTEXT_TOKENS,
        max_prefill_tokens: CONTEXT_TOKENS,
        cache_tokens: 0,
        share_prompts: true,
    };
    let mut engine = BuiltinEngine::new(decoder, policy.detached_weights(), config);
    let texts = |key: &str| -> Vec<String> {
        let items = body[key].as_array().unwrap().iter();
        items.map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let prompt = body["prompt"].as_array().unwrap();
    let request = GenerateRequest {
        sequence: 0,
        append: prompt.iter().map(|id| id.as_u64().unwrap() as u32).collect(),
        max_new_tokens: body["max_tokens"].as_u64().unwrap() as usize,
        stop: StopRule { stop_at: texts("stop"), cut_after: Vec::new() },
        sampling: Sampling {
            temperature: body["temperature"].as_f64().unwrap() as f32,
            top_p: body["top_p"].as_f64().unwrap() as f32,
        },
        key: SamplingKey { seed: body["seed"].as_u64().unwrap(), step: 0, prompt: 0, sample: 0 },
    };
    engine.submit(request).unwrap();
    let mut ended = Vec::new();
    while ended.is_empty() {
        ended = engine.step(tokenizer).unwrap();
    }
    let turn = &ended[0];
    let length = turn.stop == trainer::engine::StopReason::Length;
    json!({"choices": [{
        "index": 0,
        "finish_reason": if length { "length" } else { "stop" },
        "token_ids": turn.token_ids,
        "logprobs": {"token_logprobs": turn.log_probs},
    }]})
}
