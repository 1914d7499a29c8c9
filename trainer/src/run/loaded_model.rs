//! What every command starts from: model, tokenizer, questions, engine and searcher, made from the
//! configuration.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use shared::client::ClientConfig;
use shared::dataset::{QaRecord, read_qa_records};
use tch::{Device, Kind};
use tracing::info;

use crate::checkpoint::SaveForm;
use crate::config::{ActivationCheckpoints, CheckpointDtype, Compat, Config};
use crate::data::{Example, PromptStyle, PromptTemplate, examples};
use crate::engine::{
    BuiltinEngine, BuiltinEngineConfig, RunnerChoice, Sampling, SamplingKey, cache_tokens,
    cached_number_bytes, runner,
};
use crate::policy::{
    Compute, Decoder, Lora, LoraConfig, ModelPlace, Policy, base_name, select_compute, set_threads,
};
use crate::reward::{RewardConfig, RewardReading, StructuredScores};
use crate::rollout::episode::EpisodeJob;
use crate::rollout::observation::ObservationBudget;
use crate::rollout::scheduler::{
    RolloutEvent, RolloutObserver, RolloutSettings, default_stop_rule, reference_stop_rule,
};
use crate::search::http::HttpSearcher;
use crate::stop::StopFlag;
use crate::token::Tokenizer;
use crate::track::Progress;

/// An episode with less room than this for a turn ends instead.
const MIN_TURN_TOKENS: usize = 8;

/// A model ready to be rolled out and trained.
#[derive(Debug)]
pub(super) struct LoadedModel {
    /// What `policy` was read from.
    pub(super) place: ModelPlace,
    pub(super) tokenizer: Tokenizer,
    pub(super) policy: Policy,
    pub(super) decoder: Decoder,
    pub(super) context_tokens: usize,
}

impl LoadedModel {
    /// Loads tokenizer and weights of `folder` to be asked; adapters are merged into their base.
    pub(super) fn open(config: &Config, folder: &Path) -> anyhow::Result<Self> {
        Self::open_with(config, folder, |policy, place| {
            if let Some(adapters) = &place.adapters {
                policy.adapt(adapters.read(&policy.config)?);
                policy.merge();
            }
            Ok(())
        })
    }

    /// Loads tokenizer and weights of `model.path` to be trained: with the adapters that the folder
    /// holds, or new ones, where `lora.rank` asks for them.
    pub(super) fn open_for_training(config: &Config) -> anyhow::Result<Self> {
        let Some(wanted) = lora_config(config) else {
            return Self::open(config, &config.model.path);
        };
        Self::open_with(config, &config.model.path, |policy, place| {
            let lora = match &place.adapters {
                Some(found) => {
                    anyhow::ensure!(
                        found.config == wanted,
                        "its adapters have {}, the section [lora] asks for {wanted}: set the same \
                         values, or merge them first by lora.rank = 0",
                        found.config
                    );
                    found.read(&policy.config)?
                }
                None => Lora::new(&policy.config, wanted, base_name(&place.base), config.seed),
            };
            policy.adapt(lora);
            info!(rank = wanted.rank, trained = policy.trained_count(), "training adapters");
            Ok(())
        })
    }

    fn open_with(
        config: &Config,
        folder: &Path,
        adapt: impl FnOnce(&mut Policy, &ModelPlace) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        set_threads(if config.deterministic { 1 } else { config.threads });
        let compute = compute_of(config)?;
        let named = || format!("model.path = {}", folder.display());
        let place = ModelPlace::find(folder, config.model.base.as_deref()).with_context(named)?;
        let tokenizer = place.folder_with("tokenizer.json");
        let tokenizer = Tokenizer::from_folders(tokenizer, &place.base, config.model.chat_date)
            .with_context(named)?;
        let mut policy = Policy::load_base(&place, compute).with_context(named)?;
        adapt(&mut policy, &place).with_context(named)?;
        let context_tokens = config.context_tokens(policy.config.max_positions);
        let mut decoder = Decoder::new(&policy.config, context_tokens, compute.device);
        decoder.recomputes_layers =
            config.update.checkpoint_activations == ActivationCheckpoints::Layers;
        if config.data.chat && !tokenizer.has_chat_template() {
            info!(
                "the model has no chat template: prompts are plain text, as with data.chat = false"
            );
        }
        info!(
            model = %folder.display(),
            parameters = policy.parameter_count(),
            device = ?compute.device,
            dtype = ?compute.kind,
            threads = tch::get_num_threads(),
            context_tokens,
            "model loaded"
        );
        Ok(Self { place, tokenizer, policy, decoder, context_tokens })
    }

    /// An engine over the policy's present weights, for at most `max_sequences` episodes at one time.
    pub(super) fn engine(
        &self,
        config: &Config,
        max_sequences: usize,
    ) -> anyhow::Result<BuiltinEngine> {
        let rollout = &config.rollout;
        let (choice, kind) = (runner_choice(config), self.policy.compute.kind);
        let format = choice.native_format(self.device(), kind)?;
        let token_bytes = self.policy.config.cached_token_bytes(cached_number_bytes(format, kind));
        let config = BuiltinEngineConfig {
            max_sequences,
            max_context_tokens: self.context_tokens,
            max_prefill_tokens: rollout.max_prefill_tokens,
            cache_tokens: cache_tokens(rollout.kv_cache_mib, token_bytes),
            share_prompts: true,
        };
        let decoder = Decoder::new(&self.policy.config, self.context_tokens, self.device());
        let vocabulary = decoder.config.vocab_size as u64;
        let weights = self.policy.detached_weights();
        let runner = runner(decoder, weights, config.pool_blocks(), choice)?;
        Ok(BuiltinEngine::with_runner(runner, vocabulary, config))
    }

