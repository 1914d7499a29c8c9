//! `trainer eval` over several sets, turn limits and baselines. Each finished set is kept in a file of its own, so an
//! evaluation that was stopped goes on where it ended.

use std::io::Write;
use std::path::{Path, PathBuf};

use shared::machine::atomic_file;
use tracing::{info, warn};

use super::kept::{kept, key};
use super::method;
use super::{Asking, EvalEngine, ask};
use crate::config::{Config, ModelConfig, PromptSource};
use crate::eval::audit::{Audit, Ceiling};
use crate::eval::{Coverage, EvalResult, Method, Searches, Suite, coverage};
use crate::report::suite_page;
use crate::reward::RewardReading;
use crate::run::audit::{Named, file_name};
use crate::run::model::LoadedModel;
use crate::run::settings;
use crate::run::stopping::{end_stopped, is_done, signals};
use crate::stop::StopFlag;

/// Tokens that a baseline's prompt may have at least: its instructions are longer than those of short templates.
const BASELINE_PROMPT_TOKENS: usize = 512;

/// A method to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Baseline {
    /// The answer alone, without searching
    Direct,
    /// Step by step, without searching
    Cot,
    /// One search with the question, then the answer
    Rag,
    /// Searching with the model before its training
    Untrained,
}

impl Baseline {
    fn method(self) -> Method {
        match self {
            Self::Direct => Method::Direct,
            Self::Cot => Method::ChainOfThought,
            Self::Rag => Method::Rag,
            Self::Untrained => Method::Search,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Cot => "chain of thought",
            Self::Rag => "one-shot RAG",
            Self::Untrained => "untrained, searching",
        }
    }
}

/// The options of an evaluation of several sets.
#[derive(Clone, Debug)]
pub struct SuiteOptions {
    /// Its name: that of the model in tables, and of the folder of its files.
    pub name: String,
    /// The sets of questions; without any, `data.test`.
    pub sets: Vec<Named<PathBuf>>,
    /// Turn limits; without any, `rollout.max_turns`.
    pub turns: Vec<usize>,
    pub baselines: Vec<Baseline>,
    /// The model that baselines ask; without it, the evaluated one.
    pub untrained: Option<PathBuf>,
    pub searches: Searches,
}

/// One set, asked by one method with one turn limit.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) entry: String,
    pub(super) method: Method,
    pub(super) set: Named<PathBuf>,
    pub(super) max_turns: usize,
    pub(super) searches: Searches,
}

/// Evaluates `model.path` and the baselines on every set, and writes summary.json and summary.html beside the results.
///
/// # Errors
/// Anything wrong with a model, a set or the retriever, named; a question that could not be asked because its searches
/// failed; and SIGINT. What was finished before is kept.
pub fn eval_suite(
    config: &Config,
    options: &SuiteOptions,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    eval_suite_until(config, options, &signals()?, out)
}

/// Evaluates like [`eval_suite`], unless `stop` is raised.
///
/// # Errors
/// Those of [`eval_suite`].
pub fn eval_suite_until(
    config: &Config,
    options: &SuiteOptions,
    stop: &StopFlag,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    if is_done(evaluate_all(config, options, stop, out))? {
        return Ok(());
    }
    let name = &options.name;
    writeln!(out, "{name}: stopped, run the same command to go on: finished sets are kept")?;
    end_stopped(stop)
}

fn evaluate_all(
    config: &Config,
    options: &SuiteOptions,
    stop: &StopFlag,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let folder = config.run_dir.join("eval").join(file_name(&options.name));
    let sets = if options.sets.is_empty() {
        vec![Named { name: "test".to_owned(), value: config.data.test.clone() }]
    } else {
        options.sets.clone()
    };
    let audit = config.eval.audit.as_deref().map(Audit::load).transpose()?;
    // A wrong file must not be found after hours of evaluation.
    for set in &sets {
        check_set(config, set, audit.as_ref())?;
    }
    let mut results = Vec::new();
    for (model, cells) in plan(config, options, &sets) {
        let config = Config { model: model_section(config, &model), ..config.clone() };
        results.extend(evaluate_model(&config, &cells, &folder, audit.as_ref(), stop)?);
    }
    let suite = Suite::of(&options.name, config.eval.temperature, &results);
    atomic_file::write(&folder.join("summary.json"), &serde_json::to_vec_pretty(&suite)?)?;
    let page = folder.join("summary.html");
    atomic_file::write(&page, suite_page(&suite).as_bytes())?;
    writeln!(out, "{}{}", suite.to_text(), page.display())?;
    Ok(())
}

