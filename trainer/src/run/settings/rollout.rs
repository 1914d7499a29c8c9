//! Limits, sampling, engine and searcher of episodes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use shared::contract::client::{ClientConfig, RequestHeaders, RetrieveClient};
use shared::contract::retry::RetryPolicy;
use shared::machine::traces::{TraceConfig, Traces};
use tracing::warn;

use crate::config::{Compat, Config, ConfigError, EngineKind, Problem};
use crate::engine::{Dialect, RunnerChoice, Sampling};
use crate::reward::RewardRules;
use crate::rollout::observation::ObservationBudget;
use crate::rollout::scheduler::{RolloutSettings, default_stop_rule, reference_stop_rule};
use crate::search::http::{HttpSearcher, trace_headers};
use crate::search::record::{RecordMode, RecordSettings, RecordedSearcher};
use crate::stop::StopFlag;

use super::questions::{self, QuestionFiles};
use super::reward;

/// An episode ends when its context has space for fewer tokens of a turn than this.
const MIN_TURN_TOKENS: usize = 8;

/// Name of the record of searches in a run's folder.
const RECORD_FILE: &str = "searches.jsonl";

/// The most likely token, always.
pub(crate) const GREEDY: Sampling = Sampling { temperature: 0.0, top_p: 1.0 };

/// The sizes of the built-in engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EngineSettings {
    pub(crate) runner: RunnerChoice,
    /// Limit of prompt and passage tokens in one pass.
    pub(crate) max_prefill_tokens: usize,
    /// Memory for keys and values; 0 takes what all episodes can need.
    pub(crate) kv_cache_mib: usize,
}

/// The settings of training's rollouts.
#[derive(Clone, Debug)]
pub(crate) struct PlayerSettings {
    /// The limits of episodes; each rollout has a stop of its own.
    pub(crate) episodes: RolloutSettings,
    pub(crate) searcher: SearcherSettings,
    pub(crate) engine: EngineChoice,
    /// Steps by which rollouts go ahead of the updates; 0 plays between them.
    pub(crate) max_staleness: u64,
    /// Steps of the whole run.
    pub(crate) steps: u64,
    /// Steps between timelines; 0 makes none.
    pub(crate) trace_every_steps: usize,
}

/// The engine that samples.
#[derive(Clone, Debug)]
pub(crate) enum EngineChoice {
    Builtin(EngineSettings),
    Servers(FleetSettings),
}

/// Servers that sample, and the folder through which they get weights.
#[derive(Clone, Debug)]
pub(crate) struct FleetSettings {
    pub(crate) dialect: Dialect,
    /// Base addresses, one per replica.
    pub(crate) urls: Vec<String>,
    pub(crate) attempt_timeout: Duration,
    pub(crate) retry: RetryPolicy,
    pub(crate) max_in_flight: usize,
    /// The folder of the weights as this process sees it.
    pub(crate) weights_here: PathBuf,
    /// The same folder as the servers see it, if under another path.
    pub(crate) weights_there: Option<PathBuf>,
}

/// The settings of an evaluation.
#[derive(Clone, Debug)]
pub(crate) struct EvalSettings {
    /// The model's name in results.
    pub(crate) model: String,
    pub(crate) questions: QuestionFiles,
    /// The corpus from which random passages are drawn.
    pub(crate) corpus: Option<PathBuf>,
    pub(crate) seed: u64,
    /// Limit of concurrent episodes.
    pub(crate) batch: usize,
    pub(crate) searcher: SearcherSettings,
    pub(crate) engine: EngineSettings,
    /// Servers that sample instead of the built-in engine.
    pub(crate) servers: Option<FleetSettings>,
    pub(crate) episodes: RolloutSettings,
    pub(crate) reward: RewardRules,
}

