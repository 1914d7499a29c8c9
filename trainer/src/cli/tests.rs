use clap::CommandFactory;

use super::*;

/// Exit code, standard output and standard error of a command line without the program's name.
fn run(arguments: &[&str]) -> (u8, String, String) {
    let mut out = Vec::new();
    let mut errors = Vec::new();
    let line = std::iter::once("trainer").chain(arguments.iter().copied());
    let code = run_command_line(line, &mut out, &mut errors);
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
        run(&["train", "--set", "grpo.lerning_rate=1", "--set", "grpo.group_size=1"]);
    assert_eq!((code, out.as_str()), (EXIT_USAGE, ""));
    assert!(errors.starts_with("error: 2 problems in the configuration\n"), "{errors}");
    assert!(errors.contains("did you mean `grpo.learning_rate`?"), "{errors}");
    assert!(errors.contains("did you mean 2?"), "{errors}");
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
fn config_prints_what_was_resolved() {
    let (code, out, _) = run(&["config", "--set", "seed=9", "--run-dir", "runs/x"]);
    assert_eq!(code, EXIT_SUCCESS);
    assert!(out.contains("seed = 9\n") && out.contains("run_dir = \"runs/x\"\n"), "{out}");
    let (code, out, _) = run(&["config", "--reference"]);
    assert_eq!(code, EXIT_SUCCESS);
    assert_eq!(out, Config::reference_markdown());
}

#[test]
fn interruption_and_failure_have_their_own_codes() {
    let interrupted = anyhow::Error::new(Interrupted).context("while training");
    assert_eq!(exit_code(&interrupted), EXIT_INTERRUPTED);
    assert_eq!(exit_code(&anyhow::anyhow!("disk full")), EXIT_FAILURE);
}
