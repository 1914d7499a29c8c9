//! Chat templates of model folders, rendered as by the Python library: the names that it gives to a template.

mod date;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::date::{ChatDate, NotADate};
use super::TokenError;
use crate::jinja::{Dict, Template, Value};

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

/// A compiled chat template with the tokens that it may name.
#[derive(Debug)]
pub struct ChatTemplate {
    template: Template,
    /// The text of each special token by its name, such as `bos_token`.
    tokens: BTreeMap<String, String>,
    today: ChatDate,
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
        Ok(Self { template: Template::new(source)?, tokens, today })
    }

    /// Renders the conversation up to the beginning of the assistant's turn.
    ///
    /// # Errors
    /// A conversation that the template rejects, or a template that cannot be rendered.
    pub fn render(&self, messages: &[ChatMessage]) -> Result<String, TokenError> {
        let message = |message: &ChatMessage| {
            let pairs = [("role", &message.role), ("content", &message.content)];
            let pairs = pairs.map(|(name, text)| (name.to_owned(), Value::from(text.as_str())));
            Value::from(Dict::from_texts(pairs))
        };
        let tokens =
            self.tokens.iter().map(|(name, text)| (name.clone(), Value::from(text.as_str())));
        let given = [
            ("messages", Value::from(messages.iter().map(message).collect::<Vec<_>>())),
            ("add_generation_prompt", Value::from(true)),
            // Set to none, not undefined: templates compare them with none.
            ("tools", Value::None),
            ("documents", Value::None),
        ];
        let given = given.map(|(name, value)| (name.to_owned(), value));
        let clock = |format: &str| self.today.format(format).map_err(|error| error.to_string());
        Ok(self.template.render(Dict::from_texts(given.into_iter().chain(tokens)), &clock)?)
    }
}
