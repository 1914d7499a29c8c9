//! Jinja as Python's jinja2 3.1.6 renders it, with the settings that `transformers` has for chat templates: the
//! immutable sandbox, `trim_blocks`, `lstrip_blocks`, loop controls, and `generation` blocks.
//!
//! Owns the language: values that compare, print and fail as Python's do. It knows neither models nor messages. What
//! jinja2 renders and this module cannot render equally is refused by name ([`JinjaError::Unsupported`]), never
//! rendered differently. What jinja2 refuses is refused here too. Nothing reads files, the clock or random numbers.

mod error;
mod escapes;
mod lexer;
mod syntax;
mod parse;
mod value;
mod characters;
mod number_format;
mod percent;
mod brace_format;
mod arguments;
mod json;
mod methods;
mod tests_of_values;
mod filters;
mod eval;
#[cfg(test)]
mod tests;

pub use self::error::JinjaError;
pub use self::eval::Clock;
pub use self::value::{Dict, Value};

use self::error::Result;
use self::syntax::Node;

/// A compiled template.
#[derive(Debug)]
pub struct Template {
    nodes: Vec<Node>,
}

impl Template {
    /// Compiles a template.
    pub fn new(source: &str) -> Result<Self> {
        Ok(Self { nodes: parse::parse(source)? })
    }

    /// Renders the template with the names in `context`. `clock` answers `strftime_now`.
    pub fn render(&self, context: Dict, clock: Clock<'_>) -> Result<String> {
        eval::render(&self.nodes, context, clock)
    }
}
