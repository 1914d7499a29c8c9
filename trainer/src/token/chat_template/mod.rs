//! Chat templates of model folders, rendered as the Python library renders them: what it adds to
//! Jinja is here, and what differs between its Jinja and ours.

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
    /// What the message says.
    pub content: String,
}

impl ChatMessage {
    /// A message of `role`.
    pub fn new(role: &str, content: &str) -> Self {
        Self { role: role.to_owned(), content: content.to_owned() }
    }
}

const TEMPLATE: &str = "chat";

/// A compiled chat template with the tokens that it may name.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Text of each special token by its name, such as `bos_token`.
    tokens: BTreeMap<String, String>,
}

impl ChatTemplate {
    /// Compiles Jinja `source`. `tokens` are the special tokens that the model has, by their names;
    /// `today` is what the template takes for the day on which it is rendered.
    ///
    /// # Errors
    /// A template that is no Jinja.
    pub fn new(
        source: &str,
        tokens: BTreeMap<String, String>,
        today: ChatDate,
    ) -> Result<Self, TokenError> {
        let mut environment = Environment::new();
        // The settings under which these templates are written.
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(write_as_python);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", move |format: String| {
            let refused = |error| Error::new(ErrorKind::InvalidOperation, error);
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

    /// The conversation as text, ending where the assistant's turn begins.
    ///
    /// # Errors
    /// A conversation that the template refuses, or a template that cannot be rendered.
    pub fn render(&self, messages: &[ChatMessage]) -> Result<String, TokenError> {
        let given = minijinja::context! {
            messages => messages,
            add_generation_prompt => true,
            // Given and empty, not undefined: templates ask whether they are none.
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

/// `None`, `True` and `False`, which Jinja in Rust writes in lower case.
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
