//! Question files, and the plan by which training asks their questions.

use std::path::PathBuf;

use anyhow::Context as _;
use shared::contract::dataset::{QaRecord, read_qa_records};

use crate::config::{Config, TemplateChoice};
use crate::data::{Example, PromptStyle, PromptTemplate, examples};
use crate::run::training::questions::QuestionPlan;
use crate::token::Tokenizer;

/// The question that is rendered to try a template.
const SAMPLE_QUESTION: &str = "Who wrote Hamlet?";

/// A file of questions, the choice among them, and their prompts.
#[derive(Clone, Debug)]
pub(crate) struct QuestionFile {
    path: PathBuf,
    /// Questions asked, evenly spread over the file; 0 asks all.
    limit: usize,
    /// Limit of a question's hops; 0 asks all questions.
    max_hops: usize,
    prompts: PromptSettings,
}

/// The rules by which a question becomes a prompt.
#[derive(Clone, Debug)]
pub(crate) struct PromptSettings {
    template: TemplateChoice,
    chat: bool,
    pub(crate) max_prompt_tokens: usize,
}

/// Returns how `config` makes prompts.
pub(crate) fn prompts(config: &Config) -> PromptSettings {
    PromptSettings {
        template: config.data.template.clone(),
        chat: config.data.chat,
        max_prompt_tokens: config.rollout.max_prompt_tokens,
    }
}

/// Returns the questions that `config` trains on.
pub(crate) fn training_questions(config: &Config) -> QuestionFile {
    QuestionFile {
        path: config.data.train.clone(),
        limit: config.data.max_train_questions,
        max_hops: config.data.max_hops,
        prompts: prompts(config),
    }
}

/// Returns the questions that `config` evaluates on.
pub(crate) fn held_out_questions(config: &Config) -> QuestionFile {
    QuestionFile {
        path: config.data.test.clone(),
        limit: config.eval.questions,
        ..training_questions(config)
    }
}

/// Returns which questions each training step of `config` asks.
pub(crate) fn question_plan(config: &Config) -> QuestionPlan {
    let algorithm = &config.algorithm;
    QuestionPlan {
        seed: config.seed,
        per_step: config.training.prompts_per_step,
        group_size: config.training.group_size,
        carried_groups: config.rollout.carried_groups,
        rounds: if algorithm.dynamic_sampling { algorithm.sampling_rounds } else { 1 },
        max_failed_search_fraction: config.training.max_failed_search_fraction,
    }
}

impl PromptSettings {
    /// Returns the template for the model with this tokenizer. A base model has no chat template and gets plain
    /// text.
    ///
    /// # Errors
    /// A template without one `{question}`; a chat template that rejects the conversation or loses the question.
    pub(crate) fn template(&self, tokenizer: &Tokenizer) -> anyhow::Result<PromptTemplate> {
        let style = if self.chat && tokenizer.has_chat_template()? {
            PromptStyle::Chat
        } else {
            PromptStyle::Plain
        };
        let template = PromptTemplate::new(self.template.as_str(), style)?;
        // A template fails here rather than at some question later.
        let (text, _) = template
            .render(SAMPLE_QUESTION, tokenizer)
            .context("the chat template fails for a question; data.chat = false does without it")?;
        anyhow::ensure!(
            text.contains(SAMPLE_QUESTION),
            "the chat template leaves the question out: of {SAMPLE_QUESTION:?} it makes {text:?}; data.chat = false \
             does without it"
        );
        Ok(template)
    }
}

impl QuestionFile {
    /// Reads the records that are asked, in the order of the file. With a limit they are spread evenly over the
    /// file, which may be sorted by kind.
    ///
    /// # Errors
    /// A file that cannot be read, or has no question to ask.
    pub(crate) fn records(&self) -> anyhow::Result<Vec<QaRecord>> {
        let Self { path, limit, max_hops, .. } = self;
        let mut records = read_qa_records(path)?;
        if *max_hops > 0 {
            let within = |hops: &serde_json::Value| {
                hops.as_u64().is_none_or(|hops| hops <= *max_hops as u64)
            };
            records.retain(|record| record.extra.get("hops").is_none_or(within));
        }
        if *limit > 0 && *limit < records.len() {
            let count = records.len();
            let mut position = 0;
            records.retain(|_| {
                let is_asked = (position + 1) * limit / count > position * limit / count;
                position += 1;
                is_asked
            });
        }
        anyhow::ensure!(!records.is_empty(), "{} has no questions to ask", path.display());
        Ok(records)
    }

    /// Reads the questions and makes their prompts.
    ///
    /// # Errors
    /// Those of [`Self::records`], a template without one `{question}`, and a prompt over its limit or so long that a
    /// context of `context_tokens` has no space for an answer.
    pub(crate) fn examples(
        &self,
        tokenizer: &Tokenizer,
        context_tokens: usize,
    ) -> anyhow::Result<Vec<Example>> {
        let records = self.records()?;
        let template = self.prompts.template(tokenizer)?;
        let examples = examples(&records, &template, tokenizer, self.prompts.max_prompt_tokens)?;
        if let Some(example) =
            examples.iter().find(|example| example.prompt_ids.len() >= context_tokens)
        {
            anyhow::bail!(
                "the prompt of record {:?} has {} tokens, which leaves no space for an answer in a context of \
                 {context_tokens} (the model's max_position_embeddings, or rollout.max_context_tokens)",
                example.id,
                example.prompt_ids.len()
            );
        }
        Ok(examples)
    }
}
