//! The engine of an evaluation: the built-in one, or servers that load the model's weights.

use crate::engine::Engine;
use crate::run::model::LoadedModel;
use crate::run::rollouts::{PolicyEngine as _, Publisher as _, WeightFolder, open_servers};
use crate::run::settings::rollout::EvalSettings;

/// An engine that samples by the weights of one model.
pub(crate) struct EvalEngine {
    pub(super) engine: Box<dyn Engine>,
    /// Most episodes that run concurrently.
    pub(super) running: usize,
    /// The folder that servers read the weights from, as long as they may.
    _weights: Option<WeightFolder>,
}

impl EvalEngine {
    /// Opens the engine of the configuration for at most `running` concurrent episodes.
    ///
    /// # Errors
    /// A runner that this device does not have; an invalid address of a server, or weights that cannot be written.
    pub(crate) fn open(
        settings: &EvalSettings,
        model: &LoadedModel,
        running: usize,
    ) -> anyhow::Result<Self> {
        let Some(servers) = &settings.servers else {
            return Self::builtin(settings, model, running);
        };
        let (mut engine, weights) = open_servers(servers, model)?;
        engine.take_weights(weights.publish(model, 0, 0)?, 0);
        Ok(Self { engine: Box::new(engine), running, _weights: Some(weights) })
    }

    /// Opens the built-in engine.
    ///
    /// # Errors
    /// A runner that this device does not have.
    pub(crate) fn builtin(
        settings: &EvalSettings,
        model: &LoadedModel,
        running: usize,
    ) -> anyhow::Result<Self> {
        let engine = Box::new(model.engine(&settings.engine, running)?);
        Ok(Self { engine, running, _weights: None })
    }
}
