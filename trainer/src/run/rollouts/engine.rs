//! Engines that training samples with, each with the publisher of its weights: the built-in engine, or servers that
//! read the weights from a folder.
//!
//! **Invariant:** an engine and its publisher share one type of weights, so published weights always fit.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use tracing::info;

use crate::checkpoint;
use crate::engine::{BuiltinEngine, Engine, EngineCounters, ExternalEngine, ExternalEngineConfig};
use crate::policy::Weights;
use crate::run::model::LoadedModel;
use crate::run::settings::rollout::FleetSettings;

/// Pause between two health checks of servers that did not answer.
const HEALTH_INTERVAL: Duration = Duration::from_secs(2);
/// The folder of weights to start servers on, if they cannot start on the model's own folder.
const START_FOLDER: &str = "start";

/// An engine that takes new weights between rollouts.
pub(crate) trait PolicyEngine: Engine + Send + 'static {
    /// The form in which it takes weights.
    type Weights: Send + 'static;

    /// Samples by `weights` from now on, which are those of the policy's `version`.
    fn take_weights(&mut self, weights: Self::Weights, version: u64);

    /// Returns what the engine has computed since the last call; servers do not report it.
    fn take_counters(&mut self) -> EngineCounters;
}

impl PolicyEngine for BuiltinEngine {
    type Weights = Weights;

    fn take_weights(&mut self, weights: Weights, version: u64) {
        self.set_weights(weights, version);
    }

    fn take_counters(&mut self) -> EngineCounters {
        Self::take_counters(self)
    }
}

impl PolicyEngine for ExternalEngine {
    type Weights = PathBuf;

    fn take_weights(&mut self, folder: PathBuf, version: u64) {
        self.set_weights(&folder, version);
    }

    fn take_counters(&mut self) -> EngineCounters {
        EngineCounters::default()
    }
}

/// Makes the policy's weights ready for an engine.
pub(crate) trait Publisher: 'static {
    /// The form that the engine takes.
    type Weights;

    /// Returns the current weights, which are those of `version`. An engine may still read those of the version
    /// `oldest` and later ones.
    ///
    /// # Errors
    /// The file system's, where weights go through a folder.
    fn publish(
        &self,
        model: &LoadedModel,
        version: u64,
        oldest: u64,
    ) -> anyhow::Result<Self::Weights>;
}

/// Weights that may share memory with the policy: for an engine that does not run during an update.
#[derive(Debug)]
pub(crate) struct SharedWeights;

impl Publisher for SharedWeights {
    type Weights = Weights;

    fn publish(&self, model: &LoadedModel, _: u64, _: u64) -> anyhow::Result<Weights> {
        Ok(model.policy.detached_weights())
    }
}

/// Copies that no update touches: for an engine on another thread.
#[derive(Debug)]
pub(crate) struct WeightCopies;

impl Publisher for WeightCopies {
    type Weights = Weights;

    fn publish(&self, model: &LoadedModel, _: u64, _: u64) -> anyhow::Result<Weights> {
        Ok(model.policy.rollout_snapshot())
    }
}

/// Opens the servers with the folder of their weights.
///
/// # Errors
/// An invalid address, and the file system's.
pub(crate) fn open_servers(
    settings: &FleetSettings,
    model: &LoadedModel,
) -> anyhow::Result<(ExternalEngine, WeightFolder)> {
    let folder = WeightFolder::open(settings)?;
    let vocabulary = usize::try_from(model.policy.config.vocab_size)
        .expect("a model that was loaded has a vocabulary that fits into memory");
    let engine = ExternalEngine::new(ExternalEngineConfig {
        dialect: settings.dialect,
        urls: settings.urls.clone(),
        max_context_tokens: model.context_tokens,
        vocabulary,
        attempt_timeout: settings.attempt_timeout,
        retry: settings.retry,
        max_in_flight: settings.max_in_flight,
        health_interval: HEALTH_INTERVAL,
    })?;
    if model.policy.config.tied_embeddings {
        folder.write_start(model)?;
    }
    Ok((engine, folder))
}

/// A folder of weights, with one subfolder per version.
#[derive(Debug)]
pub(crate) struct WeightFolder {
    here: PathBuf,
    /// The same folder as the servers see it.
    there: PathBuf,
}

impl WeightFolder {
    fn open(settings: &FleetSettings) -> anyhow::Result<Self> {
        let here = &settings.weights_here;
        fs::create_dir_all(here).with_context(|| format!("cannot create {}", here.display()))?;
        // Servers may run in another working directory than the trainer.
        let here =
            here.canonicalize().with_context(|| format!("cannot read {}", here.display()))?;
        let there = settings.weights_there.clone().unwrap_or_else(|| here.clone());
        Ok(Self { here, there })
    }

    /// Writes the weights that servers of a model with tied embeddings must be started on, unless they exist.
    fn write_start(&self, model: &LoadedModel) -> anyhow::Result<()> {
        let folder = self.here.join(START_FOLDER);
        if !folder.is_dir() {
            checkpoint::save_for_rollouts(&folder, &model.policy, &model.place)?;
        }
        let there = self.there.join(START_FOLDER);
        info!(
            folder = %there.display(),
            "the model's embeddings are tied: engines must have been started on this folder"
        );
        Ok(())
    }
}

impl Publisher for WeightFolder {
    /// The folder as the servers see it.
    type Weights = PathBuf;

    /// Writes the weights and removes those of other versions before `oldest` or after `version`.
    fn publish(&self, model: &LoadedModel, version: u64, oldest: u64) -> anyhow::Result<PathBuf> {
        let name = format!("step-{version}");
        checkpoint::save_for_rollouts(&self.here.join(&name), &model.policy, &model.place)?;
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
