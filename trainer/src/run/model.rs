//! The model that every command starts from, with its tokenizer and an engine over its weights.

use std::path::Path;

use anyhow::Context as _;
use tch::Device;
use tracing::info;

use super::settings::model::ModelSettings;
use super::settings::rollout::EngineSettings;
use crate::engine::{
    BuiltinEngine, BuiltinEngineConfig, cache_tokens, cached_number_bytes, runner,
};
use crate::policy::{
    AdapterConfig, Decoder, Lora, ModelPlace, Policy, base_name, select_compute, set_threads,
};
use crate::token::{ChatDate, Tokenizer};

/// A model that can be rolled out and trained.
#[derive(Debug)]
pub(crate) struct LoadedModel {
    /// The folders that the model was read from.
    pub(crate) place: ModelPlace,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) policy: Policy,
    pub(crate) decoder: Decoder,
    pub(crate) context_tokens: usize,
    chat_date: ChatDate,
}

impl LoadedModel {
    /// Loads tokenizer and weights of `folder` for rollouts alone; adapters are merged into their base.
    ///
    /// # Errors
    /// Anything wrong with the folder, named.
    pub(crate) fn open(settings: &ModelSettings, folder: &Path) -> anyhow::Result<Self> {
        Self::open_adapted(settings, folder, |policy, place| {
            if let Some(adapters) = &place.adapters {
                policy.adapt(adapters.read(&policy.config)?);
                policy.merge();
            }
            Ok(())
        })
    }

    /// Loads tokenizer and weights of `folder` for training. Where adapters are trained, they are those of the
    /// folder, or new ones if it has none.
    ///
    /// # Errors
    /// Anything wrong with the folder, named, and adapters of another shape than the settings ask for.
    pub(crate) fn open_for_training(
        settings: &ModelSettings,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let Some(wanted) = settings.adapters else {
            return Self::open(settings, folder);
        };
        Self::open_adapted(settings, folder, |policy, place| {
            let lora = match &place.adapters {
                Some(saved) => {
                    let saved = saved.read(&policy.config)?;
                    let found = saved.config();
                    // Adapters of the head alone have no targets that the section could name.
                    let fits = found.targets.is_empty()
                        && AdapterConfig { targets: found.targets, ..wanted } == found;
                    anyhow::ensure!(
                        found == wanted || fits,
                        "its adapters have {found}, the section [lora] asks for {wanted}: set the \
                         same values, or merge them first by lora.rank = 0"
                    );
                    saved
                }
                None => Lora::new(&policy.config, wanted, base_name(&place.base), settings.seed),
            };
            policy.adapt(lora);
            info!(rank = wanted.rank, trained = policy.trained_count(), "training adapters");
            Ok(())
        })
    }

    fn open_adapted(
        settings: &ModelSettings,
        folder: &Path,
        adapt: impl FnOnce(&mut Policy, &ModelPlace) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        set_threads(settings.threads);
        let compute = select_compute(&settings.device.to_string(), settings.dtype.as_str())?;
        let named = || format!("model.path = {}", folder.display());
        let place = ModelPlace::find(folder, settings.base.as_deref()).with_context(named)?;
        let tokenizer = read_tokenizer(&place, settings.chat_date).with_context(named)?;
        let mut policy = Policy::load_base(&place, compute).with_context(named)?;
        adapt(&mut policy, &place).with_context(named)?;
        let context_tokens = settings.max_context_tokens.min(policy.config.max_positions);
        let mut decoder = Decoder::new(&policy.config, context_tokens, compute.device);
        decoder.recomputes_layers = settings.recomputes_layers;
        if settings.chat && !tokenizer.has_chat_template().with_context(named)? {
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
        let chat_date = settings.chat_date;
        Ok(Self { place, tokenizer, policy, decoder, context_tokens, chat_date })
    }

    /// Opens an engine over the policy's current weights, for at most `max_sequences` concurrent episodes.
    ///
    /// # Errors
    /// A runner or a weight format that this device does not have.
    pub(crate) fn engine(
        &self,
        settings: &EngineSettings,
        max_sequences: usize,
    ) -> anyhow::Result<BuiltinEngine> {
        let kind = self.policy.compute.kind;
        let format = settings.runner.native_format(self.device(), kind)?;
        let token_bytes = self.policy.config.cached_token_bytes(cached_number_bytes(format, kind));
        let sizes = BuiltinEngineConfig {
            max_sequences,
            max_context_tokens: self.context_tokens,
            max_prefill_tokens: settings.max_prefill_tokens,
            cache_tokens: cache_tokens(settings.kv_cache_mib, token_bytes),
            share_prompts: true,
        };
        let decoder = Decoder::new(&self.policy.config, self.context_tokens, self.device());
        let vocabulary = decoder.config.vocab_size as u64;
        let weights = self.policy.detached_weights();
        let runner = runner(decoder, weights, sizes.cache_blocks(), settings.runner)?;
        Ok(BuiltinEngine::with_runner(runner, vocabulary, sizes))
    }

    /// Reads the tokenizer once more, for another thread.
    ///
    /// # Errors
    /// A tokenizer that can no longer be read.
    pub(crate) fn another_tokenizer(&self) -> anyhow::Result<Tokenizer> {
        read_tokenizer(&self.place, self.chat_date)
    }

    fn device(&self) -> Device {
        self.policy.compute.device
    }
}

pub(super) fn read_tokenizer(place: &ModelPlace, chat_date: ChatDate) -> anyhow::Result<Tokenizer> {
    let folder = place.folder_with("tokenizer.json");
    Ok(Tokenizer::from_folders(folder, &place.base, chat_date)?)
}
