use clap::CommandFactory;

use super::*;

/// Runs a command line without the program's name and returns exit code, standard output and standard error.
fn run(arguments: &[&str]) -> (u8, String, String) {
    run_with(&[], arguments)
}

/// Does the same with environment variables.
fn run_with(variables: &[(&str, &str)], arguments: &[&str]) -> (u8, String, String) {
    let environment: Environment =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut out = Vec::new();
    let mut errors = Vec::new();
    let line = std::iter::once("trainer").chain(arguments.iter().copied());
    let code = run_command_line(line, &environment, &mut out, &mut errors);
    (code, String::from_utf8(out).unwrap(), String::from_utf8(errors).unwrap())
}

#[test]
fn command_definitions_are_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn help_and_version_succeed_on_standard_output() {
    for arguments in [&["--help"][..], &["--version"], &["eval", "--help"]] {
        let (code, out, errors) = run(arguments);
        assert_eq!((code, errors.as_str()), (EXIT_SUCCESS, ""), "{arguments:?}");
        assert!(out.contains("trainer"), "{out}");
    }
}

#[test]
fn wrong_command_lines_exit_64() {
    for (arguments, hint) in [
        (&["trian"][..], "train"),
        (&["eval", "--searchs", "none"], "--searches"),
        (&["eval", "--searches", "retreiver"], "retriever"),
        (&["convert", "only-one.gguf"], "<FOLDER>"),
        (&[], "Usage"),
    ] {
        let (code, out, errors) = run(arguments);
        assert_eq!((code, out.as_str()), (EXIT_USAGE, ""), "{arguments:?}");
        assert!(errors.contains(hint), "{arguments:?}: {errors}");
    }
}

#[test]
fn wrong_configuration_exits_64_with_every_problem() {
    let (code, out, errors) =
        run(&["train", "--set", "training.lerning_rate=1", "--set", "training.group_size=0"]);
    assert_eq!((code, out.as_str()), (EXIT_USAGE, ""));
    assert!(errors.starts_with("error: 2 problems in the configuration\n"), "{errors}");
    assert!(errors.contains("did you mean `training.learning_rate`?"), "{errors}");
    assert!(errors.contains("did you mean 1?"), "{errors}");
}

#[test]
fn commands_name_the_keys_they_need() {
    for (arguments, keys) in [
        (&["sft"][..], &["model.path", "data.train"][..]),
        (&["train"], &["model.path", "data.train"]),
        (&["eval"], &["model.path", "data.test"]),
        (&["eval", "--searches", "random"], &["model.path", "data.test", "data.corpus"]),
        (&["chat"], &["model.path"]),
    ] {
        let (code, _, errors) = run(arguments);
        assert_eq!(code, EXIT_USAGE, "{arguments:?}");
        assert_eq!(errors.lines().count(), keys.len() + 1, "{errors}");
        for key in keys {
            assert!(errors.contains(&format!("needs `{key}`")), "{arguments:?}: {errors}");
        }
    }
}

#[test]
fn a_file_of_questions_is_not_converted_onto_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("qa.jsonl");
    let line = "{\"question\": \"q?\", \"answer\": \"x\", \"context\": \"c\"}\n";
    std::fs::write(&path, line).unwrap();
    let converted = folder.path().join("converted.jsonl");
    let [path, converted] = [&path, &converted].map(|path| path.to_str().unwrap());
    let (code, _, errors) = run(&["data", "convert", path, path]);
    assert_eq!(code, EXIT_FAILURE);
    assert!(errors.contains("qa.jsonl is the input: choose another output"), "{errors}");
    assert_eq!(std::fs::read_to_string(path).unwrap(), line);
    for _ in 0..2 {
        let (code, out, errors) = run(&["data", "convert", path, converted]);
        assert_eq!((code, errors.as_str()), (0, ""), "{out}");
    }
}

#[test]
fn config_prints_the_resolved_configuration() {
    let (code, out, _) = run(&["config", "--set", "seed=9", "--run-dir", "runs/x"]);
    assert_eq!(code, EXIT_SUCCESS);
    assert!(out.contains("seed = 9\n") && out.contains("run_dir = \"runs/x\"\n"), "{out}");
    let (code, out, _) = run(&["config", "--reference"]);
    assert_eq!(code, EXIT_SUCCESS);
    assert_eq!(out, Config::reference_markdown());
    let (code, out, _) = run(&["config", "--reference", "--env"]);
    assert_eq!((code, out), (EXIT_SUCCESS, Config::reference_env()));
    assert_eq!(run(&["config", "--env"]).0, EXIT_USAGE);
}