    pub(super) fn device(&self) -> Device {
        self.policy.compute.device
    }

    /// The questions of a file as prompts; those that [`question_records`] chooses.
    pub(super) fn questions(
        &self,
        config: &Config,
        path: &Path,
        limit: usize,
    ) -> anyhow::Result<Vec<Example>> {
        let records = question_records(config, path, limit)?;
        let template = prompt_template(config, &self.tokenizer)?;
        let limit = config.rollout.max_prompt_tokens;
        Ok(examples(&records, &template, &self.tokenizer, limit)?)
    }
}

/// What `config` wants rollouts to be computed by.
pub(super) fn runner_choice(config: &Config) -> RunnerChoice {
    RunnerChoice { kind: config.rollout.runner, format: config.rollout.weights }
}

/// The adapters that `config` asks for.
pub(super) fn lora_config(config: &Config) -> Option<LoraConfig> {
    let lora = &config.lora;
    (lora.rank > 0).then_some(LoraConfig {
        rank: lora.rank,
        alpha: lora.alpha,
        rank_stabilised: lora.rslora,
        targets: lora.targets,
    })
}

/// How `config` wants models to be saved.
pub(super) fn save_form(config: &Config) -> SaveForm {
    let kind = match config.checkpoint.dtype {
        CheckpointDtype::F32 => Kind::Float,
        CheckpointDtype::Bf16 => Kind::BFloat16,
    };
    SaveForm { kind, merged: config.lora.merge_on_save }
}

fn compute_of(config: &Config) -> anyhow::Result<Compute> {
    let device = config.model.device.to_string();
    Ok(select_compute(&device, config.model.dtype.as_str())?)
}

/// The records of a question file that are asked, in its order; a `limit` other than 0 takes as many,
/// evenly spread over the file, which may be sorted by kind.
pub(super) fn question_records(
    config: &Config,
    path: &Path,
    limit: usize,
) -> anyhow::Result<Vec<QaRecord>> {
    let mut records = read_qa_records(path)?;
    if config.data.max_hops > 0 {
        let within = |hops: &serde_json::Value| {
            hops.as_u64().is_none_or(|hops| hops <= config.data.max_hops as u64)
        };
        records.retain(|record| record.extra.get("hops").is_none_or(within));
    }
    if limit > 0 && limit < records.len() {
        let count = records.len();
        let mut position = 0;
        records.retain(|_| {
            let chosen = (position + 1) * limit / count > position * limit / count;
            position += 1;
            chosen
        });
    }
    anyhow::ensure!(!records.is_empty(), "{} has no questions to ask", path.display());
    Ok(records)
}

/// How questions are asked of the model with this tokenizer: a base model has no chat template and is
/// asked plainly.
pub(super) fn prompt_template(
    config: &Config,
    tokenizer: &Tokenizer,
) -> anyhow::Result<PromptTemplate> {
    let style = if config.data.chat && tokenizer.has_chat_template() {
        PromptStyle::Chat
    } else {
        PromptStyle::Plain
    };
    Ok(PromptTemplate::new(config.data.template.as_str(), style)?)
}

/// The searcher that asks the configured retriever.
pub(super) fn http_searcher(config: &Config) -> anyhow::Result<HttpSearcher> {
    let retriever = &config.retriever;
    let mut client = ClientConfig::new(&retriever.url);
    client.attempt_timeout = Duration::from_millis(retriever.attempt_timeout_ms);
    client.retry.deadline = Duration::from_millis(retriever.deadline_ms);
    Ok(HttpSearcher::new(client, retriever.max_in_flight)?)
}

/// How episodes are rolled out with this sampling.
pub(super) fn rollout_config(
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

pub(super) fn reward_config(config: &Config) -> RewardConfig {
    RewardConfig {
        kind: config.reward.kind,
        reading: match config.compat {
            Compat::None => RewardReading::Sampled,
            Compat::SearchR1 => RewardReading::Reference,
        },
        structured: StructuredScores {
            structure: config.reward.structure_format_score,
            final_answer: config.reward.final_format_score,
            retrieval: config.reward.retrieval_score,
        },
        ..RewardConfig::default()
    }
}

/// `samples` episodes of each example; the example's place in the slice is its prompt number.
pub(super) fn episode_jobs(
    examples: &[&Example],
    samples: usize,
    seed: u64,
    step: u64,
) -> Vec<EpisodeJob> {
    episode_jobs_from(0, examples, samples, seed, step)
}

/// As [`episode_jobs`], with prompt numbers from `first` on.
pub(super) fn episode_jobs_from(
    first: usize,
    examples: &[&Example],
    samples: usize,
    seed: u64,
    step: u64,
) -> Vec<EpisodeJob> {
    let mut jobs = Vec::with_capacity(examples.len() * samples);
    for (place, example) in examples.iter().enumerate() {
        let prompt = first + place;
        for sample in 0..samples {
            jobs.push(EpisodeJob {
                prompt,
                sample,
                example_id: example.id.clone(),
                prompt_text: example.prompt_text.clone(),
                prompt_ids: example.prompt_ids.clone(),
                key: SamplingKey { seed, step, prompt: prompt as u64, sample: sample as u64 },
            });
        }
    }
    jobs
}

/// Moves a progress bar by one with every episode that ends.
#[derive(Debug)]
pub(super) struct EpisodeProgress(pub(super) Progress);

impl RolloutObserver for EpisodeProgress {
    fn observe(&mut self, event: RolloutEvent<'_>) {
        match event {
            RolloutEvent::Finished { .. } => self.0.advance(1),
            RolloutEvent::SearchFailed { reason, .. } => tracing::warn!(%reason, "search failed"),
            _ => {}
        }
    }
}
