//! Chat templates of model folders, rendered as the Python library renders them.

use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind};
use serde::{Deserialize, Serialize};

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
    start_text: String,
    end_text: String,
}

impl ChatTemplate {
    /// Compiles Jinja `source`; `start_text` and `end_text` are its `bos_token` and `eos_token`.
    pub fn new(source: String, start_text: String, end_text: String) -> Result<Self, TokenError> {
        let mut environment = Environment::new();
        // The settings under which these templates are written.
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_filter("tojson", to_json);
        // `strftime_now` stays undefined on purpose: templates that would write today's date fall
        // back to a fixed one, so that a prompt does not change from day to day.
        environment
            .add_template_owned(TEMPLATE, source)
            .map_err(|error| TokenError::ChatTemplate(error.to_string()))?;
        Ok(Self { environment, start_text, end_text })
    }

    /// The conversation as text, ending where the assistant's turn begins.
    pub fn render(&self, messages: &[ChatMessage]) -> Result<String, TokenError> {
        let context = minijinja::context! {
            messages => messages,
            add_generation_prompt => true,
            bos_token => self.start_text,
            eos_token => self.end_text,
        };
        self.environment
            .get_template(TEMPLATE)
            .and_then(|template| template.render(context))
            .map_err(|error| TokenError::ChatTemplate(error.to_string()))
    }
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// JSON as Python's `json.dumps` writes it: a space after `,` and `:`, other characters as they are.
fn to_json(value: &Value) -> Result<Value, Error> {
    let failed =
        |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, SpacedFormatter);
    value.serialize(&mut serializer).map_err(failed)?;
    let text = String::from_utf8(bytes)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    Ok(Value::from_safe_string(text))
}

struct SpacedFormatter;

impl serde_json::ser::Formatter for SpacedFormatter {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
    ) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}
