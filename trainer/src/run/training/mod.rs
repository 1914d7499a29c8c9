//! `trainer train`: reinforcement learning. `step` shows what one step does, from top to bottom.

pub(crate) mod advantages;
pub(crate) mod divergence;
mod failure;
pub(crate) mod guard;
mod in_flight;
mod outside;
pub(crate) mod questions;
mod record;
mod resume;
pub(crate) mod score;
mod step;
mod watch;

pub use failure::{Collapsed, NotWritten};

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::mem;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use shared::machine::atomic_file;
use tracing::{error, info, warn};

use self::divergence::KlWeight;
use self::failure::{Returning, checkpoint_folder};
use self::guard::Journal;
use self::in_flight::InFlight;
use self::questions::{Position, Questions};
use self::record::RunLog;
use self::resume::{Candidate, Candidates};
use self::step::step;
use self::watch::Watch;
use super::curriculum::PassRates;
use super::eval::evaluate;
use super::is_due;
use super::learner::Learner;
use super::manifest::Manifest;
use super::memory;
use super::model::LoadedModel;
use super::rollouts::Rollouts;
use super::run_lock::RunLock;
use super::settings;
use super::settings::objective::StepSettings;
use super::settings::rollout::EvalSettings;
use super::stopping::{end_stopped, is_done, signals};
use crate::checkpoint::{self, Inputs, Retention, SaveForm, StateFiles};
use crate::config::{Config, FailedWrite};
use crate::eval::{EvalResult, Searches};
use crate::policy::ModelPlace;
use crate::report::evaluation_path;
use crate::stop::StopFlag;
use crate::track::{Progress, read_metrics, record_phase};
use crate::tracking::{Outcome, Point, Trackers};
use crate::update::UpdateError;

/// Trains `model.path` by reinforcement learning through the retriever until all steps are done or a signal stops it.
/// Resumes from the run directory's last checkpoint unless `training.resume` is off.
///
/// # Errors
/// Anything wrong with model, data or retriever, named; and SIGINT. The last checkpoint stays.
pub fn train(config: &Config, out: &mut dyn Write) -> anyhow::Result<()> {
    train_until(config, &signals()?, out)
}

/// Trains like [`train`], until all steps are done or `stop` is raised. A stop discards the step in progress and writes
/// the checkpoint of the one before it.
///
/// # Errors
/// Those of [`train`].
pub fn train_until(config: &Config, stop: &StopFlag, out: &mut dyn Write) -> anyhow::Result<()> {
    let started = Instant::now();
    let _lock = RunLock::take(&config.run_dir, "train")?;
    if !config.training.resume {
        Journal::remove(&config.run_dir)?;
    }
    let mut resumes = config.training.resume;
    let (mut run, done) = loop {
        let mut run = TrainingRun::open(config, resumes)?;
        let finished = run.finish(stop);
        let outcome = match &finished {
            Ok(()) => Outcome::Finished,
            Err(error) if stop.signal().is_some() || error.is::<Returning>() => Outcome::Stopped,
            Err(_) => Outcome::Failed,
        };
        mem::take(&mut run.trackers).end(outcome);
        match is_done(finished) {
            Ok(done) => break (run, done),
            // A run that returns opens its folder as one that was killed does.
            Err(error) if error.is::<Returning>() => resumes = true,
            Err(error) => return Err(run.explained(error)),
        }
    };
    let folder = run.save()?;
    run.retain()?;
    if !done {
        writeln!(out, "{}: stopped, run the same command to go on", folder.display())?;
        return end_stopped(stop);
    }
    record_phase(&config.run_dir, "training", started.elapsed().as_secs_f64())?;
    let step = run.position.step;
    let steps = if step == 1 { "step" } else { "steps" };
    writeln!(out, "{}: trained for {step} {steps}", folder.display())?;
    Ok(())
}

/// A run between two steps.
struct TrainingRun {
    settings: StepSettings,
    plan: RunPlan,
    questions: Questions,
    position: Position,
    /// The pass rates that a curriculum goes by.
    pass_rates: PassRates,
    rollouts: Rollouts,
    learner: Learner,
    kl_weight: KlWeight,
    record: RunLog,
    evaluation: EvalSettings,
    saved_step: Option<u64>,
    /// The digests of what the run is made from.
    inputs: Inputs,
    trackers: Trackers,
    /// The guard against collapse.
    watch: Watch,
    /// Exact match of the evaluated steps, if checkpoints are kept by it.
    scores: BTreeMap<u64, f64>,
    /// The last step is to be evaluated before the next one begins.
    owes_evaluation: bool,
}

/// The steps after which something happens.
#[derive(Clone, Debug)]
struct RunPlan {
    run_dir: PathBuf,
    seed: u64,
    steps: u64,
    save_every_steps: usize,
    save_form: SaveForm,
    eval_every_steps: usize,
    retention: Retention,
    on_failed_write: FailedWrite,
}

