//! Examples from dataset records, with their prompts as token ids.
//!
//! Owns the prompt templates, the prompts that rows carry, and the conversion of question files. Decides nothing about
//! batches or their order.

mod carried;
pub mod conversion;
pub mod description;
mod overlap;
mod template;
mod weights;

pub use self::overlap::{Overlap, question_words};
pub use self::template::{PromptStyle, PromptTemplate, TEMPLATE_NAMES, TemplateError};

pub use self::weights::QuestionWeights;

use shared::contract::dataset::QaRecord;

use crate::token::{TokenError, Tokenizer};

/// A question that is ready for a rollout.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Id of the dataset record.
    pub id: String,
    /// The question as written in the record.
    pub question: String,
    /// Accepted answers, at least one.
    pub golden_answers: Vec<String>,
    /// The question in its template.
    pub prompt_text: String,
    /// Token ids of `prompt_text`.
    pub prompt_ids: Vec<u32>,
}

/// The reason why a record cannot become an example.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The prompt could not be rendered or encoded.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Messages that only a chat template can join.
    #[error(
        "record {id:?} carries a prompt of {messages} messages, which only a chat template joins, and {}: use \
         data.prompt = \"template\"",
        if *is_off { "data.chat is false" } else { "the model has none" }
    )]
    NeedsChatTemplate { id: String, messages: usize, is_off: bool },
    /// The prompt exceeds its limit of tokens.
    #[error(
        "the prompt of record {id:?} has {tokens} tokens, the limit is {limit}: shorten the \
         question or the template, or raise the limit"
    )]
    PromptTooLong { id: String, tokens: usize, limit: usize },
}

/// The way from a record to its prompt.
#[derive(Clone, Debug)]
pub enum PromptMaker {
    /// Puts the question into a template.
    Template(PromptTemplate),
    /// Takes the prompt that the row carries. With `chat`, messages go through the model's chat template if it has
    /// one.
    Carried { chat: bool },
}

impl PromptMaker {
    fn prompt(
        &self,
        record: &QaRecord,
        tokenizer: &Tokenizer,
    ) -> Result<(String, Vec<u32>), DataError> {
        match self {
            Self::Template(template) => Ok(template.render(&record.question, tokenizer)?),
            Self::Carried { chat } => carried::prompt(record, *chat, tokenizer),
        }
    }
}

/// Makes the prompt of a record. Refuses a prompt that is too long; cutting it would lose the question or the
/// instruction.
pub fn example(
    record: &QaRecord,
    prompts: &PromptMaker,
    tokenizer: &Tokenizer,
    max_prompt_tokens: usize,
) -> Result<Example, DataError> {
    let (prompt_text, prompt_ids) = prompts.prompt(record, tokenizer)?;
    if prompt_ids.len() > max_prompt_tokens {
        return Err(DataError::PromptTooLong {
            id: record.id.clone(),
            tokens: prompt_ids.len(),
            limit: max_prompt_tokens,
        });
    }
    Ok(Example {
        id: record.id.clone(),
        question: record.question.clone(),
        golden_answers: record.golden_answers.clone(),
        prompt_text,
        prompt_ids,
    })
}
