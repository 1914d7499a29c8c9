//! The engine that training samples with: the one inside, or servers that get the weights through a
//! folder.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use shared::retry::RetryPolicy;
use tracing::info;

use super::loaded_model::LoadedModel;
use crate::checkpoint;
use crate::config::{Config, EngineKind};
use crate::engine::{
    BuiltinEngine, Dialect, Engine, EngineCounters, ExternalEngine, ExternalEngineConfig,
};
use crate::policy::Weights;

/// Pause between two looks at servers that did not answer.
const HEALTH_INTERVAL: Duration = Duration::from_secs(2);
/// Weights that servers can be started on, where the model's own folder will not do.
const START_FOLDER: &str = "start";

/// Samples the turns of training.
#[derive(Debug)]
pub(super) enum RolloutEngine {
    Builtin(BuiltinEngine),
    External { engine: ExternalEngine, weights: RolloutWeights },
}

impl RolloutEngine {
    /// What the engine inside has computed since the last call; servers do not tell.
    pub(super) fn take_counters(&mut self) -> EngineCounters {
        match self {
            Self::Builtin(engine) => engine.take_counters(),
            Self::External { .. } => EngineCounters::default(),
        }
    }

    /// The configured engine over the policy as it stands, which is that of `version`.
    ///
    /// # Errors
    /// An address that is none, or the file system's.
    pub(super) fn open(
        config: &Config,
        loaded: &LoadedModel,
        version: u64,
    ) -> anyhow::Result<Self> {
        let dialect = match config.engine.kind {
            EngineKind::Builtin => {
                let mut engine = loaded.engine(config, config.rollout.max_sequences)?;
                engine.set_weights(loaded.policy.detached_weights(), version);
                return Ok(Self::Builtin(engine));
            }
            EngineKind::Vllm => Dialect::Vllm,
            EngineKind::Sglang => Dialect::Sglang,
        };
        let weights = RolloutWeights::new(config)?;
        let engine = ExternalEngine::new(ExternalEngineConfig {
            dialect,
            urls: config.engine.addresses(),
            max_context_tokens: loaded.context_tokens,
            vocabulary: usize::try_from(loaded.policy.config.vocab_size).unwrap_or(0),
            attempt_timeout: Duration::from_millis(config.engine.attempt_timeout_ms),
            retry: RetryPolicy {
                deadline: Duration::from_millis(config.engine.deadline_ms),
                ..RetryPolicy::default()
            },
            max_in_flight: config.engine.max_in_flight,
            health_interval: HEALTH_INTERVAL,
        })?;
        if loaded.policy.config.tied_embeddings {
            weights.write_start(loaded)?;
        }
        let mut external = Self::External { engine, weights };
        external.set_policy(loaded, version)?;
        Ok(external)
    }

    /// Samples by the policy as it stands from now on.
    ///
    /// # Errors
    /// The file system's, where weights go through a folder.
    pub(super) fn set_policy(&mut self, loaded: &LoadedModel, version: u64) -> anyhow::Result<()> {
        match self {
            Self::Builtin(engine) => engine.set_weights(loaded.policy.detached_weights(), version),
            Self::External { engine, weights } => {
                engine.set_weights(&weights.publish(loaded, version, version)?, version);
            }
        }
        Ok(())
    }

    /// Samples by `weights` from now on.
    pub(super) fn take_weights(&mut self, weights: NewWeights, version: u64) {
        match (self, weights) {
            (Self::Builtin(engine), NewWeights::Snapshot(weights)) => {
                engine.set_weights(weights, version);
            }
            (Self::External { engine, .. }, NewWeights::Folder(folder)) => {
                engine.set_weights(&folder, version);
            }
            // A publisher is that of its engine.
            (Self::Builtin(_), NewWeights::Folder(_))
            | (Self::External { .. }, NewWeights::Snapshot(_)) => {}
        }
    }

    /// Makes weights for [`Self::take_weights`] where the policy is.
    pub(super) fn publisher(&self) -> Publisher {
        match self {
            Self::Builtin(_) => Publisher(None),
            Self::External { weights, .. } => Publisher(Some(weights.clone())),
        }
    }

    pub(super) fn as_engine(&mut self) -> &mut dyn Engine {
        match self {
            Self::Builtin(engine) => engine,
            Self::External { engine, .. } => engine,
        }
    }
}

/// Weights on their way to an engine on another thread.
#[derive(Debug)]
pub(super) enum NewWeights {
    /// Which no update touches.
    Snapshot(Weights),
    /// Where servers find them.
    Folder(PathBuf),
}

/// Makes weights for an engine on another thread: a snapshot, or a folder for servers.
#[derive(Debug)]
pub(super) struct Publisher(Option<RolloutWeights>);

impl Publisher {
    /// The policy as it stands, which is that of `version`; folders from the version `oldest` on stay.
    ///
    /// # Errors
    /// The file system's, where weights go through a folder.
    pub(super) fn publish(
        &self,
        loaded: &LoadedModel,
        version: u64,
        oldest: u64,
    ) -> anyhow::Result<NewWeights> {
        Ok(match &self.0 {
            None => NewWeights::Snapshot(loaded.policy.rollout_snapshot()),
            Some(weights) => NewWeights::Folder(weights.publish(loaded, version, oldest)?),
        })
    }
}

/// The folder `rollout-weights` of a run, which holds the weights of a step, or of as many steps as rollouts
/// may be behind.
#[derive(Clone, Debug)]
pub(super) struct RolloutWeights {
    here: PathBuf,
    /// The same folder as the servers see it.
    there: PathBuf,
}

impl RolloutWeights {
    fn new(config: &Config) -> anyhow::Result<Self> {
        let here = config.run_dir.join("rollout-weights");
        fs::create_dir_all(&here).with_context(|| format!("cannot create {}", here.display()))?;
        // Servers need not have been started in the folder that the trainer was started in.
        let here =
            here.canonicalize().with_context(|| format!("cannot read {}", here.display()))?;
        let there = config.engine.weights_dir.clone().unwrap_or_else(|| here.clone());
        Ok(Self { here, there })
    }

    /// Writes the weights that servers of a model with tied embeddings are to be started on, unless
    /// they are there.
    fn write_start(&self, loaded: &LoadedModel) -> anyhow::Result<()> {
        let folder = self.here.join(START_FOLDER);
        if !folder.is_dir() {
            checkpoint::save_for_rollouts(&folder, &loaded.policy, &loaded.place)?;
        }
        let there = self.there.join(START_FOLDER);
        info!(
            folder = %there.display(),
            "the model's embeddings are tied: engines must have been started on this folder"
        );
        Ok(())
    }

    /// Writes the weights of `version` and removes those of versions before `oldest` and after `version`;
    /// returns where the servers find them.
    fn publish(&self, loaded: &LoadedModel, version: u64, oldest: u64) -> anyhow::Result<PathBuf> {
        let name = format!("step-{version}");
        let folder = self.here.join(&name);
        checkpoint::save_for_rollouts(&folder, &loaded.policy, &loaded.place)?;
        for entry in fs::read_dir(&self.here)? {
            let entry = entry?;
            let other = entry.file_name();
            let other = other.to_string_lossy();
            let Some(number) = other.strip_prefix("step-") else { continue };
            let is_kept =
                number.parse().is_ok_and(|other: u64| (oldest..=version).contains(&other));
            if !is_kept {
                fs::remove_dir_all(entry.path())
                    .with_context(|| format!("cannot remove {}", entry.path().display()))?;
            }
        }
        Ok(self.there.join(name))
    }
}
