//! The order of each service's top-level modules, from the bottom to the top. Here they are called rooms.
//! A room may name only rooms before it in its list. No two rooms thus depend on each other, and each can
//! be read with only the rooms below it.
//!
//! A path within a room begins with `super`, a path to another room with `crate`: a `super` that leaves
//! its room fails too. The rules also hold for tests, except for those in [`LOOKING_UP`].

use std::collections::BTreeSet;

use crate::tidy::{expect_none, sources};

const RETRIEVER: [&str; 32] = [
    // The bottom: the machine, and values without behaviour.
    "processor",
    "device",
    "query",
    "turns",
    "metrics",
    "ticket",
    "pool",
    "upstream",
    // Passages, and the searches for them.
    "corpus",
    "lexical",
    "vector",
    "encode",
    "gpu",
    "index",
    "web",
    "engine",
    // From queries to answers.
    "backend",
    "batcher",
    "rerank",
    "pipeline",
    // The server.
    "access",
    "config",
    "admission",
    "state",
    "loading",
    "reload",
    "http",
    "app",
    // The other commands.
    "evaluation",
    "capacity",
    "bench",
    "cli",
];

const TRAINER: [&str; 26] = [
    "golden",
    // The bottom: values and functions of values.
    "stop",
    "search",
    "jinja",
    "token",
    "data",
    "algo",
    // The model, and the engines that sample from it.
    "policy",
    // Other formats of models.
    "convert",
    "engine",
    // From questions to trajectories.
    "rollout",
    "reward",
    "chat",
    "serve",
    // From trajectories to weights.
    "update",
    "critic",
    "checkpoint",
    // Reports.
    "track",
    "eval",
    "report",
    "tracking",
    // The configuration, which parses into the types of the rooms before it.
    "config",
    "hub",
    "lint",
    // The commands.
    "run",
    "cli",
];

/// Tests that compare a room with one above it: the file, and the room above.
const LOOKING_UP: [(&str, &str); 3] = [
    ("trainer/src/engine/external/tests/mod.rs", "rollout"),
    ("trainer/src/policy/tests/real_model.rs", "engine"),
    ("trainer/src/update/tests/recorded.rs", "critic"),
];

#[test]
fn rooms_of_the_retriever_name_only_rooms_below_them() {
    check_order("retriever-server/src/", &RETRIEVER);
}

#[test]
fn rooms_of_the_trainer_name_only_rooms_below_them() {
    check_order("trainer/src/", &TRAINER);
}

#[track_caller]
fn check_order(root: &str, order: &[&str]) {
    let floor = |room: &str| order.iter().position(|name| *name == room);
    let (mut offences, mut rooms) = (Vec::new(), BTreeSet::new());
    for (path, text) in sources() {
        let Some(module) = path.strip_prefix(root).and_then(module_path) else { continue };
        let Some(room) = module.first().cloned() else { continue };
        for (line, other) in named_rooms(&module, &text) {
            let excepted = LOOKING_UP.contains(&(path.as_str(), other.as_str()));
            match (floor(&room), floor(&other)) {
                (_, None) => offences.push(format!("{path}:{line}: {other:?} is not in the list")),
                (Some(own), Some(above)) if above > own && !excepted => offences.push(format!(
                    "{path}:{line}: {room} names {other}, which is above it ({root}{other})"
                )),
                _ => {}
            }
        }
        if floor(&room).is_none() && !rooms.contains(&room) {
            offences.push(format!("{path}: the room {room:?} is not in the list"));
        }
        rooms.insert(room);
    }
    let absent = order.iter().filter(|room| !rooms.contains(**room));
    offences.extend(absent.map(|room| format!("{root}{room} is in the list but does not exist")));
    expect_none(&offences);
}

/// Returns the path of a file's module below the root of its crate: empty for the root itself, `None` for a
/// file that is not Rust.
fn module_path(file: &str) -> Option<Vec<String>> {
    let mut names: Vec<String> = file.strip_suffix(".rs")?.split('/').map(str::to_owned).collect();
    names.pop_if(|last| ["mod", "lib", "main"].contains(&last.as_str()));
    Some(names)
}

/// Returns the rooms that the code of `module` names, including its own, each with the line.
fn named_rooms(module: &[String], text: &str) -> Vec<(usize, String)> {
    let mut rooms = Vec::new();
    // The indentations of the inline modules around the current line.
    let mut inline: Vec<usize> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let indentation = code.len() - code.trim_start().len();
        inline.pop_if(|open| code.trim_end() == format!("{}}}", " ".repeat(*open)));
        let depth = module.len() + inline.len();
        if code.trim_end().ends_with('{') && code.split_whitespace().any(|word| word == "mod") {
            inline.push(indentation);
        }
        let outside = chains_of_super(code).filter(|(supers, _)| *supers >= depth);
        for path in code.split("crate::").skip(1).chain(outside.map(|(_, rest)| rest)) {
            rooms.extend(first_names(path).into_iter().map(|room| (index + 1, room)));
        }
    }
    rooms
}

/// Returns the first names of a path or of a group of paths. A group over several lines is returned
/// unchanged, and then fails the check.
fn first_names(path: &str) -> Vec<String> {
    let is_in_name = |letter: &char| letter.is_alphanumeric() || *letter == '_';
    let first = |path: &str| path.trim().chars().take_while(is_in_name).collect::<String>();
    match path.strip_prefix('{').map(|group| group.split_once('}')) {
        None => vec![first(path)],
        Some(Some((group, _))) => group.split(',').map(first).collect(),
        Some(None) => vec![path.to_owned()],
    }
}

/// Returns every path of a line that begins with `super`: the number of `super` steps, and the rest.
fn chains_of_super(code: &str) -> impl Iterator<Item = (usize, &str)> {
    const STEP: &str = "super::";
    let starts = code.match_indices(STEP).map(|(start, _)| start);
    let first = starts.filter(|&start| !code[..start].ends_with(STEP));
    first.map(|start| {
        let path = &code[start..];
        let rest = path.trim_start_matches(STEP);
        ((path.len() - rest.len()) / STEP.len(), rest)
    })
}

#[test]
fn rooms_are_recognised_in_every_form_of_path() {
    let module = ["vector".to_owned(), "scan".to_owned()];
    let text = "\
use super::rows::Rows;
use super::super::query::Hit;
use crate::processor::mapped; // not crate::comment
use crate::{device, pool::Pool};
pub(in crate::vector) fn scan() {}
mod tests {
    use super::super::kernel;
    use super::super::super::gpu;
}
";
    let expected =
        [(2, "query"), (3, "processor"), (4, "device"), (4, "pool"), (5, "vector"), (8, "gpu")]
            .map(|(line, room)| (line, room.to_owned()));
    assert_eq!(named_rooms(&module, text), expected);
}
