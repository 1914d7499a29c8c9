//! Problems of a configuration. Each message gives everything needed to correct it: where the value was set, the
//! value, what is accepted, and the nearest accepted value.

use std::fmt;
use std::path::PathBuf;

/// The source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A configuration file; lines count from 1.
    File { path: PathBuf, line: usize },
    /// An environment variable, by its name.
    Variable(String),
    /// The command line, with the argument as it was typed.
    Argument(String),
    /// A preset, by its name.
    Preset(&'static str),
    /// No source: the key has its default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(formatter, "{}:{line}: ", path.display()),
            Self::Variable(name) => write!(formatter, "{name}: "),
            Self::Argument(argument) => write!(formatter, "{argument}: "),
            Self::Preset(name) => write!(formatter, "preset = \"{name}\": "),
            Self::Default => Ok(()),
        }
    }
}

/// A problem and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub origin: Origin,
    pub kind: ProblemKind,
}

impl Problem {
    /// Returns the problem of a value that does not fit what it refers to, such as a model or a server.
    pub fn of_value(key: &str, value: String, reason: String) -> Self {
        let kind = ProblemKind::Conflict { key: key.to_owned(), value, reason, nearest: None };
        Self { origin: Origin::Default, kind }
    }
}

/// A problem with a key or its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// The file is not TOML, an argument is not `key=value`, or a log filter is invalid.
    Syntax(String),
    UnknownKey {
        key: String,
        nearest: Vec<String>,
    },
    UnknownSection {
        section: String,
        nearest: Option<String>,
    },
    /// A section is used as a key.
    SectionNotKey {
        section: String,
    },
    WrongValue {
        key: String,
        value: String,
        accepts: String,
        nearest: Option<String>,
    },
    /// One source sets a key under its old and under its current name.
    BothNames {
        old: String,
        current: String,
    },
    /// Two keys that contradict each other; `reason` names both.
    Conflict {
        key: String,
        value: String,
        reason: String,
        nearest: Option<String>,
    },
    /// A key that the command needs and that is not set.
    Missing {
        key: String,
        command: String,
        meaning: String,
    },
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(message) => formatter.write_str(message),
            Self::UnknownKey { key, nearest } => {
                write!(formatter, "unknown key `{key}`")?;
                match nearest.as_slice() {
                    [] => Ok(()),
                    names => write!(formatter, "; did you mean `{}`?", names.join("` or `")),
                }
            }
            Self::UnknownSection { section, nearest } => {
                write!(formatter, "unknown section `[{section}]`")?;
                match nearest {
                    Some(nearest) => write!(formatter, "; did you mean `[{nearest}]`?"),
                    None => Ok(()),
                }
            }
            Self::SectionNotKey { section } => {
                write!(formatter, "`{section}` is a section, not a key; set `{section}.KEY`")
            }
            Self::WrongValue { key, value, accepts, nearest } => {
                write!(formatter, "`{key}` takes {accepts}, not {value}")?;
                suggest(formatter, nearest.as_deref())
            }
            Self::BothNames { old, current } => {
                write!(
                    formatter,
                    "`{old}` is the old name of `{current}`, and both are set; remove `{old}`"
                )
            }
            Self::Conflict { key, value, reason, nearest } => {
                write!(formatter, "`{key}` = {value} {reason}")?;
                suggest(formatter, nearest.as_deref())
            }
            Self::Missing { key, command, meaning } => {
                write!(formatter, "`{command}` needs `{key}`: {meaning}")
            }
        }
    }
}

fn suggest(formatter: &mut fmt::Formatter<'_>, nearest: Option<&str>) -> fmt::Result {
    match nearest {
        Some(nearest) => write!(formatter, "; did you mean {nearest}?"),
        None => Ok(()),
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}", self.origin, self.kind)
    }
}

/// The reason why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read configuration {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// All problems: those of the file first, then of the environment, then of the arguments.
    #[error("{}", listed(.0))]
    Invalid(Vec<Problem>),
}

/// Returns a count with its noun, such as "1 update" or "2 updates".
pub(crate) fn counted(count: u64, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

fn listed(problems: &[Problem]) -> String {
    let mut text = format!("{} in the configuration", counted(problems.len() as u64, "problem"));
    for problem in problems {
        text.push_str("\n  ");
        text.push_str(&problem.to_string());
    }
    text
}
