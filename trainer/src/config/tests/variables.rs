//! Environment variables, and their descriptions in the pages.

use std::collections::BTreeSet;

use super::*;

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Loads `text` as file `run.toml` with variables and `overrides`.
fn load(text: &str, variables: &[(&str, &str)], overrides: &[&str]) -> Result<Config, ConfigError> {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    from_source(Some(text), &environment(variables), &overrides)
}

#[test]
fn every_key_has_a_variable_of_its_own() {
    let names: Vec<String> = key_table().iter().map(KeySpec::variable).collect();
    let mut distinct: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    // The variable that sets no key, and the mark of a process that restarted itself.
    distinct.extend([LOG.name, "TRAINER_TUNED"]);
    assert_eq!(distinct.len(), names.len() + 2);
    for (path, name) in [
        ("training.steps", "TRAINER_TRAINING_STEPS"),
        ("seed", "TRAINER_SEED"),
        ("run_dir", "TRAINER_RUN_DIR"),
        ("retriever.url", "TRAINER_RETRIEVER_URL"),
    ] {
        let spec = key_table().into_iter().find(|spec| spec.path() == path).unwrap();
        assert_eq!(spec.variable(), name);
    }
    // Kubernetes makes names with these parts; no key may look like them.
    assert!(!names.iter().any(|name| name.contains("_SERVICE_") || name.contains("_PORT")));
}

#[test]
fn variables_win_over_the_file_and_lose_against_arguments() {
    let file = "seed = 1\n[training]\nsteps = 1\ngroup_size = 5\nlearning_rate = 1e-3\n";
    let variables = [
        ("TRAINER_SEED", "2"),
        ("TRAINER_TRAINING_STEPS", " 2 "),
        ("TRAINER_DATA_TEMPLATE", "Question: {question}"),
        ("TRAINER_MODEL_DEVICE", "cuda:1"),
        ("TRAINER_TRAINING_RESUME", "false"),
        ("TRAINER_OPTIMIZER_EPSILON", "1e-9"),
    ];
    let config = load(file, &variables, &["seed=3"]).unwrap();
    assert_eq!((config.seed, config.training.steps, config.training.group_size), (3, 2, 5));
    assert!((config.training.learning_rate - 1e-3).abs() < 1e-12);
    assert_eq!(config.data.template, TemplateChoice::Text("Question: {question}".to_owned()));
    assert_eq!(config.model.device, DeviceChoice::Cuda(1));
    assert!(!config.training.resume);
    assert!((config.optimizer.epsilon - 1e-9).abs() < 1e-15);
}

#[test]
fn every_variable_sets_its_own_key_as_an_argument_would() {
    for spec in key_table() {
        let value = spec.default.clone().unwrap_or_else(|| "some/path".to_owned());
        let wrong = [(spec.variable(), "[1]".to_owned())].into();
        let message = from_source(None, &wrong, &[]).unwrap_err().to_string();
        let start = format!("  {}: `{}` takes ", spec.variable(), spec.path());
        assert!(message.lines().nth(1).unwrap().starts_with(&start), "{message}");
        let right = [(spec.variable(), value.clone())].into();
        let argument = format!("{}={value}", spec.path());
        assert_eq!(
            from_source(None, &right, &[]).unwrap(),
            from_source(None, &Environment::new(), &[argument]).unwrap()
        );
    }
}

#[test]
fn an_empty_variable_is_not_set() {
    let empty: Vec<(String, String)> =
        key_table().iter().map(|spec| (spec.variable(), " ".to_owned())).collect();
    let mut variables: Vec<(&str, &str)> =
        empty.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    variables.push((LOG.name, ""));
    let file = "seed = 4\nrun_dir = \"runs/a\"\n[data]\ncorpus = \"c.jsonl\"\n";
    assert_eq!(load(file, &variables, &[]).unwrap(), load(file, &[], &[]).unwrap());
    assert_eq!(log_filter(&environment(&variables)).unwrap(), "info");
}

