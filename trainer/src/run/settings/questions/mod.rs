//! Question files, and the plan by which training asks their questions.

mod files;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use anyhow::Context as _;
use shared::contract::client::listed;
use shared::contract::dataset::read_qa_records;
use tracing::warn;

pub(crate) use self::files::QuestionFiles;
use self::files::Selected;
use crate::config::{Config, ConfigError, Problem, PromptSource, TemplateChoice};
use crate::data::{Example, Overlap, PromptMaker, PromptStyle, PromptTemplate};
use crate::run::curriculum::CurriculumSettings;
use crate::run::mixture::{Mixture, Source};
use crate::run::training::questions::QuestionPlan;
use crate::token::Tokenizer;

/// The question that is rendered to try a template.
const SAMPLE_QUESTION: &str = "Who wrote Hamlet?";

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
pub(crate) fn training_questions(config: &Config) -> QuestionFiles {
    QuestionFiles {
        paths: training_files(config),
        limit: config.data.max_train_questions,
        max_hops: config.data.max_hops,
        left_out: config.data.leave_out_test.then(|| config.data.test.clone()),
        sources: listed(&config.data.sources).map(str::to_owned).collect(),
        weights: config.data.weights.clone(),
        skips_long_prompts: config.data.skip_long_prompts,
        prompts: prompts(config),
    }
}

/// Returns the questions that `config` evaluates on.
pub(crate) fn held_out_questions(config: &Config) -> QuestionFiles {
    QuestionFiles {
        paths: vec![config.data.test.clone()],
        limit: config.eval.questions,
        left_out: None,
        sources: Vec::new(),
        weights: None,
        skips_long_prompts: false,
        ..training_questions(config)
    }
}

/// Returns the files with the training questions: one that exists under the whole text, commas included, or those
/// between the commas.
pub(crate) fn training_files(config: &Config) -> Vec<PathBuf> {
    let path = &config.data.train;
    match path.to_str() {
        Some(text) if text.contains(',') && !path.exists() => {
            listed(text).map(PathBuf::from).collect()
        }
        _ => vec![path.clone()],
    }
}

/// Returns the files that decide which questions training asks, with their names in the manifest.
pub(crate) fn inputs(config: &Config) -> Vec<(String, PathBuf)> {
    let files = training_files(config);
    let is_alone = files.len() == 1;
    let named = files.into_iter().enumerate().map(|(index, path)| {
        let number = index + 1;
        let name = "training questions".to_owned();
        (if is_alone { name } else { format!("{name}, file {number}") }, path)
    });
    let mut inputs: Vec<_> = named.collect();
    inputs.push(("held-out questions".to_owned(), config.data.test.clone()));
    inputs.extend(config.data.weights.clone().map(|path| ("question weights".to_owned(), path)));
    inputs
}

/// Returns the curriculum of `config`, if it has one.
pub(crate) fn curriculum(config: &Config) -> Option<CurriculumSettings> {
    let data = &config.data;
    data.curriculum.then_some(CurriculumSettings {
        seed: config.seed,
        hard: data.curriculum_hard,
        easy: data.curriculum_easy,
        kept: data.curriculum_kept,
    })
}

/// Reads the training questions of `config`, and the order in which they are asked.
///
/// # Errors
/// Those of [`QuestionFiles::examples`], and weights in `data.mix` that do not fit the files.
pub(crate) fn training_order(
    config: &Config,
    tokenizer: &Tokenizer,
    context_tokens: usize,
) -> anyhow::Result<(Vec<Example>, Mixture)> {
    let files = training_questions(config);
    let mix = mix(&config.data.mix, files.paths.len())?;
    let Selected { files: records, weights } = files.select()?;
    let (mut examples, mut sources) = (Vec::new(), Vec::new());
    for (index, records) in records.iter().enumerate() {
        let made = files.make(records, tokenizer, context_tokens)?;
        let question_weights: Vec<f64> = weights.as_ref().map_or_else(Vec::new, |weights| {
            made.iter().map(|example| weights.of(&example.id)).collect()
        });
        match (&mix, sources.last_mut()) {
            (Some(mix), _) => {
                let path = files.paths[index].display();
                anyhow::ensure!(!made.is_empty(), "{path} has no questions to ask");
                let (questions, weight) = (made.len(), mix[index]);
                sources.push(Source { questions, weight, question_weights });
            }
            (None, Some(whole)) => {
                whole.questions += made.len();
                whole.question_weights.extend(question_weights);
            }
            (None, None) => {
                sources.push(Source { questions: made.len(), weight: 1.0, question_weights });
            }
        }
        examples.extend(made);
    }
    files.check_any(examples.len())?;
    Ok((examples, Mixture::new(config.seed, sources)))
}

/// Returns the weights of `files` files; none if the text is empty.
fn mix(text: &str, files: usize) -> Result<Option<Vec<f64>>, ConfigError> {
    let refuse = |reason: String| {
        let problem = Problem::of_value("data.mix", format!("{text:?}"), reason);
        Err(ConfigError::Invalid(vec![problem]))
    };
    let parts: Vec<&str> = listed(text).collect();
    if parts.is_empty() {
        return Ok(None);
    }
    if parts.len() != files {
        return refuse(format!("has {} weights for the {files} files of data.train", parts.len()));
    }
    let weights = parts.iter().map(|part| part.parse::<f64>().ok());
    let weights = weights.map(|weight| weight.filter(|weight| *weight > 0.0 && weight.is_finite()));
    match weights.collect() {
        Some(weights) => Ok(Some(weights)),
        None => refuse("accepted are numbers above 0 with commas between them".to_owned()),
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
