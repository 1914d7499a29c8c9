//! Chat templates of model folders, rendered as by the Python library. This module holds the library's
//! additions to Jinja, and the differences between its Jinja and the one used here.

mod date;
mod generation_tags;
#[cfg(test)]
mod tests;
mod to_json;

use std::collections::BTreeMap;

use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind, Output, State, escape_formatter};
use serde::{Deserialize, Serialize};

pub use self::date::{ChatDate, NotADate};
use super::TokenError;

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The text of the message.
    pub content: String,
}

impl ChatMessage {
    /// Creates a message of `role`.
    pub fn new(role: &str, content: &str) -> Self {
        Self { role: role.to_owned(), content: content.to_owned() }
    }
}

const TEMPLATE: &str = "chat";

/// A compiled chat template with the tokens that it may name.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// The text of each special token by its name, such as `bos_token`.
    tokens: BTreeMap<String, String>,
}

impl ChatTemplate {
    /// Compiles the Jinja template `source`. `tokens` are the model's special tokens by name; `today` is
    /// the current day for the template.
    ///
    /// # Errors
    /// A template that is not valid Jinja.
    pub fn new(
        source: &str,
        tokens: BTreeMap<String, String>,
        today: ChatDate,
    ) -> Result<Self, TokenError> {
        let mut environment = Environment::new();
        // These templates are written for the following settings.
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(write_as_python);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", move |format: String| {
            let refused = |error: date::UnknownDirective| {
                Error::new(ErrorKind::InvalidOperation, error.to_string())
            };
            today.format(&format).map_err(refused)
        });
        environment.add_filter("tojson", |value: Value, options: Kwargs| {
            to_json::to_json(&value, &options)
        });
        environment
            .add_template_owned(TEMPLATE, generation_tags::replace(source))
            .map_err(|error| TokenError::ChatTemplate(error.to_string()))?;
        Ok(Self { environment, tokens })
    }

    /// Renders the conversation up to the beginning of the assistant's turn.
    ///
    /// # Errors
    /// A conversation that the template rejects, or a template that cannot be rendered.
    pub fn render(&self, messages: &[ChatMessage]) -> Result<String, TokenError> {
        let given = minijinja::context! {
            messages => messages,
            add_generation_prompt => true,
            // Set to none, not undefined: templates compare them with none.
            tools => Value::from(()),
            documents => Value::from(()),
        };
        let tokens = Value::from_serialize(&self.tokens);
        self.environment
            .get_template(TEMPLATE)
            .and_then(|template| template.render(minijinja::context! { ..given, ..tokens }))
            .map_err(|error| TokenError::ChatTemplate(error.to_string()))
    }
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// Writes `None`, `True` and `False` as Python does; Rust's Jinja writes them in lower case.
fn write_as_python(
    out: &mut Output<'_>,
    state: &State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    let python = if value.is_none() {
        Some(Value::from("None"))
    } else if value.kind() == minijinja::value::ValueKind::Bool {
        Some(Value::from(if value.is_true() { "True" } else { "False" }))
    } else {
        None
    };
    escape_formatter(out, state, python.as_ref().unwrap_or(value))
}
