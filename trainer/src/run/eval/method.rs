//! The methods that an evaluation compares: searching as the model was trained to, and baselines without searches or
//! with one.

use std::time::Duration;

use anyhow::Context as _;
use shared::contract::dataset::QaRecord;

use crate::config::TemplateChoice;
use crate::data::Example;
use crate::engine::StopRule;
use crate::eval::Method;
use crate::rollout::observation;
use crate::run::model::LoadedModel;
use crate::run::settings::rollout::EvalSettings;
use crate::search::{Passage, SearchRequest, Searcher};
use crate::stop::{StopFlag, Stopped};

/// Longest wait between two looks at the stop flag.
const WAIT: Duration = Duration::from_secs(1);

const DIRECT: &str = "Answer the question at the end. Write the answer alone, without explanations, between <answer> and \
                      </answer>. Question: {question}\n";
const CHAIN_OF_THOUGHT: &str = "Answer the question at the end. First think step by step about what is asked and what you \
                                know. Then write the answer alone, without explanations, between <answer> and \
                                </answer>. Question: {question}\n";
const RAG: &str = "Read the documents, then answer the question behind them. Write the answer alone, without explanations, \
                   between <answer> and </answer>. Documents: {question}\n";

/// Returns the template of a method; `None` if it is that of the configuration.
pub(super) fn template(method: Method) -> Option<TemplateChoice> {
    let text = match method {
        Method::Search => return None,
        Method::Direct => DIRECT,
        Method::ChainOfThought => CHAIN_OF_THOUGHT,
        Method::Rag => RAG,
    };
    Some(TemplateChoice::Text(text.to_owned()))
}

/// Returns the rule that ends the only turn of a baseline: a search in it is text like any other.
pub(super) fn stop_rule() -> StopRule {
    StopRule { stop_at: vec!["</answer>".into()], cut_after: Vec::new() }
}

/// A question with what a baseline showed the model before its turn.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) example: Example,
    /// The passages in the prompt, as shown; empty without any.
    pub(super) shown: String,
    /// Searches that were sent to make the prompt.
    pub(super) searches: usize,
}

/// Makes the prompts of a method. Only one-shot retrieval searches for them, once with each question.
///
/// # Errors
/// Those of reading questions, a stop, and a question whose search failed.
pub(super) fn prepare(
    settings: &EvalSettings,
    method: Method,
    model: &LoadedModel,
    searcher: &mut dyn Searcher,
    stop: &StopFlag,
) -> anyhow::Result<Vec<Prepared>> {
    if method != Method::Rag {
        let examples = settings.questions.examples(&model.tokenizer, model.context_tokens)?;
        let plain = |example| Prepared { example, shown: String::new(), searches: 0 };
        return Ok(examples.into_iter().map(plain).collect());
    }
    let records = settings.questions.records()?;
    let found = search_each(&records, settings.episodes.top_k, searcher, stop)?;
    let mut shown = Vec::with_capacity(records.len());
    let mut asked = Vec::with_capacity(records.len());
    for (record, passages) in records.into_iter().zip(&found) {
        let budget = settings.episodes.observation;
        let rendered = observation::render(passages, budget, &model.tokenizer)?;
        let text = rendered.with_context(|| {
            format!(
                "rollout.max_observation_tokens = {} has no space for passages",
                budget.max_tokens
            )
        })?;
        let text = text.text.replace("<information>", "").replace("</information>", "");
        let question = format!("{}\n\nQuestion: {}", text.trim(), record.question);
        shown.push((text, record.question.clone()));
        asked.push(QaRecord { question, ..record });
    }
    let examples = settings.questions.make(&asked, &model.tokenizer, model.context_tokens)?;
    let prepared = examples.into_iter().zip(shown).map(|(example, (shown, question))| Prepared {
        example: Example { question, ..example },
        shown,
        searches: 1,
    });
    Ok(prepared.collect())
}

/// Searches once with each question and returns the passages in the order of the questions.
fn search_each(
    records: &[QaRecord],
    top_k: usize,
    searcher: &mut dyn Searcher,
    stop: &StopFlag,
) -> anyhow::Result<Vec<Vec<Passage>>> {
    let requests = records.iter().enumerate().map(|(index, record)| SearchRequest {
        ticket: index as u64,
        query: record.question.trim().to_owned(),
        top_k,
    });
    searcher.submit(requests.collect())?;
    let mut found: Vec<Option<Vec<Passage>>> = vec![None; records.len()];
    let mut missing = records.len();
    while missing > 0 {
        if stop.signal().is_some() {
            searcher.cancel();
            return Err(Stopped.into());
        }
        for outcome in searcher.wait(WAIT, stop)?.unwrap_or_default() {
            let record = &records[outcome.ticket as usize];
            let passages = outcome.result.map_err(|reason| {
                anyhow::anyhow!("the search for {:?} failed: {reason}", record.question)
            })?;
            found[outcome.ticket as usize] = Some(passages);
            missing -= 1;
        }
    }
    Ok(found.into_iter().flatten().collect())
}
