//! `trainer chat`: ask the model, watch it think, search and answer.

use std::cell::RefCell;
use std::io::Write;

use anyhow::Context as _;

use super::ChatOptions;
use super::loaded_model::{
    LoadedModel, episode_jobs, http_searcher, prompt_template, rollout_config,
};
use crate::chat::{ChatObserver, Conversation, Input, Paint, StreamingEngine, read_question};
use crate::config::Config;
use crate::data::Example;
use crate::engine::{BuiltinEngine, Sampling};
use crate::rollout::scheduler::roll_out;
use crate::search::http::HttpSearcher;
use crate::stop::{self, StopFlag};

/// Asks `options.question`, or every question read from the terminal. The first SIGTERM or SIGINT
/// ends the process: there is nothing to be saved.
///
/// # Errors
/// Anything wrong with the model or the terminal, named.
pub fn chat(config: &Config, options: &ChatOptions, out: &mut dyn Write) -> anyhow::Result<()> {
    stop::end_at_signal().context("cannot listen for signals")?;
    let loaded = LoadedModel::open(config, &config.model.path)?;
    let mut engine = loaded.engine(config, 1)?;
    let mut searcher = http_searcher(config)?;
    let conversation = RefCell::new(Conversation::new(out, Paint::for_stdout()));
    let mut ask = |question: &str| {
        let parts = (&mut engine, &mut searcher);
        answer(config, &loaded, parts, &conversation, question)
    };
    if let Some(question) = &options.question {
        return ask(question);
    }
    let mut input = std::io::stdin().lock();
    loop {
        let read = read_question(&mut input, conversation.borrow_mut().out(), "question> ")?;
        match read {
            Input::Question(question) => ask(&question)?,
            Input::Refused(reason) => writeln!(conversation.borrow_mut().out(), "{reason}")?,
            Input::End => return Ok(()),
        }
    }
}

/// One episode, shown while it happens.
fn answer<W: Write>(
    config: &Config,
    loaded: &LoadedModel,
    (engine, searcher): (&mut BuiltinEngine, &mut HttpSearcher),
    conversation: &RefCell<Conversation<W>>,
    question: &str,
) -> anyhow::Result<()> {
    let template = prompt_template(config, &loaded.tokenizer)?;
    let (prompt_text, prompt_ids) = template.render(question, &loaded.tokenizer)?;
    let limit = config.rollout.max_prompt_tokens;
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
    let jobs = episode_jobs(&[&example], 1, config.seed, 0);
    let sampling = Sampling { temperature: config.eval.temperature as f32, top_p: 1.0 };
    let rollout = rollout_config(config, sampling, 1, &StopFlag::never());
    let mut streaming = StreamingEngine::new(engine, conversation);
    let mut observer = ChatObserver(conversation);
    roll_out(&mut streaming, searcher, &loaded.tokenizer, jobs, &rollout, &mut observer)?;
    match conversation.borrow_mut().take_error() {
        Some(error) => Err(error).context("cannot write to the terminal"),
        None => Ok(()),
    }
}
