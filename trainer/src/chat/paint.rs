//! Colour on a terminal, nothing elsewhere. Everything shown can be read without colour.

use std::fmt::Display;
use std::io::{self, IsTerminal};

/// Paints text with ANSI escapes, or leaves it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    Colour,
    Plain,
}

impl Paint {
    /// Colour if standard output is a terminal and the user has not asked for none
    /// (<https://no-color.org>).
    pub fn for_stdout() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if io::stdout().is_terminal() && !refused { Self::Colour } else { Self::Plain }
    }

    fn with(self, code: &str, text: impl Display) -> String {
        match self {
            Self::Colour => format!("\x1b[{code}m{text}\x1b[0m"),
            Self::Plain => text.to_string(),
        }
    }

    /// What is said in passing.
    pub fn dim(self, text: impl Display) -> String {
        self.with("2", text)
    }

    pub fn bold(self, text: impl Display) -> String {
        self.with("1", text)
    }

    /// What the model searches for.
    pub fn search(self, text: impl Display) -> String {
        self.with("36", text)
    }

    /// What the model answers.
    pub fn answer(self, text: impl Display) -> String {
        self.with("1;32", text)
    }

    /// What went wrong.
    pub fn warning(self, text: impl Display) -> String {
        self.with("33", text)
    }
}
