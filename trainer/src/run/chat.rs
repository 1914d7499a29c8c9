//! `trainer chat`: ask the model, watch it think, search and answer.

use std::cell::RefCell;
use std::io::Write;

use anyhow::Context as _;

use super::model::LoadedModel;
use super::question_order::episode_jobs;
use super::settings;
use crate::chat::{ChatObserver, Conversation, Input, Paint, StreamingEngine, read_question};
use crate::config::Config;
use crate::data::Example;
use crate::engine::BuiltinEngine;
use crate::rollout::RolloutSettings;
use crate::rollout::scheduler::roll_out;
use crate::run::settings::questions::PromptSettings;
use crate::search::record::RecordedSearcher;
use crate::stop::{self, StopFlag};

/// The options of `trainer chat` beyond the configuration.
#[derive(Clone, Debug)]
pub struct ChatOptions {
    /// The only question to ask; without it questions are read from the terminal.
    pub question: Option<String>,
}

/// A model that answers in the terminal.
struct Chat {
    model: LoadedModel,
    engine: BuiltinEngine,
    searcher: RecordedSearcher,
    prompts: PromptSettings,
    episodes: RolloutSettings,
    seed: u64,
}

/// Asks `options.question`, or every question read from the terminal. The first SIGTERM or SIGINT ends the process:
/// there is nothing to save.
///
/// # Errors
/// Anything wrong with the model or the terminal, named.
pub fn chat(config: &Config, options: &ChatOptions, out: &mut dyn Write) -> anyhow::Result<()> {
    stop::end_at_signal().context("cannot listen for signals")?;
    let model = LoadedModel::open(&settings::model::model(config), &config.model.path)?;
    let sampling = settings::rollout::eval_sampling(config);
    let mut chat = Chat {
        engine: model.engine(&settings::rollout::engine(config), 1)?,
        model,
        searcher: settings::rollout::searcher(config).open()?,
        prompts: settings::questions::prompts(config),
        episodes: settings::rollout::episodes(config, sampling, 1, &StopFlag::never()),
        seed: config.seed,
    };
    let conversation = RefCell::new(Conversation::new(out, Paint::for_stdout()));
    if let Some(question) = &options.question {
        return chat.answer(&conversation, question);
    }
    let mut input = std::io::stdin().lock();
    loop {
        let read = read_question(&mut input, conversation.borrow_mut().out(), "question> ")?;
        match read {
            Input::Question(question) => chat.answer(&conversation, &question)?,
            Input::Refused(reason) => writeln!(conversation.borrow_mut().out(), "{reason}")?,
            Input::End => return Ok(()),
        }
    }
}

impl Chat {
    /// Plays one episode and shows it while it happens.
    fn answer<W: Write>(
        &mut self,
        conversation: &RefCell<Conversation<W>>,
        question: &str,
    ) -> anyhow::Result<()> {
        let tokenizer = &self.model.tokenizer;
        let template = self.prompts.template(tokenizer)?;
        let (prompt_text, prompt_ids) = template.render(question, tokenizer)?;
        let limit = self.prompts.max_prompt_tokens;
        anyhow::ensure!(
            prompt_ids.len() <= limit,
            "the question makes a prompt of {} tokens; rollout.max_prompt_tokens = {limit}",
            prompt_ids.len()
        );
        let example = Example {
            id: "chat".to_owned(),
            question: question.to_owned(),
            golden_answers: Vec::new(),
            prompt_text,
            prompt_ids,
        };
        let jobs = episode_jobs(0, &[&example], 1, self.seed, 0);
        let mut streaming = StreamingEngine::new(&mut self.engine, conversation);
        let mut observer = ChatObserver(conversation);
        let (searcher, episodes) = (&mut self.searcher, &self.episodes);
        roll_out(&mut streaming, searcher, tokenizer, jobs, episodes, &mut observer)?;
        match conversation.borrow_mut().take_error() {
            Some(error) => Err(error).context("cannot write to the terminal"),
            None => Ok(()),
        }
    }
}
