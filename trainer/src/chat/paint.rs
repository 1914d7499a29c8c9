//! Colour on a terminal, plain text elsewhere. Colour never carries information of its own.

use std::fmt::Display;
use std::io::{self, IsTerminal};

/// The style of output: ANSI colours or plain text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    Colour,
    Plain,
}

impl Paint {
    /// Returns `Colour` if standard output is a terminal and `NO_COLOR` is not set
    /// (<https://no-color.org>).
    pub fn for_stdout() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if io::stdout().is_terminal() && !refused { Self::Colour } else { Self::Plain }
    }

    fn styled(self, code: &str, text: impl Display) -> String {
        match self {
            Self::Colour => format!("\x1b[{code}m{text}\x1b[0m"),
            Self::Plain => text.to_string(),
        }
    }

    /// Styles secondary text.
    pub fn dim(self, text: impl Display) -> String {
        self.styled("2", text)
    }

    pub fn bold(self, text: impl Display) -> String {
        self.styled("1", text)
    }

    /// Styles a query of the model.
    pub fn search(self, text: impl Display) -> String {
        self.styled("36", text)
    }

    /// Styles an answer of the model.
    pub fn answer(self, text: impl Display) -> String {
        self.styled("1;32", text)
    }

    /// Styles an error or a warning.
    pub fn warning(self, text: impl Display) -> String {
        self.styled("33", text)
    }
}
