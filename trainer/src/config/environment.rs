//! Environment variables: one for each key, and one that sets no key. Only [`environment`] reads the environment
//! of the process, once; everything else takes a map, so that tests can pass their own.

use std::collections::BTreeMap;

use shared::machine::telemetry;

use super::key_table;
use super::problem::{ConfigError, Origin, Problem, ProblemKind};
use super::renamed;
use super::section::KeySpec;
use super::value::{nearest_word, quoted};

/// The prefix of all names.
const PREFIX: &str = "TRAINER_";

/// The values of variables by name.
pub type Environment = BTreeMap<String, String>;

/// A variable that sets no key.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Name in the environment.
    pub name: &'static str,
    /// Value of an unset variable.
    pub default: &'static str,
    /// Accepted values, in words.
    pub accepts: &'static str,
    /// Purpose, in one sentence.
    pub meaning: &'static str,
}

/// The filter of the log.
pub const LOG: Variable = Variable {
    name: "TRAINER_LOG",
    default: "info",
    accepts: "a filter such as info or info,trainer=debug",
    meaning: "Filter that selects the log's messages.",
};

/// Variables of other programs that apply here as well: where models are downloaded from and stored.
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

/// Returns the variables of this process that concern the trainer. Bytes that are not UTF-8 become replacement
/// characters, which no variable accepts where it matters.
pub fn environment() -> Environment {
    std::env::vars_os()
        .map(|(name, value)| {
            (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
        })
        .filter(|(name, _)| name.starts_with(PREFIX) || FOLLOWED.contains(&name.as_str()))
        .collect()
}

/// Returns the name of the variable that sets the key `path`.
pub(super) fn variable_of(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "_").to_uppercase())
}

/// Returns the value of a variable without surrounding white space. An empty variable counts as not set, because
/// supervisors such as Docker Compose pass on variables that nobody has set.
pub(super) fn value_of<'e>(environment: &'e Environment, name: &str) -> Option<&'e str> {
    environment.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
}

/// Returns the filter of the log, checked.
///
/// # Errors
/// A value that is not a filter of tracing.
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

/// Returns the variables that are set and have no effect, each with the nearest known name if one is close. It
/// leaves out those that Kubernetes makes for a service called `trainer`.
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
        .filter_map(|name| Some((name, name.strip_prefix(PREFIX)?)))
        .filter(|(name, _)| value_of(environment, name).is_some() && !is_foreign(name))
        .map(|(name, ending)| {
            let nearest =
                nearest_word(&renamed::current_ending(ending), endings.iter().map(String::as_str));
            (name.as_str(), nearest.map(variable_of))
        })
        .collect()
}
