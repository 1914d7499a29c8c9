//! Presets and the objective that settings make.

use super::*;
use crate::config::presets;

#[test]
fn presets_replace_defaults_and_every_key_overrides_them() {
    for name in Preset::WORDS {
        let setting = format!("preset={name}");
        let config = load("", &[&setting]).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(config.preset.as_str(), *name);
        assert_eq!(load(&config.to_toml(), &[]).unwrap(), config, "{name}");
        let values = presets::values(config.preset);
        assert_eq!(values.is_empty(), config.preset == Preset::None, "{name}");
        for (path, _) in values {
            assert!(key_table().iter().any(|spec| spec.path() == path), "{name}: {path}");
        }
    }
    let updates = |config: &Config| {
        let training = &config.training;
        training.prompts_per_step * training.group_size / training.trajectories_per_update
    };
    for (name, expected, advantage, warmup_steps) in [
        ("paper", 2, "gae", 142),
        ("search-r1-v0.1", 10, "reinforce", 289),
        ("search-r1-v0.2", 10, "grpo", 286),
        ("search-r1-v0.3", 10, "grpo", 286),
        ("search-r1-v0.3-format", 10, "grpo", 286),
        ("recommended", 4, "grpo", 10),
    ] {
        let config = load("", &[&format!("preset={name}")]).unwrap();
        assert_eq!(updates(&config), expected, "{name}");
        assert_eq!(config.algorithm.advantage.as_str(), advantage, "{name}");
        assert_eq!(config.training.warmup_updates, expected * warmup_steps, "{name}");
    }
    // The file overrides the preset, although an argument names it.
    let config =
        load("[training]\ngroup_size = 7\n", &["preset=search-r1-v0.3", "training.steps=9"])
            .unwrap();
    assert_eq!((config.training.group_size, config.training.steps), (7, 9));
    assert_eq!((config.training.prompts_per_step, config.compat), (512, Compat::SearchR1));
    let lines = problems("preset = \"paper\"\n", &["algorithm.advantage=rloo"]);
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0].starts_with("preset = \"paper\": `training.group_size` = 1 leaves"),
        "{lines:?}"
    );
    let lines = problems("preset = \"papers\"\n", &[]);
    assert!(lines[0].ends_with("did you mean \"paper\"?"), "{lines:?}");
}

#[test]
fn the_objective_names_every_coefficient_that_is_on() {
    let objective = |overrides: &[&str]| load("", overrides).unwrap().objective_in_words();
    assert_eq!(
        objective(&[]),
        "advantage grpo; loss clip, ratio from 1 - 0.2 to 1 + 0.2; token-mean; + 0.001 divergence (k3) \
         in the loss; importance weights of at most 2; 1 update of 256 trajectories per step"
    );
    assert_eq!(
        objective(&["preset=paper"]),
        "advantage gae; loss clip, ratio from 1 - 0.2 to 1 + 0.2; token-mean; - 0.001 divergence (k1, \
         fixed) in the reward; - 0.001 entropy; 2 updates of 256 trajectories per step"
    );
    let sapo = ["algorithm.policy_loss=sapo", "training.loss_aggregation=seq-mean-token-mean"];
    assert!(objective(&sapo).contains("loss sapo, steepness 1 and 1.05; seq-mean-token-mean;"));
    let other = ["algorithm.likelihood_coefficient=0.1", "algorithm.importance_most=0"];
    assert!(objective(&other).contains("+ 0.1 lost likelihood (LLDS); 1 update of"));
}
