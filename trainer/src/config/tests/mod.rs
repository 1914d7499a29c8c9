use std::path::Path;

use super::*;
use crate::algo::KlEstimator;

mod old_names;
mod presets;
mod variables;

/// Reads a configuration of which `text`, if given, is the file `run.toml`.
fn from_source(
    text: Option<&str>,
    environment: &Environment,
    overrides: &[String],
) -> Result<Config, ConfigError> {
    let file = text.map(|text| (Path::new("run.toml"), text));
    LoadedConfig::from_source(file, environment, overrides).map(|loaded| loaded.config)
}

/// Loads `text` as the file `run.toml`, with `overrides`.
fn load(text: &str, overrides: &[&str]) -> Result<Config, ConfigError> {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    from_source(Some(text), &Environment::new(), &overrides)
}

/// Returns the lines that refuse a wrong configuration, without the heading.
#[track_caller]
fn problems(text: &str, overrides: &[&str]) -> Vec<String> {
    let message = load(text, overrides).expect_err("configuration must be refused").to_string();
    message.lines().skip(1).map(|line| line.trim().to_owned()).collect()
}

#[track_caller]
fn check(text: &str, overrides: &[&str], expected: &[&str]) {
    assert_eq!(problems(text, overrides), expected);
}

#[test]
fn file_and_overrides_set_keys_and_later_ones_win() {
    let config = load(
        "seed = 7\nrun_dir = \"runs/a\"\n[training]\nlearning_rate = 1e-5\nkl_estimator = \"k2\"\n",
        &[
            "training.learning_rate=2e-5",
            "rollout.top_p=1",
            "run_dir=runs/b c",
            "model.device=cuda:1",
        ],
    )
    .unwrap();
    assert_eq!(config.seed, 7);
    assert_eq!(config.run_dir, Path::new("runs/b c"));
    assert!((config.training.learning_rate - 2e-5).abs() < 1e-12);
    assert_eq!(config.training.kl_estimator, KlEstimator::K2);
    assert!((config.rollout.top_p - 1.0).abs() < 1e-12);
    assert_eq!(config.model.device, DeviceChoice::Cuda(1));
    assert_eq!(config.training.group_size, Config::default().training.group_size);
}

#[test]
fn addresses_may_be_a_list() {
    let list = "[retriever]\nurl = [\"http://a\", \"http://b:1\"]\n";
    let expected = "http://a, http://b:1";
    assert_eq!(load(list, &[]).unwrap().retriever.url.as_str(), expected);
    for setting in
        ["retriever.url=[\"http://a\", \"http://b:1\"]", "retriever.url=http://a, http://b:1"]
    {
        assert_eq!(load("", &[setting]).unwrap().retriever.url.as_str(), expected, "{setting}");
    }
    for wrong in ["[\"http://a\", 1]", "[\"http://a\", \"b\"]", "[]"] {
        assert_eq!(problems("", &[&format!("retriever.url={wrong}")]).len(), 1, "{wrong}");
    }
    // No other key takes a list.
    assert_eq!(problems("", &["serve.name=[\"a\"]"]).len(), 1);
}

#[test]
fn a_source_is_chosen_only_for_a_replay() {
    assert!(load("", &["record.mode=replay", "record.source=ab12"]).is_ok());
    let lines = problems("", &["record.mode=fill", "record.source=ab12"]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("`record.source` = \"ab12\" chooses what is replayed"), "{lines:?}");
    let lines = problems("", &["record.mode=replai"]);
    assert!(lines[0].contains("did you mean \"replay\"?"), "{lines:?}");
}

#[test]
fn defaults_are_valid_and_every_key_is_described() {
    assert_eq!(from_source(None, &Environment::new(), &[]).unwrap(), Config::default());
    let table = key_table();
    assert!(table.len() > 50, "{} keys", table.len());
    for spec in &table {
        assert!(spec.meaning.ends_with('.') && !spec.meaning.contains('\n'), "{spec:?}");
        assert!(!spec.accepts.is_empty(), "{spec:?}");
    }
}

#[test]
fn every_default_is_accepted_by_its_own_key() {
    for spec in key_table() {
        let Some(default) = &spec.default else { continue };
        let path = spec.path();
        if let Err(error) = load("", &[&format!("{path}={default}")]) {
            panic!("default of {path} refused: {error}");
        }
    }
}

