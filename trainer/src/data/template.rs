//! Prompt templates, the text around a question.

use serde::{Deserialize, Serialize};

use crate::token::{ChatMessage, TokenError, Tokenizer};

/// Marks the position of the question.
const PLACEHOLDER: &str = "{question}";

/// Explains the reference's whole protocol: thoughts, searches, passages, answer.
const SEARCH_R1: &str = "\
Work out the answer to the question at the end. Whenever something new is known, first think about \
it between <think> and </think>. If a fact is missing, ask the search engine by writing <search> \
query </search>; what it finds is then shown between <information> and </information>. There is no \
need to save searches: ask again as often as it helps. As soon as nothing is missing, write the \
answer alone, without explanations, between <answer> and </answer>, like this: <answer> Beijing \
</answer>. Question: {question}\n";

/// Names the same protocol in few tokens, for models that were trained on it in a warm start.
const SHORT: &str = "\
Think in <think></think>, look facts up with <search>query</search>, read <information>\
</information>, then give <answer></answer>.\nQuestion: {question}\n";

/// Names of the built-in templates.
pub const TEMPLATE_NAMES: [&str; 2] = ["search-r1", "short"];

/// The frame of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptStyle {
    /// The text alone, for base models.
    Plain,
    /// A user message in the model's chat template, for instruction-tuned models.
    Chat,
}

/// A prompt with a gap for the question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptTemplate {
    before: String,
    after: String,
    style: PromptStyle,
}

/// A template that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "prompt template {text:?}: {reason}; accepted: one of {}, or a text with {{question}} in it once",
    TEMPLATE_NAMES.join(", ")
)]
pub struct TemplateError {
    /// The template as given.
    pub text: String,
    /// The fault.
    pub reason: &'static str,
}

impl PromptTemplate {
    /// Creates a template from a name in [`TEMPLATE_NAMES`] or from a text that contains `{question}` once.
    ///
    /// # Errors
    /// Fails if the text contains `{question}` never or several times.
    pub fn new(template: &str, style: PromptStyle) -> Result<Self, TemplateError> {
        let text = match template {
            "search-r1" => SEARCH_R1,
            "short" => SHORT,
            written => written,
        };
        let refuse = |reason| TemplateError { text: template.to_owned(), reason };
        let (before, after) =
            text.split_once(PLACEHOLDER).ok_or_else(|| refuse("it does not contain {question}"))?;
        if after.contains(PLACEHOLDER) {
            return Err(refuse("it contains {question} several times"));
        }
        let (before, after) = (before.to_owned(), after.to_owned());
        Ok(Self { before, after, style })
    }

    /// Returns the prompt's text and token ids. In the plain style the name of a special token in the question is
    /// ordinary text. In the chat style it is read as that token, because the template's own markers are written
    /// the same way.
    pub fn render(
        &self,
        question: &str,
        tokenizer: &Tokenizer,
    ) -> Result<(String, Vec<u32>), TokenError> {
        let filled = format!("{}{}{}", self.before, question.trim(), self.after);
        match self.style {
            PromptStyle::Plain => {
                let ids = tokenizer.encode(&filled)?;
                Ok((filled, ids))
            }
            PromptStyle::Chat => {
                let text = tokenizer.render_chat(&[ChatMessage::new("user", &filled)])?;
                let ids = tokenizer.encode_template(&text)?;
                Ok((text, ids))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_fills_the_gap() {
        let tokenizer = Tokenizer::characters();
        let template = PromptTemplate::new("Q: {question}\nA:", PromptStyle::Plain).unwrap();
        let (text, ids) = template.render(" who? {question} ", &tokenizer).unwrap();
        assert_eq!(text, "Q: who? {question}\nA:");
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        for name in TEMPLATE_NAMES {
            let template = PromptTemplate::new(name, PromptStyle::Plain).unwrap();
            let (text, _) = template.render("who is king?", &tokenizer).unwrap();
            assert!(text.ends_with("Question: who is king?\n"), "{text}");
            for tag in ["<think>", "<search>", "<information>", "<answer>"] {
                assert!(text.contains(tag), "{name} does not name {tag}");
            }
        }
    }

    #[test]
    fn a_template_without_one_gap_for_the_question_is_refused() {
        for template in ["", "serch-r1", "no place", "{question} and {question}"] {
            let error = PromptTemplate::new(template, PromptStyle::Plain).unwrap_err().to_string();
            assert!(error.contains(&format!("{template:?}")), "{error}");
            assert!(error.contains("search-r1"), "{error}");
        }
    }

    #[test]
    fn the_chat_style_needs_a_chat_template() {
        let template = PromptTemplate::new("search-r1", PromptStyle::Chat).unwrap();
        let error = template.render("who?", &Tokenizer::characters()).unwrap_err();
        assert!(error.to_string().contains("plain"), "{error}");
    }
}