impl EvalSettings {
    /// Returns the number of episodes that run concurrently.
    ///
    /// # Errors
    /// Those of reading the questions.
    pub(crate) fn running(&self) -> anyhow::Result<usize> {
        Ok(self.batch.min(self.questions.records()?.len()))
    }
}

/// The retriever that searches are sent to.
#[derive(Clone, Debug)]
pub(crate) struct SearcherSettings {
    client: ClientConfig,
    max_in_flight: usize,
    /// The collector of traces, if there is one.
    traces: Option<TraceConfig>,
    record: RecordSettings,
}

impl SearcherSettings {
    /// Starts a searcher, with a retriever unless a record is replayed.
    ///
    /// # Errors
    /// An invalid address, no thread for the requests, retrievers that do not serve the same, or a record that cannot be
    /// used.
    pub(crate) fn open(&self) -> anyhow::Result<RecordedSearcher> {
        let is_replay = self.record.mode == RecordMode::Replay;
        let live = if is_replay { None } else { Some(self.open_live()?) };
        Ok(RecordedSearcher::open(live, &self.record)?)
    }

    /// Starts the searcher of the retriever. Of several retrievers, those that answer now are compared.
    fn open_live(&self) -> anyhow::Result<HttpSearcher> {
        let searcher = HttpSearcher::new(self.client.clone(), self.max_in_flight)?;
        searcher.compare_retrievers().map_err(|mixed| {
            let (value, reason) = (format!("{:?}", self.client.url), format!("is a mix: {mixed}"));
            ConfigError::Invalid(vec![Problem::of_value("retriever.url", value, reason)])
        })?;
        Ok(match &self.traces {
            Some(traces) => searcher.with_traces(Traces::start("trainer", traces)?),
            None => searcher,
        })
    }

    /// Returns a client for single queries.
    ///
    /// # Errors
    /// An invalid address.
    pub(crate) fn client(&self) -> anyhow::Result<RetrieveClient> {
        Ok(RetrieveClient::new(self.client.clone())?)
    }
}

/// Returns the retriever of `config`.
pub(crate) fn searcher(config: &Config) -> SearcherSettings {
    let retriever = &config.retriever;
    let mut client = ClientConfig::new(retriever.url.as_str());
    client.attempt_timeout = (retriever.attempt_timeout_ms > 0)
        .then_some(Duration::from_millis(retriever.attempt_timeout_ms));
    client.retry.deadline = Duration::from_millis(retriever.deadline_ms);
    client.hedge_percent = retriever.hedge_percent as u32;
    let endpoint = Some(retriever.otlp_endpoint.clone()).filter(|endpoint| !endpoint.is_empty());
    let traces = endpoint.map(|endpoint| TraceConfig { endpoint, sample_ratio: 1.0 });
    let key_file = retriever.api_key_file.clone();
    client.request_headers = RequestHeaders::new(move || {
        let mut headers = trace_headers();
        headers.extend(key_file.as_deref().and_then(authorization));
        headers
    });
    let record = RecordSettings {
        mode: config.record.mode,
        file: config.record.file.clone().unwrap_or_else(|| config.run_dir.join(RECORD_FILE)),
        on_miss: config.record.on_miss,
        source: config.record.source.clone(),
        patience: client.retry.deadline,
    };
    SearcherSettings { client, max_in_flight: retriever.max_in_flight, traces, record }
}

/// Returns the header with the key in `file`. The file is read for each request, so that its key can be replaced during a
/// run. Without a key, the retriever refuses the request with its own words.
fn authorization(file: &Path) -> Option<(HeaderName, HeaderValue)> {
    let key = std::fs::read_to_string(file)
        .inspect_err(|error| warn!(file = %file.display(), %error, "the API key cannot be read"))
        .ok()?;
    let mut value = HeaderValue::from_str(&format!("Bearer {}", key.trim())).ok()?;
    value.set_sensitive(true);
    Some((AUTHORIZATION, value))
}