#[test]
fn resolved_configuration_reads_back_to_itself() {
    let config = load(
        "seed = 18446744073709551615\n",
        &[
            "data.corpus=c.jsonl",
            "model.path=m",
            "training.learning_rate=3.3e-7",
            "data.template=Q: {question}\\n\"A\"",
            "optimizer.epsilon=1e-15",
            "compat=search-r1",
            "training.resume=false",
            "rollout.temperature=0.7",
        ],
    )
    .unwrap();
    assert_ne!(config, Config::default());
    assert_eq!(load(&config.to_toml(), &[]).unwrap(), config);
    let defaults = Config::default();
    assert_eq!(load(&defaults.to_toml(), &[]).unwrap(), defaults);
}

#[test]
fn misspelt_keys_name_the_nearest() {
    check(
        "[training]\nlerning_rate = 1e-6\n",
        &[],
        &[
            "run.toml:2: unknown key `training.lerning_rate`; did you mean `training.learning_rate`?",
        ],
    );
    check("sede = 1\n", &[], &["run.toml:1: unknown key `sede`; did you mean `seed`?"]);
    check(
        "learning_rate = 1e-6\n",
        &[],
        &["run.toml:1: unknown key `learning_rate`; did you mean `sft.learning_rate` or \
           `training.learning_rate` or `critic.learning_rate`?"],
    );
    check(
        "",
        &["gpro.steps=3"],
        &["--set gpro.steps=3: unknown key `gpro.steps`; did you mean `training.steps`?"],
    );
    check(
        "[rollout]\ngroup_size = 4\n",
        &[],
        &["run.toml:2: unknown key `rollout.group_size`; did you mean `training.group_size`?"],
    );
    check(
        "\n[rolout]\nmax_turns = 2\n",
        &[],
        &["run.toml:2: unknown section `[rolout]`; did you mean `[rollout]`?"],
    );
    check(
        "",
        &["qqqqqqqqqqqqqqqqqqqqqqqq=1"],
        &["--set qqqqqqqqqqqqqqqqqqqqqqqq=1: unknown key `qqqqqqqqqqqqqqqqqqqqqqqq`"],
    );
    check(
        "",
        &["training=1"],
        &["--set training=1: `training` is a section, not a key; set `training.KEY`"],
    );
}

#[test]
fn wrong_values_name_what_is_accepted_and_the_nearest() {
    check(
        "[training]\n\nkl_estimator = \"k33\"\n",
        &[],
        &[
            "run.toml:3: `training.kl_estimator` takes \"k1\", \"abs\", \"k2\", \"k3\" or \"k3+\", not \
         \"k33\"; did you mean \"k3\"?",
        ],
    );
    check(
        "",
        &["training.group_size=0"],
        &[
            "--set training.group_size=0: `training.group_size` takes an integer, at least 1, not 0; did you \
         mean 1?",
        ],
    );
    check(
        "",
        &["rollout.top_p=1.5"],
        &[
            "--set rollout.top_p=1.5: `rollout.top_p` takes a number, above 0 and at most 1, not 1.5; \
         did you mean 1.0?",
        ],
    );
    check(
        "",
        &["rollout.top_p=0"],
        &["--set rollout.top_p=0: `rollout.top_p` takes a number, above 0 and at most 1, not 0"],
    );
    check(
        "[training]\nsteps = \"12\"\n",
        &[],
        &[
            "run.toml:2: `training.steps` takes an integer, at least 1, not \"12\"; did you mean 12?",
        ],
    );
    check(
        "[training]\nresume = \"yes\"\n",
        &[],
        &["run.toml:2: `training.resume` takes true or false, not \"yes\"; did you mean true?"],
    );
    check(
        "seed = -1\n",
        &[],
        &["run.toml:1: `seed` takes an integer, at least 0, not -1; did you mean 0?"],
    );
    check(
        "[model]\ndevice = \"gpu\"\n",
        &[],
        &[
            "run.toml:2: `model.device` takes \"auto\", \"cpu\", \"cuda\" or \"cuda:N\", not \"gpu\"; \
         did you mean \"cuda\"?",
        ],
    );
    check(
        "[data]\ntemplate = \"search_r1\"\n",
        &[],
        &[
            "run.toml:2: `data.template` takes \"search-r1\", \"short\" or a text with {question} in \
         it, not \"search_r1\"; did you mean \"search-r1\"?",
        ],
    );
    check(
        "[sft]\nepochs = [1]\n",
        &[],
        &["run.toml:2: `sft.epochs` takes an integer, at least 1, not a list"],
    );
    check(
        "",
        &["training.learning_rate=nan"],
        &[
            "--set training.learning_rate=nan: `training.learning_rate` takes a number, above 0, not NaN",
        ],
    );
}

