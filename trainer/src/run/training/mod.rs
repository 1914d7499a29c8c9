//! `trainer train`: reinforcement learning. `step` shows what one step does, from top to bottom.

pub(crate) mod advantages;
pub(crate) mod divergence;
pub(crate) mod questions;
mod record;
mod resume;
pub(crate) mod score;
mod step;

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use shared::machine::atomic_file;
use tracing::info;

use self::divergence::KlWeight;
use self::questions::{Position, Questions};
use self::record::RunLog;
use self::step::step;
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
use crate::checkpoint::{Inputs, SaveForm, TrainerState};
use crate::config::Config;
use crate::eval::Searches;
use crate::policy::ModelPlace;
use crate::report::evaluation_path;
use crate::stop::StopFlag;
use crate::track::{Progress, record_phase};

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
    let mut run = TrainingRun::open(config)?;
    let done = is_done(run.finish(stop))?;
    let folder = run.save()?;
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
    _lock: RunLock,
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
}

impl TrainingRun {
    fn open(config: &Config) -> anyhow::Result<Self> {
        let run_dir = config.run_dir.clone();
        let lock = RunLock::take(&run_dir, "train")?;
        let (path, base) = (&config.model.path, config.model.base.as_deref());
        let named = || format!("model.path = {}", path.display());
        let place = ModelPlace::find(path, base).with_context(named)?;
        let manifest =
            Manifest::of(&place, &settings::questions::inputs(config)).with_context(named)?;
        let latest =
            if config.training.resume { resume::latest(&run_dir, config.seed)? } else { None };
        if let Some((folder, _)) = &latest {
            manifest.check_resumed(&run_dir, folder)?;
        }
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
        let mut state = TrainerState { seed: config.seed, ..TrainerState::default() };
        let mut pass_rates = PassRates::default();
        if let Some((folder, saved)) = &latest {
            pass_rates = resume::pass_rates(folder)?;
            resume::restore(&mut learner, folder, *saved)?;
            state = *saved;
        }
        let rollouts = settings::rollout::training_rollouts(config);
        let plan = RunPlan {
            run_dir: run_dir.clone(),
            seed: config.seed,
            steps: config.training.steps as u64,
            save_every_steps: config.training.save_every_steps,
            save_form: settings::model::save_form(config),
            eval_every_steps: config.training.eval_every_steps,
        };
        let saved_step = latest.map(|(_, state)| state.step);
        Ok(Self {
            settings: settings::objective::step(config),
            pass_rates,
            position: resume::position(state, questions.plan.per_step),
            questions,
            rollouts: Rollouts::open(&rollouts, &learner.model, state.step)?,
            learner,
            kl_weight: KlWeight {
                adapted: state.kl_coefficient_bits.map(f64::from_bits),
                ..settings::objective::kl_weight(config)
            },
            record: RunLog::open(run_dir, text, config.trace_every_steps, state.step)?,
            evaluation: settings::rollout::evaluation(config),
            saved_step,
            inputs: manifest.inputs(),
            _lock: lock,
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
        self.evaluate_if_owed(stop)?;
        while self.position.step < self.plan.steps {
            stop.check()?;
            let metrics = step(self, stop)?;
            if is_due(self.plan.save_every_steps, self.position.step) {
                self.save()?;
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
            result.save(&self.plan.evaluation_path(step))?;
            self.owes_evaluation = false;
        }
        Ok(())
    }

    /// Writes the checkpoint of the last step, unless it exists already.
    fn save(&mut self) -> anyhow::Result<PathBuf> {
        let step = self.position.step;
        let folder = self.plan.run_dir.join("checkpoints").join(format!("step-{step}"));
        if self.saved_step != Some(step) {
            let Self { plan, questions, position, learner, kl_weight, inputs, pass_rates, .. } =
                self;
            let per_step = questions.plan.per_step;
            let state = resume::state(plan.seed, per_step, position, learner, kl_weight);
            let rates = questions.curriculum.is_some().then_some(&*pass_rates);
            resume::save(&folder, plan.save_form, learner, state, inputs, rates)?;
            self.saved_step = Some(step);
        }
        Ok(folder)
    }
}

impl RunPlan {
    /// Returns the path of the evaluation of a step.
    fn evaluation_path(&self, step: u64) -> PathBuf {
        evaluation_path(&self.run_dir, &format!("step-{step}"))
    }
}
