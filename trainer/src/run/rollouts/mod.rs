//! The players of training's rollouts: an engine between the updates, or one that goes ahead of them on a thread of its
//! own.

mod ahead;
mod engine;
mod player;

pub(crate) use ahead::{Ahead, SavedRollout};
pub(crate) use engine::{PolicyEngine, Publisher, WeightFolder, open_servers};
pub(crate) use player::{EpisodeProgress, Order, Player};

use engine::{SharedWeights, WeightCopies};
use player::{EpisodePlayer, PolicyPlayer};

use super::model::LoadedModel;
use super::settings::rollout::{EngineChoice, PlayerSettings};

/// The player of training's rollouts.
pub(crate) enum Rollouts {
    /// A player on the thread of the step, which has nothing to do during the updates.
    Between(Box<dyn Player>),
    /// A player on a thread of its own, which plays later steps during the updates.
    Ahead(Ahead),
}

impl Rollouts {
    /// Opens the configured engine with the policy's current weights, which are those after `step` steps. Versions
    /// of the policy count steps, also across the steps that an earlier process did.
    ///
    /// # Errors
    /// An engine or a searcher that cannot be opened, and the file system's.
    pub(crate) fn open(
        settings: &PlayerSettings,
        model: &LoadedModel,
        step: u64,
    ) -> anyhow::Result<Self> {
        let goes_ahead = settings.max_staleness > 0;
        match &settings.engine {
            EngineChoice::Builtin(engine) => {
                let engine = model.engine(engine, settings.episodes.max_running_episodes)?;
                if goes_ahead {
                    Self::ahead(settings, engine, WeightCopies, model, step)
                } else {
                    Self::between(settings, engine, SharedWeights, model, step)
                }
            }
            EngineChoice::Servers(servers) => {
                let (engine, folder) = open_servers(servers, model)?;
                if goes_ahead {
                    Self::ahead(settings, engine, folder, model, step)
                } else {
                    Self::between(settings, engine, folder, model, step)
                }
            }
        }
    }

    fn between<E: PolicyEngine, P: Publisher<Weights = E::Weights>>(
        settings: &PlayerSettings,
        engine: E,
        publisher: P,
        model: &LoadedModel,
        step: u64,
    ) -> anyhow::Result<Self> {
        let mut player = PolicyPlayer { player: EpisodePlayer::open(settings, engine)?, publisher };
        player.take_policy(model, step)?;
        Ok(Self::Between(Box::new(player)))
    }

    fn ahead<E: PolicyEngine, P: Publisher<Weights = E::Weights>>(
        settings: &PlayerSettings,
        mut engine: E,
        publisher: P,
        model: &LoadedModel,
        step: u64,
    ) -> anyhow::Result<Self> {
        engine.take_weights(publisher.publish(model, step, step)?, step);
        let player = EpisodePlayer::open(settings, engine)?;
        Ok(Self::Ahead(Ahead::start(settings, player, publisher, model, step)?))
    }

    /// Gives the player the policy after `step` steps. One that goes ahead gets it with its next order.
    ///
    /// # Errors
    /// The file system's, where weights go through a folder.
    pub(crate) fn take_policy(&mut self, model: &LoadedModel, step: u64) -> anyhow::Result<()> {
        match self {
            Self::Between(player) => player.take_policy(model, step),
            Self::Ahead(_) => Ok(()),
        }
    }
}

impl<E> EpisodePlayer<E> {
    fn open(settings: &PlayerSettings, engine: E) -> anyhow::Result<Self> {
        let episodes = settings.episodes.clone();
        Ok(Self { engine, searcher: settings.searcher.open()?, episodes })
    }
}