/// Returns the runner that `config` computes rollouts with.
pub(crate) fn runner(config: &Config) -> RunnerChoice {
    RunnerChoice { kind: config.rollout.runner, format: config.rollout.weights }
}

/// Returns the sizes of the built-in engine.
pub(crate) fn engine(config: &Config) -> EngineSettings {
    EngineSettings {
        runner: runner(config),
        max_prefill_tokens: config.rollout.max_prefill_tokens,
        kv_cache_mib: config.rollout.kv_cache_mib,
    }
}

/// Returns the sampling of evaluation, `chat` and `serve`.
pub(crate) fn eval_sampling(config: &Config) -> Sampling {
    Sampling { temperature: config.eval.temperature as f32, top_p: 1.0 }
}

/// Returns how at most `running` episodes are played concurrently with this sampling, until `stop` is raised.
pub(crate) fn episodes(
    config: &Config,
    sampling: Sampling,
    running: usize,
    stop: &StopFlag,
) -> RolloutSettings {
    let rollout = &config.rollout;
    RolloutSettings {
        max_turns: rollout.max_turns,
        top_k: config.retriever.top_k,
        max_turn_tokens: rollout.max_response_tokens,
        min_turn_tokens: MIN_TURN_TOKENS.min(rollout.max_response_tokens),
        observation: ObservationBudget {
            max_tokens: rollout.max_observation_tokens,
            max_passage_tokens: rollout.max_passage_tokens,
        },
        max_context_tokens: usize::MAX,
        max_running_episodes: running,
        sampling,
        stop: match config.compat {
            Compat::None => default_stop_rule(),
            Compat::SearchR1 => reference_stop_rule(),
        },
        search_batch: Duration::from_millis(rollout.search_batch_ms),
        deterministic: config.deterministic,
        enough_prompts: None,
        stop_flag: stop.clone(),
    }
}

/// Returns how training plays its episodes.
pub(crate) fn training_rollouts(config: &Config) -> PlayerSettings {
    let sampling = Sampling {
        temperature: config.rollout.temperature as f32,
        top_p: config.rollout.top_p as f32,
    };
    let running = config.rollout.max_sequences;
    PlayerSettings {
        episodes: episodes(config, sampling, running, &StopFlag::never()),
        searcher: searcher(config),
        engine: match fleet(config) {
            None => EngineChoice::Builtin(engine(config)),
            Some(servers) => EngineChoice::Servers(servers),
        },
        max_staleness: config.rollout.max_staleness,
        steps: config.training.steps as u64,
        trace_every_steps: config.trace_every_steps,
    }
}

/// Returns the servers that `config` samples with; `None` with the built-in engine.
fn fleet(config: &Config) -> Option<FleetSettings> {
    let dialect = match config.engine.kind {
        EngineKind::Builtin => return None,
        EngineKind::Vllm => Dialect::Vllm,
        EngineKind::Sglang => Dialect::Sglang,
    };
    let engine = &config.engine;
    Some(FleetSettings {
        dialect,
        urls: engine.addresses(),
        attempt_timeout: Duration::from_millis(engine.attempt_timeout_ms),
        retry: RetryPolicy {
            deadline: Duration::from_millis(engine.deadline_ms),
            ..RetryPolicy::default()
        },
        max_in_flight: engine.max_in_flight,
        weights_here: config.run_dir.join("rollout-weights"),
        weights_there: engine.weights_dir.clone(),
    })
}

/// Returns how `config` evaluates.
pub(crate) fn evaluation(config: &Config) -> EvalSettings {
    EvalSettings {
        model: config.model.path.display().to_string(),
        questions: questions::held_out_questions(config),
        corpus: config.data.corpus.clone(),
        seed: config.seed,
        batch: config.eval.batch,
        searcher: searcher(config),
        engine: engine(config),
        servers: fleet(config),
        episodes: episodes(config, eval_sampling(config), 0, &StopFlag::never()),
        reward: reward::reward(config),
    }
}