impl TrainingRun {
    /// Opens a run; `resumes` says whether from the last checkpoint of its folder.
    fn open(config: &Config, resumes: bool) -> anyhow::Result<Self> {
        let run_dir = config.run_dir.clone();
        let (path, base) = (&config.model.path, config.model.base.as_deref());
        let named = || format!("model.path = {}", path.display());
        let place = ModelPlace::find(path, base).with_context(named)?;
        let manifest =
            Manifest::of(&place, &settings::questions::inputs(config)).with_context(named)?;
        let journal = Journal::read(&run_dir)?;
        let candidates = if resumes {
            Candidates::find(&run_dir, config.seed, &manifest, &journal)?
        } else {
            Candidates::default()
        };
        let text = config.to_toml();
        atomic_file::write(&run_dir.join("config.toml"), text.as_bytes())?;
        manifest.write(&run_dir)?;
        info!(objective = config.objective_in_words(), "training");
        let model =
            LoadedModel::open_for_training(&settings::model::model(config), &config.model.path)?;
        let (examples, mixture) =
            settings::questions::training_order(config, &model.tokenizer, model.context_tokens)?;
        let questions = Questions {
            plan: settings::questions::question_plan(config),
            examples,
            mixture,
            curriculum: settings::questions::curriculum(config),
        };
        settings::questions::warn_of_overlap(config, &questions.examples)?;
        let mut learner = Learner::start(settings::objective::learner(config), model);
        let restored = candidates.restore(&mut learner)?;
        let saved_step = restored.as_ref().map(|restored| restored.state.step);
        let Candidate { state, guard, in_flight, pass_rates, .. } = restored.unwrap_or_default();
        let rollbacks = journal.rollbacks.len() as u64;
        let guard_settings = settings::guard::guard(config);
        let watch = Watch::new(run_dir.clone(), guard_settings, guard, state.step, journal);
        let (learning_rate, kl) = watch.scales();
        learner.scale(learning_rate, kl);
        let plan = RunPlan::of(config);
        let rollouts = settings::rollout::training_rollouts(config);
        let mut rollouts = Rollouts::open(&rollouts, &learner.model, state.step)?;
        let mut position = resume::position(state, questions.plan.per_step);
        if let Some(in_flight) = in_flight {
            in_flight.restore(&questions.examples, &mut position, &mut rollouts);
        }
        remove_evaluations_after(&plan, state.step)?;
        let record = RunLog::open(run_dir.clone(), text, config.trace_every_steps, state.step)?;
        let history = read_metrics(&run_dir.join("metrics.jsonl"))?;
        let tracking = settings::tracking::tracking(config);
        let trackers = Trackers::start(&tracking, &run_dir, &history, rollbacks);
        Ok(Self {
            settings: settings::objective::step(config)?,
            pass_rates,
            position,
            questions,
            rollouts,
            learner,
            kl_weight: KlWeight {
                adapted: state.kl_coefficient_bits.map(f64::from_bits),
                scale: kl,
                ..settings::objective::kl_weight(config)
            },
            record,
            trackers,
            evaluation: settings::rollout::evaluation(config),
            saved_step,
            inputs: manifest.inputs(),
            watch,
            scores: scores(&plan)?,
            // A run may have been stopped while it evaluated its last step.
            owes_evaluation: saved_step.is_some_and(|step| {
                is_due(plan.eval_every_steps, step) && !plan.evaluation_path(step).is_file()
            }),
            plan,
        })
    }

    /// Does the remaining steps. An error leaves the run after the last step that was done.
    fn finish(&mut self, stop: &StopFlag) -> anyhow::Result<()> {
        let mut progress = Progress::start("train", self.plan.steps, "steps");
        progress.skip(self.position.step);
        // Fewer checkpoints may be wanted than the last process kept.
        self.retain()?;
        self.evaluate_if_owed(stop)?;
        while self.position.step < self.plan.steps {
            stop.check()?;
            let metrics = match step(self, stop) {
                Ok(metrics) => metrics,
                Err(error) => return Err(self.judged(error)),
            };
            self.watch.act()?;
            self.trackers.log(Point::of_step(&metrics));
            if is_due(self.plan.save_every_steps, self.position.step) {
                self.save_or_warn()?;
            }
            self.owes_evaluation = is_due(self.plan.eval_every_steps, self.position.step);
            progress.note(&format!(
                "reward {:.3}, em {:.3}, searches {:.2}, kl {:.4}, entropy {:.2}",
                metrics.reward_mean,
                metrics.em,
                metrics.searches_per_question,
                metrics.kl,
                metrics.entropy
            ));
            progress.advance(1);
            self.evaluate_if_owed(stop)?;
            self.retain()?;
            memory::release_freed();
        }
        progress.finish();
        Ok(())
    }

    fn evaluate_if_owed(&mut self, stop: &StopFlag) -> anyhow::Result<()> {
        if self.owes_evaluation {
            let (step, model) = (self.position.step, &self.learner.model);
            let name = format!("step {step}");
            let result = evaluate(&self.evaluation, model, &name, Searches::Retriever, stop)?;
            info!(step, em = result.em().value(), "evaluated");
            self.scores.insert(step, result.em().value());
            result.save(&self.plan.evaluation_path(step))?;
            self.trackers.log(Point::of_evaluation(step, &result));
            self.owes_evaluation = false;
        }
        Ok(())
    }