/// Returns the models in the order in which they are loaded, each with its cells.
fn plan(
    config: &Config,
    options: &SuiteOptions,
    sets: &[Named<PathBuf>],
) -> Vec<(PathBuf, Vec<Cell>)> {
    let turns = if options.turns.is_empty() {
        vec![config.rollout.max_turns]
    } else {
        options.turns.clone()
    };
    let cells = |entry: &str, method: Method| -> Vec<Cell> {
        let turns = if method == Method::Search { turns.clone() } else { vec![0] };
        let of_set = |max_turns: usize| {
            sets.iter().map(move |set| Cell {
                entry: entry.to_owned(),
                method,
                set: set.clone(),
                max_turns,
                searches: match method {
                    Method::Direct | Method::ChainOfThought => Searches::None,
                    Method::Search | Method::Rag => options.searches,
                },
            })
        };
        turns.into_iter().flat_map(of_set).collect()
    };
    let mut own = cells(&options.name, Method::Search);
    let baselines = options.baselines.iter();
    let others: Vec<Cell> = baselines.flat_map(|each| cells(each.name(), each.method())).collect();
    if let Some(untrained) = &options.untrained {
        vec![(config.model.path.clone(), own), (untrained.clone(), others)]
    } else {
        own.extend(others);
        vec![(config.model.path.clone(), own)]
    }
}

/// Returns the section of the model with another path. The base of adapters belongs to the evaluated model alone.
fn model_section(config: &Config, path: &Path) -> ModelConfig {
    let mut model = config.model.clone();
    if model.path != path {
        path.clone_into(&mut model.path);
        model.base = None;
    }
    model
}

/// Checks that the set can be read, has the size of the published one of its name, and is in the audit.
fn check_set(config: &Config, set: &Named<PathBuf>, audit: Option<&Audit>) -> anyhow::Result<()> {
    let records = settings::questions::held_out_questions(&of_set(config, set)).records()?;
    match coverage(&set.name, records.len())? {
        Coverage::Unknown => {}
        Coverage::Whole(published) => {
            info!(set = set.name, questions = published.questions, "the whole published set");
        }
        Coverage::Part(published) => warn!(
            "{}: {} of the {} questions of {}: the scores are not those of the whole set",
            set.name,
            records.len(),
            published.questions,
            published.title
        ),
    }
    if let Some(audit) = audit {
        let asked = records.iter().map(|record| (record.id.as_str(), record.question.as_str()));
        Ceiling::of_questions(audit, asked)
            .map_err(|error| anyhow::anyhow!("{}: {error}", set.name))?;
    }
    Ok(())
}

fn of_set(config: &Config, set: &Named<PathBuf>) -> Config {
    let mut config = config.clone();
    config.data.test.clone_from(&set.value);
    config
}

/// Returns the results of all cells of one model, which is loaded only if some of them are not kept.
fn evaluate_model(
    config: &Config,
    cells: &[Cell],
    folder: &Path,
    audit: Option<&Audit>,
    stop: &StopFlag,
) -> anyhow::Result<Vec<EvalResult>> {
    let mut loaded: Option<(LoadedModel, EvalEngine)> = None;
    let mut results = Vec::with_capacity(cells.len());
    for cell in cells {
        let config = of_cell(config, cell);
        let path = cell.path(folder);
        let key = key(&config, cell)?;
        let mut result = if let Some(result) = kept(&path, &key) {
            info!(file = %path.display(), "kept from an earlier call");
            result
        } else {
            let evaluation = evaluation(&config, cell);
            let (model, engine) = if let Some(loaded) = &mut loaded {
                loaded
            } else {
                let settings = settings::model::model(&config);
                let model = LoadedModel::open(&settings, &config.model.path)?;
                let engine = EvalEngine::open(&evaluation, &model, evaluation.batch)?;
                loaded.insert((model, engine))
            };
            let label = format!("{}, {}, {} turns", cell.entry, cell.set.name, cell.max_turns);
            let asking = Asking {
                settings: &evaluation,
                model,
                name: &cell.entry,
                label: &label,
                method: cell.method,
                searches: cell.searches,
                stop,
            };
            ask(&asking, engine)?
        };
        result.set = Some(cell.set.name.clone());
        result.key = Some(key);
        result.ceiling = audit.map(|audit| result.ceiling_by(audit)).transpose()?;
        result.save(&path)?;
        results.push(result);
    }
    Ok(results)
}

/// Returns how a cell is asked.
fn evaluation(config: &Config, cell: &Cell) -> settings::rollout::EvalSettings {
    let mut evaluation = settings::rollout::evaluation(config);
    evaluation.episodes.max_turns = cell.max_turns;
    if cell.method != Method::Search {
        evaluation.episodes.stop = method::stop_rule();
        evaluation.reward.reading = RewardReading::Sampled;
    }
    evaluation
}

/// Returns the configuration of a cell.
fn of_cell(config: &Config, cell: &Cell) -> Config {
    let mut config = of_set(config, &cell.set);
    if let Some(template) = method::template(cell.method) {
        config.data.template = template;
        config.data.prompt = PromptSource::Template;
        let rollout = &mut config.rollout;
        rollout.max_prompt_tokens = rollout.max_prompt_tokens.max(BASELINE_PROMPT_TOKENS);
        if cell.method == Method::Rag {
            rollout.max_prompt_tokens += rollout.max_observation_tokens;
        }
    }
    config
}

impl Cell {
    fn path(&self, folder: &Path) -> PathBuf {
        let Self { entry, set, max_turns, .. } = self;
        let (entry, set) = (file_name(entry), file_name(&set.name));
        folder.join(format!("{entry}.{set}.turns-{max_turns}.json"))
    }
}
