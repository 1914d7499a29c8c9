//! `trainer serve`: the trained agent as a chat endpoint.

use std::io::Write;
use std::net::TcpListener;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use shared::machine::shutdown::Shutdown;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::model::LoadedModel;
use super::settings;
use super::stopping::signals;
use crate::config::Config;
use crate::rollout::{RolloutError, roll_out_as_they_come};
use crate::serve::{Conversations, QuestionArrivals, Served, ServerSettings, router};
use crate::stop::{StopFlag, StopSwitch};

/// Time for responses to be written once every episode is over.
const MIN_CLOSING_TIME: Duration = Duration::from_secs(1);

/// Serves `model.path` at `serve.addr` until SIGTERM or SIGINT. Accepted questions are then answered within
/// `serve.grace_period_ms`.
///
/// # Errors
/// Anything wrong with model, address or retriever, named; and an engine that failed.
pub fn serve(config: &Config, out: &mut dyn Write) -> anyhow::Result<()> {
    let stop = signals()?;
    let address = &config.serve.addr;
    let listener = TcpListener::bind(address)
        .with_context(|| format!("serve.addr = {address}: cannot listen there"))?;
    serve_on(config, listener, &stop, out)
}

/// Serves like [`serve`], at an existing listener, until `stop` is raised.
///
/// # Errors
/// Those of [`serve`].
pub fn serve_on(
    config: &Config,
    listener: TcpListener,
    stop: &StopFlag,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let model = LoadedModel::open(&settings::model::model(config), &config.model.path)?;
    let running = config.rollout.max_sequences;
    let mut engine = model.engine(&settings::rollout::engine(config), running)?;
    let mut searcher = settings::rollout::searcher(config).open()?;
    let server = server_settings(config, &model)?;
    let (name, sampling) = (server.name.clone(), server.sampling);
    let (sender, questions) = mpsc::sync_channel(server.max_questions);
    let served = Arc::new(Served::new(server, sender));
    let address = listener.local_addr()?;
    let runtime = start_runtime()?;
    let abandon = StopSwitch::default();
    let episodes = settings::rollout::episodes(config, sampling, running, &abandon.flag());
    let server = runtime.spawn(listen(
        listener,
        served,
        Closing {
            stop: stop.clone(),
            grace_period: Duration::from_millis(config.serve.grace_period_ms),
            abandon,
        },
    ));
    writeln!(out, "serving {name} at http://{address}/v1")?;
    info!(%address, model = name, "serving");

    let conversations = Conversations::new(&model.tokenizer);
    let mut arrivals = QuestionArrivals::new(&conversations, questions);
    let mut observer = &conversations;
    let (engine, searcher) = (&mut engine, &mut searcher);
    let tokenizer = &model.tokenizer;
    let ended =
        roll_out_as_they_come(engine, searcher, tokenizer, &mut arrivals, &episodes, &mut observer);
    // Dropping the senders ends the requests whose episodes were cancelled.
    drop(arrivals);
    drop(conversations);
    match ended {
        Ok(()) | Err(RolloutError::Stopped(_)) => {}
        Err(error) => {
            runtime.shutdown_background();
            return Err(error).context("the engine failed, and with it the server");
        }
    }
    runtime.block_on(server)??;
    info!("ended");
    Ok(())
}

fn server_settings(config: &Config, model: &LoadedModel) -> anyhow::Result<ServerSettings> {
    let folder = &config.model.path;
    let name = if config.serve.name.is_empty() {
        folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned()
    } else {
        config.serve.name.clone()
    };
    Ok(ServerSettings {
        name,
        // Requests are read on other threads.
        tokenizer: model.another_tokenizer()?,
        template: settings::questions::prompts(config).template(&model.tokenizer)?,
        max_prompt_tokens: config.rollout.max_prompt_tokens,
        max_body_bytes: config.serve.max_body_bytes,
        max_questions: config.rollout.max_sequences + config.serve.max_waiting,
        sampling: settings::rollout::eval_sampling(config),
        seed: config.seed,
    })
}

fn start_runtime() -> anyhow::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.worker_threads(1).thread_name("serve").enable_all().build()?)
}

/// The end of a server.
struct Closing {
    stop: StopFlag,
    /// Limit of the wait for accepted questions.
    grace_period: Duration,
    /// Raised once running episodes are no longer waited for.
    abandon: StopSwitch,
}

/// Accepts connections until a stop is requested, then waits for the accepted questions.
async fn listen(
    listener: TcpListener,
    served: Arc<Served>,
    closing: Closing,
) -> anyhow::Result<()> {
    let Closing { stop, grace_period, abandon } = closing;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (close, closed) = tokio::sync::oneshot::channel::<()>();
    let serving = axum::serve(listener, router(Arc::clone(&served)));
    let serving = serving.with_graceful_shutdown(async move {
        let _ = closed.await;
    });
    let mut serving: JoinHandle<_> = tokio::spawn(async move { serving.await });
    tokio::select! {
        ended = &mut serving => return Ok(ended??),
        () = stop.raised() => {}
    }
    let deadline = Instant::now() + grace_period;
    served.drain();
    let _ = close.send(());
    let rest = deadline.saturating_duration_since(Instant::now());
    if tokio::time::timeout(rest, &mut serving).await.is_err() {
        warn!("the grace period ended before every question was answered");
        abandon.raise(Shutdown::Terminate);
        let _ = tokio::time::timeout(MIN_CLOSING_TIME, &mut serving).await;
        serving.abort();
    }
    abandon.raise(Shutdown::Terminate);
    Ok(())
}
