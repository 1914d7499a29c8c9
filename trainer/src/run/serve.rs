//! `trainer serve`: the trained agent as a chat endpoint.

use std::io::Write;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::loaded_model::{LoadedModel, http_searcher, prompt_template, rollout_config};
use super::signals;
use crate::config::Config;
use crate::engine::Sampling;
use crate::rollout::{RolloutError, roll_out_as_they_come};
use crate::serve::{Conversations, QuestionArrivals, Served, ServerSettings, router};
use crate::stop::StopFlag;
use crate::token::Tokenizer;

/// How often the wish to stop is looked at.
const STOP_SLICE: Duration = Duration::from_millis(20);
/// For what is left to be written to connections once every episode is over.
const MIN_CLOSING_TIME: Duration = Duration::from_secs(1);

/// Serves `model.path` at `serve.addr` until SIGTERM or SIGINT; questions that were taken on are answered within
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

/// As [`serve`], at a listener that is there, until `stop` wishes the end.
///
/// # Errors
/// Those of [`serve`].
pub fn serve_on(
    config: &Config,
    listener: TcpListener,
    stop: &StopFlag,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let folder = &config.model.path;
    let loaded = LoadedModel::open(config, folder)?;
    let running = config.rollout.max_sequences;
    let mut engine = loaded.engine(config, running)?;
    let mut searcher = http_searcher(config)?;
    let sampling = Sampling { temperature: config.eval.temperature as f32, top_p: 1.0 };
    let name = if config.serve.name.is_empty() {
        folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned()
    } else {
        config.serve.name.clone()
    };
    let settings = ServerSettings {
        name: name.clone(),
        // Its own, as requests are read on other threads.
        tokenizer: Tokenizer::from_folders(
            loaded.place.folder_with("tokenizer.json"),
            &loaded.place.base,
            config.model.chat_date,
        )?,
        template: prompt_template(config, &loaded.tokenizer)?,
        max_prompt_tokens: config.rollout.max_prompt_tokens,
        max_body_bytes: config.serve.max_body_bytes,
        max_questions: running + config.serve.max_waiting,
        sampling,
        seed: config.seed,
    };
    let (sender, questions) = mpsc::sync_channel(settings.max_questions);
    let served = Arc::new(Served::new(settings, sender));
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("serve")
        .enable_all()
        .build()?;
    // Once true, episodes that run are given up.
    let abandon = Arc::new(AtomicBool::new(false));
    let grace_period = Duration::from_millis(config.serve.grace_period_ms);
    let server = runtime.spawn(listen(
        listener,
        Arc::clone(&served),
        (stop.clone(), grace_period, Arc::clone(&abandon)),
    ));
    writeln!(out, "serving {name} at http://{address}/v1")?;
    info!(%address, model = name, "serving");

    let abandoned = Arc::clone(&abandon);
    let give_up = StopFlag::asking(move || {
        abandoned.load(Ordering::Relaxed).then_some(shared::shutdown::Shutdown::Terminate)
    });
    let rollout = rollout_config(config, sampling, running, &give_up);
    let conversations = Conversations::new(&loaded.tokenizer);
    let mut arrivals = QuestionArrivals::new(&conversations, questions);
    let mut observer = &conversations;
    let (engine, searcher) = (&mut engine, &mut searcher);
    let tokenizer = &loaded.tokenizer;
    let ended =
        roll_out_as_they_come(engine, searcher, tokenizer, &mut arrivals, &rollout, &mut observer);
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

/// Accepts connections until a stop is wished, then waits for what was taken on.
async fn listen(
    listener: TcpListener,
    served: Arc<Served>,
    (stop, grace_period, abandon): (StopFlag, Duration, Arc<AtomicBool>),
) -> anyhow::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (close, closed) = tokio::sync::oneshot::channel::<()>();
    let serving = axum::serve(listener, router(Arc::clone(&served)));
    let serving = serving.with_graceful_shutdown(async move {
        let _ = closed.await;
    });
    let mut serving: JoinHandle<_> = tokio::spawn(async move { serving.await });
    while stop.wish().is_none() {
        tokio::select! {
            ended = &mut serving => return Ok(ended??),
            () = tokio::time::sleep(STOP_SLICE) => {}
        }
    }
    let deadline = Instant::now() + grace_period;
    served.drain();
    let _ = close.send(());
    let rest = deadline.saturating_duration_since(Instant::now());
    if tokio::time::timeout(rest, &mut serving).await.is_err() {
        warn!("the grace period ended before every question was answered");
        abandon.store(true, Ordering::Relaxed);
        let _ = tokio::time::timeout(MIN_CLOSING_TIME, &mut serving).await;
        serving.abort();
    }
    abandon.store(true, Ordering::Relaxed);
    Ok(())
}
