//! docs/configuration.md and .env.example describe the settings of the programs. `make configuration`
//! rewrites both.

use std::path::{Path, PathBuf};

use retriever_server::config::variables;
use trainer::config::Config;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the two texts in a script, one before each program's part.
fn heads(script: &str) -> [String; 2] {
    let script = std::fs::read_to_string(repository().join("scripts").join(script)).unwrap();
    let texts: Vec<String> = script
        .split("cat <<'EOF'\n")
        .skip(1)
        .map(|rest| rest.split_once("EOF\n").unwrap().0.to_owned())
        .collect();
    texts.try_into().unwrap()
}

#[track_caller]
fn check(file: &str, script: &str, [retriever, trainer]: [String; 2]) {
    let [first, second] = heads(script);
    let expected = format!("{first}{retriever}{second}{trainer}");
    let text = std::fs::read_to_string(repository().join(file)).unwrap_or_default();
    assert!(text == expected, "{file} is stale: run `make configuration`");
}

#[test]
fn the_configuration_page_is_fresh() {
    let parts = [variables::markdown(), Config::reference_markdown()];
    check("docs/configuration.md", "configuration-page", parts);
}

#[test]
fn the_example_of_variables_is_fresh() {
    let parts = [variables::env_example(), Config::reference_env()];
    check(".env.example", "env-example", parts);
}

#[test]
fn the_example_of_variables_sets_nothing() {
    let example = std::fs::read_to_string(repository().join(".env.example")).unwrap();
    for line in example.lines() {
        assert!(line.is_empty() || line.starts_with("# "), "{line:?}");
    }
    for variable in variables::VARIABLES {
        let default = variable.default.unwrap_or_default();
        let line = format!("# {}={default}", variable.name);
        assert!(example.lines().any(|other| other == line), "{line:?} is missing");
    }
}