#[test]
fn all_problems_come_at_once_in_the_order_they_were_written() {
    check(
        "[sft]\nepochs = 0\nzzz_unheard_of_nowhere = 1\n[training]\nsteps = 1.5\n",
        &["rollout.max_turns=0", "novalue"],
        &[
            "run.toml:2: `sft.epochs` takes an integer, at least 1, not 0; did you mean 1?",
            "run.toml:3: unknown key `sft.zzz_unheard_of_nowhere`",
            "run.toml:5: `training.steps` takes an integer, at least 1, not 1.5; did you mean 2?",
            "--set rollout.max_turns=0: `rollout.max_turns` takes an integer, at least 1 and at \
             most 64, not 0; did you mean 1?",
            "--set novalue: expected key=value",
        ],
    );
}

#[test]
fn conflicting_keys_are_refused_where_they_were_set() {
    check(
        "[training]\nprompts_per_step = 2\ngroup_size = 4\ntrajectories_per_update = 9\n",
        &[],
        &[
            "run.toml:4: `training.trajectories_per_update` = 9 exceeds the 8 trajectories of a step \
         (`training.prompts_per_step` times `training.group_size`); did you mean 8?",
        ],
    );
    check(
        "",
        &["deterministic=true", "threads=4"],
        &[
            "--set threads=4: `threads` = 4 contradicts `deterministic` = true, which computes on one \
         thread; did you mean 1?",
        ],
    );
    check(
        "",
        &["retriever.url=localhost:8000/retrieve"],
        &[
            "--set retriever.url=localhost:8000/retrieve: `retriever.url` = \"localhost:8000/retrieve\" \
         does not begin with http:// or https://; did you mean \"http://localhost:8000/retrieve\"?",
        ],
    );
    check(
        "",
        &["retriever.url=http://a, b:1"],
        &[
            "--set retriever.url=http://a, b:1: `retriever.url` = \"http://a, b:1\" has \"b:1\", which does not begin with http:// or https://",
        ],
    );
    check(
        "",
        &["retriever.url=dns+b:1"],
        &[
            "--set retriever.url=dns+b:1: `retriever.url` = \"dns+b:1\" does not begin with http:// or \
             https://; did you mean \"dns+http://b:1\"?",
        ],
    );
    check(
        "",
        &["retriever.otlp_endpoint=collector:4318"],
        &[
            "--set retriever.otlp_endpoint=collector:4318: `retriever.otlp_endpoint` = \"collector:4318\" does not begin with http:// or https://; did \
             you mean \"http://collector:4318\"?",
        ],
    );
    check(
        "",
        &["rollout.max_passage_tokens=501"],
        &["--set rollout.max_passage_tokens=501: `rollout.max_passage_tokens` = 501 exceeds \
         `rollout.max_observation_tokens` = 500; did you mean 500?"],
    );
    check(
        "",
        &["retriever.deadline_ms=5", "retriever.attempt_timeout_ms=10"],
        &[
            "--set retriever.attempt_timeout_ms=10: `retriever.attempt_timeout_ms` = 10 is longer than `retriever.deadline_ms` = 5; did \
         you mean 5?",
        ],
    );
}

