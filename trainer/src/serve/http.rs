//! The routes, and the path of a request from its bytes to the engine's thread and back.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{Receiver, channel};
use tower_http::catch_panic::CatchPanicLayer;

use super::conversations::{AgentEvent, Question};
use super::error::ApiError;
use super::request::{ChatRequest, Defaults};
use super::response::{Completion, Heading, event_chunk, first_chunk, last_chunk, usage_chunk};
use crate::data::PromptTemplate;
use crate::engine::Sampling;
use crate::token::Tokenizer;

/// Most events that a client may leave unread before it counts as gone: a long episode has fewer.
const WAITING_EVENTS_MAX: usize = 16_384;

/// Prompt, defaults and limits of the server.
#[derive(Debug)]
pub struct ServerSettings {
    /// The model's name in the API.
    pub name: String,
    pub tokenizer: Tokenizer,
    pub template: PromptTemplate,
    pub max_prompt_tokens: usize,
    pub max_body_bytes: usize,
    /// Most questions that run or wait.
    pub max_questions: usize,
    /// The sampling of requests that do not set it.
    pub sampling: Sampling,
    /// Seed of the first request without its own; each later one uses the next number.
    pub seed: u64,
}

/// The state that the routes share.
#[derive(Debug)]
pub struct Served {
    settings: ServerSettings,
    /// The channel to the engine; `None` once the server is draining.
    questions: Mutex<Option<SyncSender<Question>>>,
    /// One permit for each question that runs or waits.
    permits: Arc<Semaphore>,
    requests: AtomicU64,
    is_draining: AtomicBool,
    started: u64,
}

impl Served {
    /// Creates the state. `questions` must have a capacity of `settings.max_questions`.
    pub fn new(settings: ServerSettings, questions: SyncSender<Question>) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(settings.max_questions)),
            settings,
            questions: Mutex::new(Some(questions)),
            requests: AtomicU64::new(0),
            is_draining: AtomicBool::new(false),
            started: now_seconds(),
        }
    }

    /// Refuses new questions from now on; accepted ones are still answered.
    pub fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
        *self.questions.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn send(&self, question: Question) -> Result<(), ApiError> {
        let questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = questions.as_ref().ok_or(ApiError::ShuttingDown)?;
        sender.try_send(question).map_err(|error| match error {
            // Not reached while the channel has as many slots as there are permits.
            TrySendError::Full(_) => ApiError::Overloaded,
            TrySendError::Disconnected(_) => ApiError::ShuttingDown,
        })
    }
}

/// Returns the router with all routes.
pub fn router(served: Arc<Served>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(complete))
        .route("/v1/models", get(models))
        .route("/healthz", get(|| async { axum::Json(json!({"status": "ok"})) }))
        .route("/readyz", get(ready))
        .fallback(|| async { ApiError::NotFound })
        .method_not_allowed_fallback(|| async { ApiError::NotFound })
        .with_state(served)
        .layer(CatchPanicLayer::custom(|_| ApiError::Internal.into_response()))
}

async fn ready(State(served): State<Arc<Served>>) -> Response {
    if served.is_draining.load(Ordering::Relaxed) {
        ApiError::ShuttingDown.into_response()
    } else {
        axum::Json(json!({"status": "ready"})).into_response()
    }
}

async fn models(State(served): State<Arc<Served>>) -> axum::Json<Value> {
    axum::Json(json!({"object": "list", "data": [{
        "id": served.settings.name, "object": "model", "created": served.started,
        "owned_by": "search-r1",
    }]}))
}

async fn complete(State(served): State<Arc<Served>>, request: Request) -> Response {
    match begin(&served, request).await {
        Ok((request, heading, events)) if request.stream => {
            in_chunks(heading, events, request.include_usage).into_response()
        }
        Ok((_, heading, events)) => match whole(&heading, events).await {
            Ok(body) => axum::Json(body).into_response(),
            Err(error) => error.into_response(),
        },
        Err(error) => error.into_response(),
    }
}

