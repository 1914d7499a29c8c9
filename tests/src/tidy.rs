//! Rules of the checkout that no compiler checks: sizes and names of files, words that they must not
//! contain, links between pages, and the dependencies between packages.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

const FILE_LINES_MAX: usize = 450;
const MAIN_LINES_MAX: usize = 60;
/// Names that say nothing about the content of a file.
const EMPTY_NAMES: [&str; 6] =
    ["utils.rs", "util.rs", "helpers.rs", "base.rs", "common.rs", "misc.rs"];
/// Folders without sources of the project.
const FOREIGN: [&str; 5] = [".git", ".cache", "target", "runs", "golden"];
const SOURCES: [&str; 5] = ["rs", "py", "toml", "md", ""];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Returns the path of every source file, relative to the root of the checkout, and its text.
pub(crate) fn sources() -> Vec<(String, String)> {
    let root = repository();
    let mut sources = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !FOREIGN.contains(&name.as_str()) {
                folders.push(path);
            } else if path.is_file() && SOURCES.contains(&extension.as_str()) && name != "LICENSE" {
                // In a linked worktree `.git` is a file, which is not a source either.
                if FOREIGN.contains(&name.as_str()) {
                    continue;
                }
                let text = fs::read_to_string(&path).unwrap();
                let relative = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                sources.push((relative, text));
            }
        }
    }
    assert!(sources.len() > 50, "only {} source files in the checkout", sources.len());
    sources
}

/// Fails with all offences at once.
#[track_caller]
pub(crate) fn expect_none(offences: &[String]) {
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

#[test]
fn files_are_short_and_named_for_what_they_hold() {
    let mut offences = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        let name = path.rsplit('/').next().unwrap_or(&path);
        let limit = if name == "main.rs" && path != "tests/src/main.rs" {
            MAIN_LINES_MAX
        } else {
            FILE_LINES_MAX
        };
        if lines > limit {
            offences.push(format!("{path}: {lines} lines, at most {limit}"));
        }
        if EMPTY_NAMES.contains(&name) {
            offences.push(format!("{path}: name the file for what it holds"));
        }
    }
    expect_none(&offences);
}

#[test]
fn a_module_with_a_folder_is_the_folders_mod_rs() {
    let paths: Vec<String> = sources()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| has_extension(path, "rs"))
        .collect();
    let mut offences = Vec::new();
    for path in &paths {
        let folder = format!("{}/", path.trim_end_matches(".rs"));
        if paths.iter().any(|other| other.starts_with(&folder)) {
            offences.push(format!("{path}: move it to {folder}mod.rs"));
        }
    }
    expect_none(&offences);
}

#[test]
fn nothing_is_tied_to_one_machine_or_registry() {
    // Each word is in two parts here; otherwise, this file would be an offence.
    let banned = [
        ("py", "pi.org"),
        ("python", "hosted"),
        ("crates", ".io"),
        ("/wo", "rk/"),
        ("/ro", "ot/"),
        ("/ho", "me/"),
    ];
    let banned = banned.map(|(start, end)| format!("{start}{end}"));
    let mut offences = Vec::new();
    for (path, text) in sources() {
        for (index, line) in text.lines().enumerate() {
            for word in banned.iter().filter(|word| line.contains(word.as_str())) {
                offences.push(format!("{path}:{}: {word}", index + 1));
            }
        }
    }
    expect_none(&offences);
}

#[test]
fn tests_wait_for_events_not_for_time() {
    let call = ["sleep", "("].concat();
    let mut offences = Vec::new();
    for (path, text) in sources() {
        let is_test = path.starts_with("tests/")
            || path.ends_with("/tests.rs")
            || path.contains("/tests/")
            || path.ends_with("_test.rs");
        if is_test && has_extension(&path, "rs") {
            for (index, _) in text.lines().enumerate().filter(|(_, line)| line.contains(&call)) {
                offences.push(format!("{path}:{}: a test sleeps", index + 1));
            }
        }
    }
    expect_none(&offences);
}

#[test]
fn unfinished_work_is_not_left_in_the_code() {
    let banned =
        [["todo", "!("], ["unimplemented", "!("], ["#[ign", "ore"], ["#[should", "_panic"]];
    let banned = banned.map(|parts| parts.concat());
    let mut offences = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| has_extension(path, "rs")) {
        for (index, line) in text.lines().enumerate() {
            for word in banned.iter().filter(|word| line.contains(word.as_str())) {
                offences.push(format!("{path}:{}: {word}", index + 1));
            }
        }
    }
    expect_none(&offences);
}

#[test]
fn links_between_pages_lead_somewhere() {
    let root = repository();
    let mut checked = 0;
    let mut offences = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| has_extension(path, "md")) {
        let folder = root.join(&path).parent().unwrap().to_path_buf();
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#', ' ']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            checked += 1;
            if !folder.join(target).try_exists().unwrap() {
                offences.push(format!("{path}: {target} does not exist"));
            }
        }
    }
    expect_none(&offences);
    assert!(checked > 3, "the pages link to each other");
}

/// Returns the names of all packages that `package` is built from, without those of its tests.
fn built_from(package: &str) -> BTreeSet<String> {
    let arguments = ["tree", "--offline", "--locked", "--prefix", "none", "--edges", "no-dev"];
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--package", package])
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8(output.stdout).unwrap();
    listed.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn dependencies_run_one_way() {
    let without = |package: &str, banned: &[&str]| {
        let packages = built_from(package);
        assert!(packages.contains("serde"), "{package} is built from {packages:?}");
        for name in banned {
            assert!(!packages.contains(*name), "{package} depends on {name}");
        }
    };
    without("shared", &["axum", "tch", "torch-sys", "tantivy", "retriever-server", "trainer"]);
    without("retriever-server", &["tch", "torch-sys", "trainer"]);
    without("trainer", &["tantivy", "retriever-server"]);
}

#[test]
fn versions_stand_in_the_workspace_only() {
    let mut offences = Vec::new();
    for (path, text) in sources() {
        if path.ends_with("/Cargo.toml") && path != "Cargo.toml" {
            let versions = text.lines().filter(|line| {
                line.contains("version = \"")
                    || line.split_once(" = \"").is_some_and(|(_, value)| {
                        value.starts_with(|first: char| first.is_ascii_digit() || first == '=')
                    })
            });
            offences.extend(versions.map(|line| format!("{path}: {line}")));
        }
    }
    expect_none(&offences);
}

#[test]
fn shell_scripts_are_well_formed() {
    let mut checked = 0;
    for (path, text) in sources() {
        if text.starts_with("#!/usr/bin/env bash") {
            let output =
                Command::new("bash").arg("-n").arg(repository().join(&path)).output().unwrap();
            assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
            checked += 1;
        }
    }
    assert!(checked >= 3, "only {checked} scripts were found");
}

/// Returns `true` if a path ends with this extension.
pub(crate) fn has_extension(path: &str, extension: &str) -> bool {
    std::path::Path::new(path).extension().is_some_and(|other| other == extension)
}