/// Each setting, together with `context`, is refused with one line that holds `parts`.
#[test]
fn algorithms_whose_parts_do_not_fit_are_refused_by_name() {
    for (setting, context, parts) in [
        ("training.group_size=1", "", &["`algorithm.advantage` = \"grpo\"", "did you mean 2?"][..]),
        ("training.group_size=1", "algorithm.advantage=rloo", &["\"rloo\" compares"]),
        (
            "algorithm.dynamic_sampling=true",
            "algorithm.advantage=gae",
            &["selects groups", "\"gae\"", "did you mean false?"],
        ),
        ("training.skip_uniform_groups=true", "algorithm.advantage=reinforce", &["\"reinforce\""]),
        (
            "training.loss_aggregation=token-mean",
            "algorithm.policy_loss=gspo",
            &["`algorithm.policy_loss` = \"gspo\"", "did you mean \"seq-mean-token-mean\"?"],
        ),
        ("training.loss_aggregation=token-sum", "algorithm.policy_loss=sapo", &["\"sapo\""]),
        ("training.loss_aggregation=token-sum", "algorithm.policy_loss=gmpo", &["\"gmpo\""]),
        ("algorithm.dual_clip=3", "algorithm.policy_loss=cispo", &["\"clip\" only, not \"cispo\""]),
        ("algorithm.dual_clip=0.5", "", &["above 1, or 0", "did you mean 3.0?"]),
        ("algorithm.norm_tokens=9", "", &["\"seq-mean-token-sum-norm\" only"]),
        (
            "algorithm.kl_placement=reward",
            "training.kl_coefficient=0",
            &["needs `training.kl_coefficient` above 0"],
        ),
        ("algorithm.kl_controller=adaptive", "", &["`algorithm.kl_placement` = \"reward\""]),
        ("critic.warmup_steps=2", "", &["needs a critic", "\"grpo\" does not", "did you mean 0?"]),
        (
            "critic.warmup_steps=100",
            "algorithm.advantage=gae",
            &["leaves the policy untrained", "did you mean 99?"],
        ),
        (
            "checkpoint.keep_best=2",
            "",
            &["`checkpoint.keep_last` = 0 keeps all", "did you mean 0?"],
        ),
        ("checkpoint.keep_best=2", "checkpoint.keep_last=1", &["eval_every_steps` = 0 makes none"]),
        (
            "guard.learning_rate_factor=1.0",
            "guard.action=roll-back",
            &["repeats the same collapse", "did you mean 0.5?"],
        ),
        ("algorithm.overlong_buffer_tokens=9999", "", &["2500 tokens", "did you mean 2500?"]),
    ] {
        let overrides: Vec<&str> =
            [context, setting].into_iter().filter(|setting| !setting.is_empty()).collect();
        let lines = problems("", &overrides);
        assert_eq!(lines.len(), 1, "{setting}: {lines:?}");
        let start = format!("--set {setting}: `{}` = ", setting.split('=').next().unwrap());
        assert!(lines[0].starts_with(&start), "{lines:?}");
        for part in parts {
            assert!(lines[0].contains(part), "{part:?} is not in {:?}", lines[0]);
        }
    }
    for fitting in [
        &["algorithm.advantage=reinforce", "training.group_size=1"][..],
        &["algorithm.advantage=gae", "training.group_size=1", "critic.warmup_steps=5"],
        &["algorithm.policy_loss=gspo", "training.loss_aggregation=seq-mean-token-mean"],
        &["algorithm.kl_placement=reward", "algorithm.kl_controller=adaptive"],
        &["algorithm.dual_clip=3", "algorithm.dynamic_sampling=true"],
    ] {
        assert!(load("", fitting).is_ok(), "{fitting:?}");
    }
}

#[test]
fn text_that_is_not_toml_names_its_line() {
    let lines = problems("seed = 1\n[training\nsteps = 3\n", &[]);
    assert!(!lines.is_empty());
    assert!(lines[0].starts_with("run.toml:2: not TOML: "), "{lines:?}");
}

#[test]
fn a_missing_file_is_named() {
    let error =
        Config::load(Some(Path::new("no/such.toml")), &Environment::new(), &[]).unwrap_err();
    let error = error.to_string();
    assert!(error.starts_with("cannot read configuration no/such.toml: "), "{error}");
}

#[test]
fn required_keys_are_named_with_their_meaning() {
    let config = load("", &["data.train=t.jsonl"]).unwrap();
    let error = config.require("trainer train", &["model.path", "data.train"]).unwrap_err();
    let message = error.to_string();
    assert_eq!(message.lines().count(), 2, "{message}");
    assert!(
        message.contains("`trainer train` needs `model.path`: Folder of the model"),
        "{message}"
    );
    assert!(config.require("trainer train", &["data.train"]).is_ok());
}

#[test]
fn risky_settings_cause_warnings() {
    assert_eq!(Config::default().warnings(), Vec::<String>::new());
    let config = load("", &["rollout.top_p=0.9"]).unwrap();
    assert_eq!(config.warnings().len(), 1);
    assert!(config.warnings()[0].contains("`rollout.top_p` = 0.9"));
    let config = load("", &["algorithm.likelihood_coefficient=0.1"]).unwrap();
    assert_eq!(config.warnings().len(), 1);
    assert!(config.warnings()[0].contains("has no effect with one update per step"));
    let config =
        load("", &["algorithm.policy_loss=reinforce", "training.epochs_per_step=2"]).unwrap();
    assert_eq!(config.warnings().len(), 1);
}
