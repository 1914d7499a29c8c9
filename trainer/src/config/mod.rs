//! Configuration: a TOML file, variables of the environment and `--set key=value`, checked as a
//! whole before anything starts.
//!
//! Owns every key with its default, range and meaning. It opens no model, data or socket: whether
//! a path exists is found out by the module that reads it.

mod choice;
mod environment;
mod load;
mod objective;
mod presets;
mod problem;
mod relations;
mod renamed;
mod section;
mod sections;
mod value;
mod write;

#[cfg(test)]
mod tests;

pub use choice::{
    ActivationCheckpoints, CheckpointDtype, Compat, ComputeDtype, DeviceChoice, EngineKind,
    KlControllerKind, KlPlacement, PolicyLossKind, Preset, TemplateChoice,
};
pub use environment::{Environment, LOG, Variable, environment, log_filter, unknown_variables};
pub use load::LoadedConfig;
pub use problem::{ConfigError, Origin, Problem, ProblemKind};
pub use renamed::OldName;
pub use section::KeySpec;
pub use sections::{
    AlgorithmConfig, CheckpointConfig, Config, CriticConfig, DataConfig, EngineConfig, EvalConfig,
    LoraConfig, ModelConfig, OptimizerConfig, RetrieverConfig, RewardConfig, RolloutConfig,
    ServeConfig, SftConfig, TrainingConfig, UpdateConfig,
};

use section::Section;

impl Config {
    /// Every section in file order, the keys before the first one included.
    fn sections(&self) -> [&dyn Section; 17] {
        [
            self,
            &self.model,
            &self.retriever,
            &self.data,
            &self.rollout,
            &self.engine,
            &self.reward,
            &self.lora,
            &self.optimizer,
            &self.sft,
            &self.training,
            &self.algorithm,
            &self.critic,
            &self.update,
            &self.checkpoint,
            &self.eval,
            &self.serve,
        ]
    }

    fn section(&self, name: &str) -> Option<&dyn Section> {
        self.sections().into_iter().find(|section| section.name() == name)
    }

    fn section_mut(&mut self, name: &str) -> Option<&mut dyn Section> {
        if name.is_empty() {
            return Some(self);
        }
        let sections: [&mut dyn Section; 16] = [
            &mut self.model,
            &mut self.retriever,
            &mut self.data,
            &mut self.rollout,
            &mut self.engine,
            &mut self.reward,
            &mut self.lora,
            &mut self.optimizer,
            &mut self.sft,
            &mut self.training,
            &mut self.algorithm,
            &mut self.critic,
            &mut self.update,
            &mut self.checkpoint,
            &mut self.eval,
            &mut self.serve,
        ];
        sections.into_iter().find(|section| section.name() == name)
    }

    /// Refuses a configuration without the keys that `command` cannot do without.
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

/// Every key, in file order: the source of the reference page.
pub fn key_table() -> Vec<KeySpec> {
    Config::default().sections().into_iter().flat_map(Section::keys).collect()
}