#[test]
fn all_problems_come_at_once_and_name_where_they_come_from() {
    let variables = [
        ("TRAINER_TRAINING_KL_ESTIMATOR", "k33"),
        ("TRAINER_LOG", "trainer=loudly"),
        ("TRAINER_ROLLOUT_MAX_TURNS", "0"),
    ];
    let message = load("[sft]\nepochs = 0\n", &variables, &["training.steps=no"]).unwrap_err();
    let message = message.to_string();
    let lines: Vec<&str> = message.lines().skip(1).map(str::trim).collect();
    let expected = [
        "run.toml:2: `sft.epochs` takes an integer, at least 1, not 0; did you mean 1?",
        "TRAINER_ROLLOUT_MAX_TURNS: `rollout.max_turns` takes an integer, at least 1 and at most \
         64, not 0; did you mean 1?",
        "TRAINER_TRAINING_KL_ESTIMATOR: `training.kl_estimator` takes \"k1\", \"abs\", \"k2\", \"k3\" or \"k3+\", not \
         \"k33\"; did you mean \"k3\"?",
        "TRAINER_LOG: expected a filter such as info or info,trainer=debug, not \"trainer=loudly\"",
        "--set training.steps=no: `training.steps` takes an integer, at least 1, not \"no\"",
    ];
    assert_eq!(lines, expected);
    let conflict = load("", &[("TRAINER_THREADS", "4")], &["deterministic=true"]).unwrap_err();
    assert!(conflict.to_string().contains("\n  TRAINER_THREADS: `threads` = 4 contradicts"));
}

#[test]
fn unknown_variables_name_the_nearest() {
    let environment = environment(&[
        ("TRAINER_TRAINING_STEPS", "3"),
        ("TRAINER_TRAINING_LERNING_RATE", "1"),
        ("TRAINER_LOGS", "debug"),
        ("TRAINER_LOG", "debug"),
        ("TRAINER_SERVICE_HOST", "10.0.0.1"),
        ("TRAINER_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ("TRAINER_QQQQQQQQQQQQQQQQQQQQQQQQQQQQ", "1"),
        ("TRAINER_TRAINING_STEP", ""),
    ]);
    let unknown: Vec<(&str, Option<String>)> = unknown_variables(&environment);
    let expected = [
        ("TRAINER_LOGS", Some("TRAINER_LOG".to_owned())),
        ("TRAINER_QQQQQQQQQQQQQQQQQQQQQQQQQQQQ", None),
        ("TRAINER_TRAINING_LERNING_RATE", Some("TRAINER_TRAINING_LEARNING_RATE".to_owned())),
    ];
    assert_eq!(unknown, expected);
}

#[test]
fn units_are_given_where_a_value_has_one() {
    let endings =
        [("_ms", "ms"), ("_tokens", "tokens"), ("_updates", "updates"), ("_steps", "steps")];
    for spec in key_table() {
        let path = spec.path();
        for (ending, unit) in endings {
            assert!(!spec.key.ends_with(ending) || spec.unit == unit, "{path}: {:?}", spec.unit);
        }
        // Every count is a count of something; seeds count nothing, other numbers are ratios.
        let counts = spec.accepts.starts_with("an integer") && spec.key != "seed";
        assert_eq!(!spec.unit.is_empty(), counts, "{path}: {:?}", spec.unit);
    }
}

#[test]
fn the_reference_page_lists_every_key() {
    let page = Config::reference_markdown();
    for spec in key_table() {
        let row = format!("| `{}` | `{}` | ", spec.key, spec.variable());
        assert_eq!(page.matches(&row).count(), 1, "{row}");
    }
    assert!(page.contains("### `[training]`") && page.contains("| `TRAINER_LOG` | `info` | "));
    let row = "| `steps` | `TRAINER_TRAINING_STEPS` | `100` | steps | an integer, at least 1 | ";
    assert!(page.contains(row), "{page}");
}

/// An environment with every line of the example uncommented changes nothing.
#[test]
fn the_example_of_variables_holds_the_defaults() {
    let example = Config::reference_env();
    assert!(example.lines().all(|line| line.is_empty() || line.starts_with("# ")), "{example}");
    let assigned: Environment = example
        .lines()
        .filter_map(|line| line.strip_prefix("# TRAINER_")?.split_once('='))
        .map(|(name, value)| (format!("TRAINER_{name}"), value.to_owned()))
        .collect();
    assert_eq!(assigned.len(), key_table().len() + 1);
    assert_eq!(unknown_variables(&assigned), []);
    assert_eq!(log_filter(&assigned).unwrap(), LOG.default);
    assert_eq!(from_source(None, &assigned, &[]).unwrap(), Config::default());
}
