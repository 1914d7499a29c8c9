//! Errors of templates.

/// An error in compiling or rendering a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JinjaError {
    /// The template is not valid Jinja.
    #[error("syntax error: {reason} (line {line})")]
    Syntax { line: usize, reason: String },
    /// The template called `raise_exception`.
    #[error("{0}")]
    Raised(String),
    /// jinja2 fails too: a wrong type, an undefined value, an unknown method.
    #[error("{0}")]
    Failed(String),
    /// jinja2 may render it; this module does not.
    #[error("not supported: {0}")]
    Unsupported(String),
}

pub(super) type Result<T> = std::result::Result<T, JinjaError>;

/// Returns the error of an operation that fails in Python too.
pub(super) fn failed<T>(reason: impl Into<String>) -> Result<T> {
    Err(JinjaError::Failed(reason.into()))
}

/// Returns the error of an operation that only Python can do.
pub(super) fn unsupported<T>(what: impl Into<String>) -> Result<T> {
    Err(JinjaError::Unsupported(what.into()))
}

impl JinjaError {
    /// Adds the line of the statement to an error that does not name one.
    pub(super) fn at(self, line: usize) -> Self {
        let with_line = |text: String| {
            if text.ends_with(')') && text.contains(" (line ") {
                text
            } else {
                format!("{text} (line {line})")
            }
        };
        match self {
            Self::Failed(text) => Self::Failed(with_line(text)),
            Self::Unsupported(text) => Self::Unsupported(with_line(text)),
            other => other,
        }
    }
}
