//! The configuration: a TOML file, environment variables and `--set key=value`, checked as a whole before
//! anything starts.
//!
//! Owns every key with its default, range and meaning. It opens no model, data or socket: the module that
//! reads a path reports that it does not exist.

mod choice;
mod data;
mod environment;
mod keeping;
mod load;
mod objective;
mod presets;
mod problem;
mod record;
mod relations;
mod renamed;
mod reward;
mod section;
mod sections;
mod tracking;
mod value;
mod write;

#[cfg(test)]
mod tests;

pub use choice::{
    ActivationCheckpoints, CheckpointDtype, Compat, ComputeDtype, DeviceChoice, EngineKind,
    FailedWrite, GuardAction, KlControllerKind, KlPlacement, PolicyLossKind, Preset, PromptSource,
    TemplateChoice,
};
pub use data::DataConfig;
pub use environment::{Environment, LOG, Variable, environment, log_filter, unknown_variables};
pub use keeping::{CheckpointConfig, GuardConfig};
pub use load::LoadedConfig;
pub(crate) use problem::counted;
pub use problem::{ConfigError, Origin, Problem, ProblemKind};
pub use record::RecordConfig;
pub use renamed::OldName;
pub use reward::{JudgeConfig, RewardConfig, RewardHttpConfig};
pub use section::KeySpec;
pub use sections::{
    AlgorithmConfig, Config, CriticConfig, EngineConfig, EvalConfig, LoraConfig, ModelConfig,
    OptimizerConfig, RetrieverConfig, RolloutConfig, ServeConfig, SftConfig, TrainingConfig,
    UpdateConfig,
};
pub use tracking::TrackingConfig;

pub use value::Addresses;

use section::Section;

impl Config {
    fn section(&self, name: &str) -> Option<&dyn Section> {
        self.sections().into_iter().find(|section| section.name() == name)
    }

    /// Checks that all `keys`, which `command` needs, are set.
    ///
    /// # Errors
    /// Every missing key with its meaning.
    pub fn require(&self, command: &str, keys: &[&str]) -> Result<(), ConfigError> {
        let missing: Vec<Problem> = key_table()
            .into_iter()
            .filter(|spec| keys.contains(&spec.path().as_str()))
            .filter(|spec| {
                self.section(spec.section).and_then(|section| section.shown(spec.key)).is_none()
            })
            .map(|spec| Problem {
                origin: Origin::Default,
                kind: ProblemKind::Missing {
                    key: spec.path(),
                    command: command.to_owned(),
                    meaning: spec.meaning,
                },
            })
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(missing)) }
    }
}

/// Returns every key in file order, as the reference page lists them.
pub fn key_table() -> Vec<KeySpec> {
    Config::default().sections().into_iter().flat_map(Section::keys).collect()
}
