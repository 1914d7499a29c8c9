//! The section `[training]` was called `[grpo]`.

use super::*;

/// The configuration, and the lines that report its old names.
fn load(
    text: &str,
    variables: &[(&str, &str)],
    overrides: &[&str],
) -> Result<(Config, Vec<String>), String> {
    let environment =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    let file = Some((Path::new("run.toml"), text));
    let LoadedConfig { config, old_names } =
        LoadedConfig::from_source(file, &environment, &overrides)
            .map_err(|error| error.to_string())?;
    Ok((config, old_names.iter().map(ToString::to_string).collect()))
}

#[test]
fn old_names_are_accepted_everywhere_and_reported() {
    let (config, reported) = load(
        "preset = \"recommended\"\n[grpo]\nsteps = 3\nclip_low = 0.1\n[training]\ngroup_size = 4\n",
        &[("TRAINER_GRPO_LEARNING_RATE", "1e-5"), ("TRAINER_GRPO_RESUME", "")],
        &["grpo.clip_low=0.3", "grpo.steps=4", "grpo.steps=5"],
    )
    .unwrap();
    let training = &config.training;
    assert_eq!((training.steps, training.group_size), (5, 4));
    assert!((training.learning_rate - 1e-5).abs() < 1e-12);
    assert!((training.clip_low - 0.3).abs() < 1e-12);
    let expected = [
        "run.toml:3: `grpo.steps` is now called `training.steps`",
        "run.toml:4: `grpo.clip_low` is now called `training.clip_low`",
        "`TRAINER_GRPO_LEARNING_RATE` is now called `TRAINER_TRAINING_LEARNING_RATE`",
        "--set grpo.clip_low=0.3: `grpo.clip_low` is now called `training.clip_low`",
        "--set grpo.steps=4: `grpo.steps` is now called `training.steps`",
        "--set grpo.steps=5: `grpo.steps` is now called `training.steps`",
    ];
    assert_eq!(reported, expected);
}

#[test]
fn current_names_are_not_reported() {
    let variables = [("TRAINER_TRAINING_GROUP_SIZE", "5")];
    let file = "[training]\nsteps = 3\n[algorithm]\nadvantage = \"grpo\"\n";
    let (_, reported) = load(file, &variables, &["training.epochs_per_step=2"]).unwrap();
    assert_eq!(reported, Vec::<String>::new());
}

#[test]
fn a_file_that_an_earlier_release_wrote_reads_back() {
    let config = load("[training]\nsteps = 7\nkl_estimator = \"k2\"\n", &[], &[]).unwrap().0;
    let written = config.to_toml();
    let earlier = written.replace("\n[training]\n", "\n[grpo]\n");
    assert_ne!(written, earlier);
    let (read, reported) = load(&earlier, &[], &[]).unwrap();
    assert_eq!(read, config);
    assert_eq!(reported.len(), key_table().iter().filter(|key| key.section == "training").count());
    assert_eq!(read.to_toml(), written);
}

#[test]
fn sources_override_each_other_whatever_name_they_use() {
    let steps = |text: &str, variables: &[(&str, &str)], overrides: &[&str]| {
        load(text, variables, overrides).unwrap().0.training.steps
    };
    let (old, current) = ("TRAINER_GRPO_STEPS", "TRAINER_TRAINING_STEPS");
    assert_eq!(steps("[training]\nsteps = 1\n", &[(old, "2")], &[]), 2);
    assert_eq!(steps("[grpo]\nsteps = 1\n", &[(current, "2")], &[]), 2);
    assert_eq!(steps("[grpo]\nsteps = 1\n", &[(current, "2")], &["grpo.steps=3"]), 3);
    assert_eq!(steps("", &[(old, "2")], &["training.steps=3"]), 3);
    assert_eq!(steps("", &[(old, "2"), (current, " ")], &[]), 2);
}

#[test]
fn one_source_with_both_names_of_a_key_is_refused() {
    let refused = |text: &str, variables: &[(&str, &str)], overrides: &[&str]| {
        load(text, variables, overrides).unwrap_err()
    };
    let both = "`grpo.steps` is the old name of `training.steps`, and both are set; \
                remove `grpo.steps`";
    let heading = "1 problem in the configuration\n  ";
    assert_eq!(
        refused("[grpo]\nsteps = 1\n[training]\nsteps = 2\n", &[], &[]),
        format!("{heading}run.toml:4: {both}")
    );
    assert_eq!(
        refused("[training]\nsteps = 1\n[grpo]\nsteps = 1\n", &[], &[]),
        format!("{heading}run.toml:4: {both}")
    );
    assert_eq!(
        refused("", &[], &["training.steps=1", "grpo.steps=2"]),
        format!("{heading}--set grpo.steps=2: {both}")
    );
    assert_eq!(
        refused("", &[("TRAINER_GRPO_STEPS", "1"), ("TRAINER_TRAINING_STEPS", "2")], &[]),
        format!(
            "{heading}TRAINER_TRAINING_STEPS: `TRAINER_GRPO_STEPS` is the old name of \
             `TRAINER_TRAINING_STEPS`, and both are set; remove `TRAINER_GRPO_STEPS`"
        )
    );
}

#[test]
fn wrong_keys_and_values_under_the_old_name_are_refused_with_the_current_one() {
    let error = load(
        "[grpo]\nlerning_rate = 1\nsteps = 0\n",
        &[("TRAINER_GRPO_GROUP_SIZE", "none")],
        &["grpo.group_sise=1", "grpo=1"],
    )
    .unwrap_err();
    let lines: Vec<&str> = error.lines().skip(1).map(str::trim).collect();
    let expected = [
        "run.toml:2: unknown key `grpo.lerning_rate`; did you mean `training.learning_rate`?",
        "run.toml:3: `training.steps` takes an integer, at least 1, not 0; did you mean 1?",
        "TRAINER_GRPO_GROUP_SIZE: `training.group_size` takes an integer, at least 1, not \"none\"",
        "--set grpo.group_sise=1: unknown key `grpo.group_sise`; did you mean `training.group_size`?",
        "--set grpo=1: `training` is a section, not a key; set `training.KEY`",
    ];
    assert_eq!(lines, expected);
    let environment = [("TRAINER_GRPO_STEPS", "1"), ("TRAINER_GRPO_LERNING_RATE", "1")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    assert_eq!(
        unknown_variables(&environment),
        [("TRAINER_GRPO_LERNING_RATE", Some("TRAINER_TRAINING_LEARNING_RATE".to_owned()))]
    );
}