#[test]
fn variables_override_the_file_and_arguments_override_both() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.toml");
    let keys = ["[training]", "steps = 1", "group_size = 4", "[model]", "path = \"file\""];
    std::fs::write(&file, format!("seed = 1\nrun_dir = \"file\"\n{}\n", keys.join("\n"))).unwrap();
    let variables = [
        ("TRAINER_TRAINING_STEPS", "2"),
        ("TRAINER_SEED", "2"),
        ("TRAINER_RUN_DIR", "variable"),
        ("TRAINER_MODEL_PATH", "variable"),
    ];
    let line = ["config", "--config", file.to_str().unwrap(), "--set", "seed=3"];
    let (code, out, errors) = run_with(&variables, &[&line[..], &["--run-dir", "flag"]].concat());
    assert_eq!((code, errors.as_str()), (EXIT_SUCCESS, ""));
    for line in [
        "group_size = 4",
        "steps = 2",
        "seed = 3",
        "run_dir = \"flag\"",
        "path = \"variable\"",
        "prompts_per_step = 32",
    ] {
        assert!(out.contains(&format!("\n{line}\n")), "{line:?} is not in {out}");
    }
    let (code, _, errors) =
        run_with(&[("TRAINER_MODEL_PATH", "nowhere")], &["chat", "--model", "no/model"]);
    assert_eq!(code, EXIT_FAILURE);
    assert!(errors.contains("no/model") && !errors.contains("nowhere"), "{errors}");
}

#[test]
fn one_message_names_the_problems_of_environment_arguments_and_log() {
    let variables = [("TRAINER_TRAINING_STEPS", "none"), ("TRAINER_LOG", "trainer=loudly")];
    let (code, out, errors) = run_with(&variables, &["train", "--set", "training.group_size=0"]);
    assert_eq!((code, out.as_str()), (EXIT_USAGE, ""));
    let expected = [
        "error: 3 problems in the configuration",
        "  TRAINER_TRAINING_STEPS: `training.steps` takes an integer, at least 1, not \"none\"",
        "  TRAINER_LOG: expected a filter such as info or info,trainer=debug, not \"trainer=loudly\"",
        "  --set training.group_size=0: `training.group_size` takes an integer, at least 1, not 0; did you \
         mean 1?",
    ];
    assert_eq!(errors.lines().collect::<Vec<_>>(), expected);
    // Commands without a configuration log too.
    let (code, _, errors) = run_with(&variables, &["report", "--run-dir", "no/run"]);
    assert_eq!((code, errors.lines().count()), (EXIT_USAGE, 2), "{errors}");
    assert!(errors.contains("TRAINER_LOG"), "{errors}");
}

#[test]
fn interruption_and_failure_have_their_own_codes() {
    let interrupted = anyhow::Error::new(Interrupted).context("while training");
    assert_eq!(exit_code(&interrupted), EXIT_INTERRUPTED);
    assert_eq!(exit_code(&anyhow::anyhow!("disk full")), EXIT_FAILURE);
}

/// Errors quote their causes, so the causes are not printed again.
#[test]
fn a_message_is_not_said_twice() {
    let gguf = crate::golden::path("gguf/expected.json");
    let output = tempfile::tempdir().unwrap();
    let target = output.path().join("model");
    let arguments = ["convert", gguf.to_str().unwrap(), target.to_str().unwrap()];
    let (code, _, errors) = run(&arguments);
    assert_eq!(code, EXIT_FAILURE);
    assert_eq!(errors.matches("expected the letters GGUF").count(), 1, "{errors}");
    let (_, _, errors) = run(&["convert", "nowhere.gguf", target.to_str().unwrap()]);
    assert_eq!(errors.matches("No such file").count(), 1, "{errors}");

    let outer = anyhow::Error::msg("inner").context("outer");
    assert_eq!(message(&outer), "outer: inner");
}
