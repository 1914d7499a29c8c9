//! Question files, and the plan by which training asks their questions.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use shared::contract::dataset::{Ids, QaOptions, QaRecord, read_qa_file, read_qa_records};
use tracing::{info, warn};

use crate::config::{Config, PromptSource, TemplateChoice};
use crate::data::{Example, Overlap, PromptMaker, PromptStyle, PromptTemplate, examples, question_words};
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
    /// A file whose questions are left out.
    left_out: Option<PathBuf>,
    prompts: PromptSettings,
}

/// The rules by which a question becomes a prompt.
#[derive(Clone, Debug)]
pub(crate) struct PromptSettings {
    source: PromptSource,
    template: TemplateChoice,
    chat: bool,
    pub(crate) max_prompt_tokens: usize,
}

/// Returns how `config` makes prompts.
pub(crate) fn prompts(config: &Config) -> PromptSettings {
    PromptSettings {
        source: config.data.prompt,
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
        left_out: config.data.leave_out_test.then(|| config.data.test.clone()),
        prompts: prompts(config),
    }
}

/// Returns the questions that `config` evaluates on.
pub(crate) fn held_out_questions(config: &Config) -> QuestionFile {
    QuestionFile {
        path: config.data.test.clone(),
        limit: config.eval.questions,
        left_out: None,
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

    /// Returns how records become prompts for the model with this tokenizer.
    ///
    /// # Errors
    /// Those of [`Self::template`], which a prompt of the file does not need.
    fn maker(&self, tokenizer: &Tokenizer) -> anyhow::Result<PromptMaker> {
        Ok(match self.source {
            PromptSource::Template => PromptMaker::Template(self.template(tokenizer)?),
            PromptSource::File => PromptMaker::Carried { chat: self.chat },
        })
    }
}

/// Warns of held-out questions of `config` that it trains on too.
///
/// # Errors
/// A file of held-out questions that cannot be read.
pub(crate) fn warn_of_overlap(config: &Config, training: &[Example]) -> anyhow::Result<()> {
    let path = &config.data.test;
    if path.as_os_str().is_empty() || config.data.leave_out_test {
        return Ok(());
    }
    let held_out = read_qa_records(path)?;
    let training = training.iter().map(|example| (example.id.as_str(), example.question.as_str()));
    let held_out = held_out.iter().map(|record| (record.id.as_str(), record.question.as_str()));
    if let Some(warning) = Overlap::of(training, held_out).warning() {
        warn!("{}: {warning}", path.display());
    }
    Ok(())
}

impl QuestionFile {
    /// Reads the records that are asked, in the order of the file. With a limit they are spread evenly over the
    /// file, which may be sorted by kind.
    ///
    /// # Errors
    /// A file that cannot be read, or has no question to ask.
    pub(crate) fn records(&self) -> anyhow::Result<Vec<QaRecord>> {
        let Self { path, limit, max_hops, left_out, prompts } = self;
        let mut ids = Ids::default();
        let options =
            QaOptions { prompts: prompts.source == PromptSource::File, ..QaOptions::default() };
        let mut records = read_qa_file(path, options, &mut ids)?;
        if let Some(warning) = ids.warning() {
            warn!("{}: {warning}", path.display());
        }
        if let Some(left_out) = left_out {
            leave_out(&mut records, left_out)?;
        }
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
        let prompts = self.prompts.maker(tokenizer)?;
        let examples = examples(&records, &prompts, tokenizer, self.prompts.max_prompt_tokens)?;
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

/// Removes the records whose questions are in the file `path` too.
fn leave_out(records: &mut Vec<QaRecord>, path: &Path) -> anyhow::Result<()> {
    let held_out = read_qa_records(path)?;
    let held_out: HashSet<String> =
        held_out.iter().map(|record| question_words(&record.question)).collect();
    let count = records.len();
    records.retain(|record| !held_out.contains(&question_words(&record.question)));
    info!(left_out = count - records.len(), of = count, "held-out questions left out of training");
    Ok(())
}
