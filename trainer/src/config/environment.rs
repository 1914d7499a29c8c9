//! Variables of the environment: one a key, and those that set none. The environment of the process
//! is read once, in [`environment`]; everything else takes a map, so that tests pass one.

use std::collections::BTreeMap;

use shared::telemetry;

use super::key_table;
use super::problem::{ConfigError, Origin, Problem, ProblemKind};
use super::renamed;
use super::section::KeySpec;
use super::value::{nearest_word, quoted};

/// What all names begin with.
const PREFIX: &str = "TRAINER_";

/// Values by the names of their variables.
pub type Environment = BTreeMap<String, String>;

/// A variable that sets no key.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Name in the environment.
    pub name: &'static str,
    /// Value when none is given.
    pub default: &'static str,
    /// What is accepted, in words.
    pub accepts: &'static str,
    /// What it is for.
    pub meaning: &'static str,
}

/// What is logged.
pub const LOG: Variable = Variable {
    name: "TRAINER_LOG",
    default: "info",
    accepts: "a filter such as info or info,trainer=debug",
    meaning: "What is logged.",
};

/// Variables of other programs that are followed: where models are downloaded from and kept.
const FOLLOWED: [&str; 8] = [
    "HF_ENDPOINT",
    "HF_TOKEN",
    "HF_TOKEN_PATH",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "XDG_CACHE_HOME",
    "HOME",
];

/// The variables of this process that concern the trainer. Bytes that are not UTF-8 become
/// replacement characters, which no variable accepts where it matters.
pub fn environment() -> Environment {
    std::env::vars_os()
        .map(|(name, value)| {
            (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
        })
        .filter(|(name, _)| name.starts_with(PREFIX) || FOLLOWED.contains(&name.as_str()))
        .collect()
}

/// The name of the variable that sets the key `path`.
pub(super) fn variable_of(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "_").to_uppercase())
}

/// The value of a variable without white space around it; an empty one counts as not set, since
/// supervisors such as Docker Compose pass variables on that nobody has set.
pub(super) fn value_of<'e>(environment: &'e Environment, name: &str) -> Option<&'e str> {
    environment.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
}

/// The filter of the log, checked.
///
/// # Errors
/// A value that is no filter of tracing.
pub fn log_filter(environment: &Environment) -> Result<&str, ConfigError> {
    let filter = value_of(environment, LOG.name).unwrap_or(LOG.default);
    if telemetry::check_filter(filter).is_ok() {
        return Ok(filter);
    }
    let expected = format!("expected {}, not {}", LOG.accepts, quoted(filter));
    Err(ConfigError::Invalid(vec![Problem {
        origin: Origin::Variable(LOG.name.to_owned()),
        kind: ProblemKind::Syntax(expected),
    }]))
}

/// The variables that are set and have no effect, each with the nearest known name if one is close. Those that
/// Kubernetes makes for a service called `trainer` are left out.
pub fn unknown_variables(environment: &Environment) -> Vec<(&str, Option<String>)> {
    let specs = key_table();
    let known: Vec<String> =
        specs.iter().map(KeySpec::variable).chain([LOG.name.to_owned()]).collect();
    let old: Vec<String> = specs.iter().flat_map(renamed::old_variables).collect();
    let is_foreign = |name: &str| {
        known.iter().chain(&old).any(|known| known == name)
            || name.contains("_SERVICE_")
            || name.contains("_PORT")
    };
    let endings: Vec<String> =
        known.iter().map(|name| name[PREFIX.len()..].to_lowercase()).collect();
    environment
        .keys()
        .filter(|name| name.starts_with(PREFIX))
        .filter(|name| value_of(environment, name).is_some() && !is_foreign(name))
        .map(|name| {
            let ending = name.strip_prefix(PREFIX).unwrap_or(name);
            let nearest =
                nearest_word(&renamed::current_ending(ending), endings.iter().map(String::as_str));
            (name.as_str(), nearest.map(variable_of))
        })
        .collect()
}