/// Parses a request and sends its question to the engine.
async fn begin(
    served: &Served,
    request: Request<Body>,
) -> Result<(ChatRequest, Heading, Receiver<AgentEvent>), ApiError> {
    let settings = &served.settings;
    let limit_bytes = settings.max_body_bytes;
    let body = to_bytes(request.into_body(), limit_bytes)
        .await
        .map_err(|_| ApiError::TooLarge { limit_bytes })?;
    let defaults = Defaults { sampling: settings.sampling, max_sampled_tokens: usize::MAX };
    let request = ChatRequest::parse(&body, defaults)?;
    if let Some(requested) = request.model.as_ref().filter(|model| **model != settings.name) {
        let (requested, served) = (requested.clone(), settings.name.clone());
        return Err(ApiError::NoSuchModel { requested, served });
    }
    let permits = Arc::clone(&served.permits);
    let permit = permits.try_acquire_owned().map_err(|_| ApiError::Overloaded)?;
    let (prompt_text, prompt_ids) = prompt(settings, &request.question)?;
    let number = served.requests.fetch_add(1, Ordering::Relaxed);
    let (sender, events) = channel(WAITING_EVENTS_MAX);
    served.send(Question {
        prompt_text,
        prompt_ids,
        sampling: request.sampling,
        seed: request.seed.unwrap_or_else(|| settings.seed.wrapping_add(number)),
        max_sampled_tokens: request.max_sampled_tokens,
        sender,
        permit,
    })?;
    let heading = Heading {
        id: format!("chatcmpl-{}-{number}", served.started),
        created: now_seconds(),
        model: settings.name.clone(),
        ignored_messages: request.ignored_messages,
    };
    Ok((request, heading, events))
}

fn prompt(settings: &ServerSettings, question: &str) -> Result<(String, Vec<u32>), ApiError> {
    let rendered = settings.template.render(question, &settings.tokenizer);
    let (text, ids) = rendered.map_err(|error| {
        tracing::error!(%error, "cannot render a prompt");
        ApiError::Internal
    })?;
    if ids.len() > settings.max_prompt_tokens {
        let limit = settings.max_prompt_tokens;
        let message = format!(
            "the prompt of this question has {} tokens: expected at most {limit} \
             (rollout.max_prompt_tokens)",
            ids.len()
        );
        return Err(ApiError::Invalid { param: Some("messages".to_owned()), message });
    }
    Ok((text, ids))
}

/// Collects the whole answer. Dropping this future drops the receiver, which cancels the episode.
async fn whole(heading: &Heading, mut events: Receiver<AgentEvent>) -> Result<Value, ApiError> {
    let mut completion = Completion::default();
    while let Some(event) = events.recv().await {
        match event {
            AgentEvent::SearchFailed { reason } => return Err(ApiError::SearchFailed { reason }),
            AgentEvent::Finished(finished) => return Ok(completion.body(heading, finished)),
            event => completion.add(&event),
        }
    }
    Err(ApiError::Internal)
}

/// The next part of a stream of chunks.
enum Stage {
    First,
    Running,
    /// The chunk with the usage, which the client requested.
    Usage(Value),
    Done,
    Over,
}

/// Streams the answer as server-sent events.
fn in_chunks(
    heading: Heading,
    events: Receiver<AgentEvent>,
    include_usage: bool,
) -> impl IntoResponse {
    let chunks = stream::unfold((Stage::First, events), move |(stage, mut events)| {
        let heading = heading.clone();
        async move {
            let (chunk, next) = match stage {
                Stage::First => (first_chunk(&heading), Stage::Running),
                Stage::Running => next_chunk(&heading, &mut events, include_usage).await,
                Stage::Usage(chunk) => (chunk, Stage::Done),
                Stage::Done => {
                    return Some((Ok(Event::default().data("[DONE]")), (Stage::Over, events)));
                }
                Stage::Over => return None,
            };
            Some((Ok::<_, Infallible>(Event::default().data(chunk.to_string())), (next, events)))
        }
    });
    Sse::new(chunks).keep_alive(KeepAlive::default())
}

async fn next_chunk(
    heading: &Heading,
    events: &mut Receiver<AgentEvent>,
    include_usage: bool,
) -> (Value, Stage) {
    loop {
        match events.recv().await {
            None => return (ApiError::Internal.body(), Stage::Done),
            Some(AgentEvent::SearchFailed { reason }) => {
                return (ApiError::SearchFailed { reason }.body(), Stage::Done);
            }
            Some(AgentEvent::Finished(finished)) => {
                let usage = include_usage.then(|| usage_chunk(heading, finished));
                let next = usage.map_or(Stage::Done, Stage::Usage);
                return (last_chunk(heading, finished), next);
            }
            Some(event) => {
                if let Some(chunk) = event_chunk(heading, &event) {
                    return (chunk, Stage::Running);
                }
            }
        }
    }
}

fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
