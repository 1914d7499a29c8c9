//! Names that keys had in earlier releases. They are still accepted, and each use is reported.

use std::fmt;

use super::environment::variable_of;
use super::problem::Origin;
use super::section::KeySpec;

/// The old and the current name of every renamed section.
const SECTIONS: [(&str, &str); 1] = [("grpo", "training")];

/// A use of an old name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldName {
    /// The source that uses it.
    pub origin: Origin,
    /// The key, or the variable, as it was written.
    pub written: String,
    /// The current name of the same key or variable.
    pub current: String,
}

impl fmt::Display for OldName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, written, current } = self;
        // A variable's origin is its name.
        if !matches!(origin, Origin::Variable(_)) {
            write!(formatter, "{origin}")?;
        }
        write!(formatter, "`{written}` is now called `{current}`")
    }
}

/// A key as one of the sources names it.
pub(super) struct WrittenKey {
    /// The current dotted name.
    pub path: String,
    /// The name in the source: dotted, or that of a variable.
    pub written: String,
    /// The current name in the same form as `written`.
    pub current: String,
}

impl WrittenKey {
    /// A key with the dotted name `path`, which may be an old one.
    pub(super) fn of_path(path: &str) -> Self {
        let current = current_path(path);
        Self { path: current.clone(), written: path.to_owned(), current }
    }

    /// The key of `spec`, set by the variable `name`.
    pub(super) fn of_variable(spec: &KeySpec, name: String) -> Self {
        Self { path: spec.path(), written: name, current: spec.variable() }
    }
}

/// The current name of the section `name`.
pub(super) fn current_section(name: &str) -> &str {
    SECTIONS.iter().find(|(old, _)| *old == name).map_or(name, |(_, current)| current)
}

/// The current dotted name of the key `path`.
fn current_path(path: &str) -> String {
    match path.split_once('.') {
        Some((section, key)) => format!("{}.{key}", current_section(section)),
        None => current_section(path).to_owned(),
    }
}

/// The variables of earlier releases that set the key of `spec`.
pub(super) fn old_variables(spec: &KeySpec) -> impl Iterator<Item = String> {
    SECTIONS
        .iter()
        .filter(|(_, current)| *current == spec.section)
        .map(|(old, _)| variable_of(&format!("{old}.{}", spec.key)))
}

/// The name of a variable without its prefix, in lower case, with the current name of its section.
pub(super) fn current_ending(ending: &str) -> String {
    let ending = ending.to_lowercase();
    SECTIONS
        .iter()
        .find_map(|(old, current)| {
            let key = ending.strip_prefix(old)?.strip_prefix('_')?;
            Some(format!("{current}_{key}"))
        })
        .unwrap_or(ending)
}
