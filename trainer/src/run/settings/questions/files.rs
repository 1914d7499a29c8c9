//! Files of questions, and the choice among their rows.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;

use serde_json::Value;
use shared::contract::dataset::{Ids, QaOptions, QaRecord, read_qa_file, read_qa_records};
use tracing::{info, warn};

use super::PromptSettings;
use crate::config::{ConfigError, Problem, PromptSource};
use crate::data::{DataError, Example, QuestionWeights, example, question_words};
use crate::token::Tokenizer;

/// Files of questions, the choice among them, and their prompts.
#[derive(Clone, Debug)]
pub(crate) struct QuestionFiles {
    pub(super) paths: Vec<PathBuf>,
    /// Questions asked, evenly spread over the files; 0 asks all.
    pub(super) limit: usize,
    /// Limit of a question's hops; 0 asks all questions.
    pub(super) max_hops: usize,
    /// A file whose questions are left out.
    pub(super) left_out: Option<PathBuf>,
    /// Accepted values of `data_source`; none accepts all.
    pub(super) sources: Vec<String>,
    /// A file with the weights of questions.
    pub(super) weights: Option<PathBuf>,
    /// Leaves out a question whose prompt is too long, in place of an error.
    pub(super) skips_long_prompts: bool,
    pub(super) prompts: PromptSettings,
}

/// The records of some files, by file.
pub(super) struct Selected {
    pub(super) files: Vec<Vec<QaRecord>>,
    pub(super) weights: Option<QuestionWeights>,
}

impl QuestionFiles {
    /// Reads the records that are asked, in the order of the files. With a limit they are spread evenly over the
    /// files, which may be sorted by kind.
    ///
    /// # Errors
    /// A file that cannot be read, or no question to ask.
    pub(crate) fn records(&self) -> anyhow::Result<Vec<QaRecord>> {
        Ok(self.select()?.files.into_iter().flatten().collect())
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
        let examples = self.make(&self.records()?, tokenizer, context_tokens)?;
        self.check_any(examples.len())?;
        Ok(examples)
    }

    /// Refuses files without a question to ask.
    pub(super) fn check_any(&self, questions: usize) -> anyhow::Result<()> {
        let paths: Vec<String> = self.paths.iter().map(|path| path.display().to_string()).collect();
        anyhow::ensure!(questions > 0, "{} has no questions to ask", paths.join(", "));
        Ok(())
    }

    /// Reads the files and leaves out the questions that are not asked.
    ///
    /// # Errors
    /// Those of [`Self::records`].
    pub(super) fn select(&self) -> anyhow::Result<Selected> {
        let mut ids = Ids::default();
        let options = QaOptions {
            prompts: self.prompts.source == PromptSource::File,
            names_files: self.paths.len() > 1,
        };
        let files = self.paths.iter().map(|path| read_qa_file(path, options, &mut ids));
        let mut files = files.collect::<Result<Vec<_>, _>>()?;
        if let Some(warning) = ids.warning() {
            warn!("{}: {warning}", self.paths[0].display());
        }
        self.filter_sources(&mut files)?;
        if self.max_hops > 0 {
            let within =
                |hops: &Value| hops.as_u64().is_none_or(|hops| hops <= self.max_hops as u64);
            retain(&mut files, |record| record.extra.get("hops").is_none_or(within));
        }
        if let Some(path) = &self.left_out {
            let held_out = read_qa_records(path)?;
            let held_out: HashSet<String> =
                held_out.iter().map(|record| question_words(&record.question)).collect();
            let is_new = |record: &QaRecord| !held_out.contains(&question_words(&record.question));
            let left_out = retain(&mut files, is_new);
            info!(left_out, "held-out questions left out of training");
        }
        let weights = self.weights.as_deref().map(QuestionWeights::read).transpose()?;
        if let (Some(weights), Some(path)) = (&weights, &self.weights) {
            let records = files.iter().flatten();
            let named = records.filter(|record| weights.names(&record.id)).count();
            let (path, count) = (path.display(), weights.count());
            anyhow::ensure!(named > 0, "{path} names none of the training questions by their ids");
            let left_out = retain(&mut files, |record| weights.of(&record.id) > 0.0);
            info!(weights = count, named, left_out, "questions weighted");
        }
        let count: usize = files.iter().map(Vec::len).sum();
        if self.limit > 0 && self.limit < count {
            let (limit, mut position) = (self.limit, 0);
            retain(&mut files, |_| {
                let is_asked = (position + 1) * limit / count > position * limit / count;
                position += 1;
                is_asked
            });
        }
        self.check_any(count)?;
        Ok(Selected { files, weights })
    }

    /// Keeps the records of the accepted sources.
    fn filter_sources(&self, files: &mut [Vec<QaRecord>]) -> anyhow::Result<()> {
        if self.sources.is_empty() {
            return Ok(());
        }
        let source = |record: &QaRecord| {
            record.extra.get("data_source").and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let known: BTreeSet<String> = files.iter().flatten().map(source).collect();
        if let Some(unknown) = self.sources.iter().find(|source| !known.contains(*source)) {
            let known: Vec<String> = known
                .iter()
                .filter(|known| !known.is_empty())
                .map(|known| format!("{known:?}"))
                .collect();
            let reason = match &known[..] {
                [] => format!("names {unknown:?}, and no training question has a data_source"),
                known => {
                    format!("names {unknown:?}; the training questions have {}", known.join(", "))
                }
            };
            let value = format!("{:?}", self.sources.join(", "));
            let problem = Problem::of_value("data.sources", value, reason);
            return Err(ConfigError::Invalid(vec![problem]).into());
        }
        retain(files, |record| self.sources.contains(&source(record)));
        Ok(())
    }

    /// Makes the prompts of records.
    ///
    /// # Errors
    /// Those of [`Self::examples`].
    pub(crate) fn make(
        &self,
        records: &[QaRecord],
        tokenizer: &Tokenizer,
        context_tokens: usize,
    ) -> anyhow::Result<Vec<Example>> {
        let prompts = self.prompts.maker(tokenizer)?;
        let (mut examples, mut long) = (Vec::with_capacity(records.len()), 0);
        for record in records {
            match example(record, &prompts, tokenizer, self.prompts.max_prompt_tokens) {
                Err(DataError::PromptTooLong { .. }) if self.skips_long_prompts => long += 1,
                made => examples.push(made?),
            }
        }
        if long > 0 {
            warn!(left_out = long, of = records.len(), "questions with too long a prompt left out");
        }
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

/// Keeps some records and returns the number of the others.
fn retain(files: &mut [Vec<QaRecord>], mut is_kept: impl FnMut(&QaRecord) -> bool) -> usize {
    let count = |files: &[Vec<QaRecord>]| files.iter().map(Vec::len).sum::<usize>();
    let before = count(files);
    for records in &mut *files {
        records.retain(&mut is_kept);
    }
    before - count(files)
}