    /// Returns the end of a run whose step failed. An update that was refused may be a collapse.
    fn judged(&mut self, error: anyhow::Error) -> anyhow::Error {
        let is_refusal = error.is::<UpdateError>();
        if is_refusal && self.watch.observe_refusal(self.position.step + 1, &error) {
            error!(error = %format!("{error:#}"), "an update was refused");
            return self.watch.act().err().unwrap_or(error);
        }
        error
    }

    /// Adds the last good checkpoint to the error of a disk that takes no more.
    fn explained(&self, error: anyhow::Error) -> anyhow::Error {
        if error.is::<NotWritten>() || !NotWritten::is_cause(&error) {
            return error;
        }
        NotWritten::explain(error, &self.plan.run_dir, &self.plan.run_dir, self.saved_step)
    }

    /// Writes the checkpoint of the last step; if the run goes on without it, warns.
    fn save_or_warn(&mut self) -> anyhow::Result<()> {
        match (self.save(), self.plan.on_failed_write) {
            (Err(error), FailedWrite::Continue) if error.is::<NotWritten>() => {
                warn!(error = %format!("{error:#}"), "the run goes on without this checkpoint");
                Ok(())
            }
            (saved, _) => saved.map(|_| ()),
        }
    }

    /// Writes the checkpoint of the last step, unless it exists already.
    ///
    /// # Errors
    /// [`NotWritten`] with the last good checkpoint; and a rollout ahead that failed.
    fn save(&mut self) -> anyhow::Result<PathBuf> {
        let step = self.position.step;
        let folder = checkpoint_folder(&self.plan.run_dir, step);
        if self.saved_step != Some(step) {
            let Self {
                plan,
                questions,
                position,
                pass_rates,
                rollouts,
                learner,
                kl_weight,
                inputs,
                ..
            } = self;
            let mut files = StateFiles::new();
            if let Some(bytes) = InFlight::of(position, rollouts)?.encode()? {
                files.insert(in_flight::FILE.to_owned(), bytes);
            }
            if questions.curriculum.is_some() {
                files.insert(resume::PASS_RATES_FILE.to_owned(), pass_rates.to_json());
            }
            self.watch.save(step, &mut files)?;
            let per_step = questions.plan.per_step;
            let state = resume::state(plan.seed, per_step, position, learner, kl_weight);
            resume::save(&folder, plan.save_form, learner, state, inputs, &files).map_err(
                |error| NotWritten::explain(error, &folder, &plan.run_dir, self.saved_step),
            )?;
            self.saved_step = Some(step);
        }
        Ok(folder)
    }

    /// Removes the checkpoints that the run need not keep.
    fn retain(&self) -> anyhow::Result<()> {
        let RunPlan { retention, run_dir, .. } = &self.plan;
        if retention.last == 0 {
            return Ok(());
        }
        let steps: BTreeSet<u64> =
            checkpoint::newest_first(run_dir)?.iter().map(|found| found.step).collect();
        for step in retention.superfluous(&steps, &self.scores, &self.watch.pinned()) {
            checkpoint::remove(&checkpoint_folder(run_dir, step))?;
        }
        Ok(())
    }
}

/// Returns the exact match of the evaluations that training has made, if checkpoints are kept by it.
fn scores(plan: &RunPlan) -> anyhow::Result<BTreeMap<u64, f64>> {
    let mut scores = BTreeMap::new();
    if plan.retention.best > 0 {
        for found in checkpoint::newest_first(&plan.run_dir)? {
            let path = plan.evaluation_path(found.step);
            if path.is_file() {
                scores.insert(found.step, EvalResult::load(&path)?.em().value());
            }
        }
    }
    Ok(scores)
}

/// Removes the evaluations of steps that a resumed run repeats: with other settings they may come out differently, and
/// a run that is killed between checkpoint and evaluation must not take an old one for its own.
fn remove_evaluations_after(plan: &RunPlan, step: u64) -> anyhow::Result<()> {
    let folder = evaluation_path(&plan.run_dir, "any").with_file_name("");
    let Ok(entries) = fs::read_dir(&folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let number = stem.strip_prefix("step-").and_then(|number| number.parse::<u64>().ok());
        if number.is_some_and(|number| number > step) {
            remove_file(&path)?;
        }
    }
    Ok(())
}

fn remove_file(path: &Path) -> anyhow::Result<()> {
    fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))
}

impl RunPlan {
    fn of(config: &Config) -> Self {
        Self {
            run_dir: config.run_dir.clone(),
            seed: config.seed,
            steps: config.training.steps as u64,
            save_every_steps: config.training.save_every_steps,
            save_form: settings::model::save_form(config),
            eval_every_steps: config.training.eval_every_steps,
            retention: settings::guard::retention(config),
            on_failed_write: config.checkpoint.on_failed_write,
        }
    }

    /// Returns the path of the evaluation of a step.
    fn evaluation_path(&self, step: u64) -> PathBuf {
        evaluation_path(&self.run_dir, &format!("step-{step}"))
    }
}
