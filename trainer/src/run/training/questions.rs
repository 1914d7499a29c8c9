//! The questions of a step, and the whole groups of trajectories that its rollouts bring.

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::score::{Scored, Scoring, score};
use crate::data::Example;
use crate::engine::EngineCounters;
use crate::rollout::trajectory::{EndReason, Trajectory};
use crate::rollout::{CarriedEpisode, EpisodeJob, Rollout, RolloutWork};
use crate::run::curriculum::{CurriculumSettings, PassRates};
use crate::run::mixture::Mixture;
use crate::run::model::LoadedModel;
use crate::run::question_order::episode_jobs;
use crate::run::rollouts::{Ahead, Order, Player, Rollouts};
use crate::search::record::RecordCounters;
use crate::stop::StopFlag;
use crate::track::{AheadMetrics, Trace};

/// The plan of the questions: how many a step asks, in which groups.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QuestionPlan {
    pub(crate) seed: u64,
    pub(crate) per_step: usize,
    /// Trajectories per question.
    pub(crate) group_size: usize,
    /// Groups that a rollout plays beyond those of its step and does not wait for.
    pub(crate) carried_groups: usize,
    /// Limit of a step's rollouts. With more than one, further questions take the place of those whose trajectories
    /// all have one reward: dynamic sampling (DAPO, arXiv 2503.14476, section 3.2).
    pub(crate) rounds: usize,
    /// Share of a rollout's trajectories lost to failed searches above which the run ends.
    pub(crate) max_failed_search_fraction: f64,
}

/// The training questions.
#[derive(Debug)]
pub(crate) struct Questions {
    pub(crate) plan: QuestionPlan,
    pub(crate) examples: Vec<Example>,
    /// Their order.
    pub(crate) mixture: Mixture,
    pub(crate) curriculum: Option<CurriculumSettings>,
}

/// Questions that were taken from their order.
struct Chosen {
    /// Indices of the questions, each with its position in the order.
    questions: Vec<(usize, u64)>,
    /// The position after the last one.
    next: u64,
}

/// The position of a run between two steps.
#[derive(Clone, Debug)]
pub(crate) struct Position {
    /// Steps that are done.
    pub(crate) step: u64,
    /// Position, in the endless order of the questions, of the next one to be asked.
    pub(crate) next_question: u64,
    /// Groups that the last step did not wait for.
    pub(crate) unfinished: Vec<UnfinishedGroup>,
}

/// The episodes of one question that a step did not wait for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct UnfinishedGroup {
    /// The question's position in their order.
    pub(crate) position: u64,
    /// Index of the question.
    question: usize,
    finished: Vec<Trajectory>,
    episodes: Vec<CarriedEpisode>,
}

impl UnfinishedGroup {
    /// Returns `true` if the group asks what the question of its index asks.
    pub(crate) fn belongs_to(&self, examples: &[Example]) -> bool {
        let played = self.episodes.iter().map(CarriedEpisode::trajectory).chain(&self.finished);
        let mut asked = played.map(|trajectory| trajectory.example_id.as_str());
        examples.get(self.question).is_some_and(|example| asked.all(|id| id == example.id))
    }
}

/// The results of a step's rollouts.
pub(crate) struct Collected<'q> {
    /// Trajectories in whole groups; those of a question share its prompt number.
    pub(crate) trajectories: Vec<Trajectory>,
    /// The question of each prompt number.
    pub(crate) examples: Vec<&'q Example>,
    /// Seconds in which there was nothing to do but wait for passages.
    pub(crate) search_seconds: f64,
    /// Seconds in which the engine computed.
    pub(crate) generation_seconds: f64,
    /// The engine's work.
    pub(crate) counters: EngineCounters,
    /// The searches that a record answered, and those that it did not.
    pub(crate) record: RecordCounters,
    /// The distance between the rollouts and the updates.
    pub(crate) ahead: AheadMetrics,
    /// The position of the run once the step is done.
    pub(crate) next: Position,
}

/// The model, rules, timeline and stop of a step's rollouts.
pub(crate) struct Playing<'p> {
    pub(crate) model: &'p LoadedModel,
    pub(crate) scoring: &'p Scoring,
    /// The pass rates by which a curriculum chooses.
    pub(crate) pass_rates: &'p PassRates,
    pub(crate) trace: &'p mut Option<Trace>,
    pub(crate) stop: &'p StopFlag,
}

impl Questions {
    /// Asks the questions of the step after `position` and plays their episodes.
    ///
    /// # Errors
    /// A stop, a rollout that failed, and too many failed searches.
    pub(crate) fn play(
        &self,
        position: &Position,
        rollouts: &mut Rollouts,
        playing: Playing<'_>,
    ) -> anyhow::Result<Collected<'_>> {
        match rollouts {
            Rollouts::Ahead(ahead) => self.play_ahead(position, ahead, playing),
            Rollouts::Between(player) if self.plan.carried_groups > 0 => {
                self.play_enough(position, player.as_mut(), playing)
            }
            Rollouts::Between(player) => self.play_rounds(position, player.as_mut(), playing),
        }
    }

    /// Plays whole groups. Plays further rounds while too few groups have varied rewards.
    fn play_rounds(
        &self,
        position: &Position,
        player: &mut dyn Player,
        playing: Playing<'_>,
    ) -> anyhow::Result<Collected<'_>> {
        let Playing { model, scoring, pass_rates, trace, stop } = playing;
        let mut played = Collected::nothing(position);
        let mut missing = self.plan.per_step;
        for _ in 0..self.plan.rounds {
            if missing == 0 {
                break;
            }
            let chosen = self.chosen(played.next.next_question, missing, pass_rates);
            let jobs = self.jobs(played.examples.len(), &chosen, position.step);
            let order = Order { step: position.step + 1, work: jobs.into(), enough_prompts: None };
            let rollout = player.play(order, &model.tokenizer, stop, trace.as_mut())?;
            played.add_figures(&rollout);
            self.check_searches(&rollout.trajectories, rollout.last_search_failure.as_deref())?;
            played.examples.extend(self.examples_of(&chosen));
            played.trajectories.extend(rollout.trajectories);
            played.next.next_question = chosen.next;
            if self.plan.rounds > 1 {
                let scored = score(&played.trajectories, &played.examples, scoring, stop);
                let uniform = scored.uniform_groups;
                missing = self.plan.per_step - (played.examples.len() - uniform.len());
            }
        }
        played.counters = player.take_counters();
        Ok(played)
    }

    /// Plays more groups than the step needs, until enough of them are whole. The others are kept for the next step,
    /// and begin again where a run is resumed.
    fn play_enough(
        &self,
        position: &Position,
        player: &mut dyn Player,
        playing: Playing<'_>,
    ) -> anyhow::Result<Collected<'_>> {
        let Playing { model, pass_rates, trace, stop, .. } = playing;
        let wanted = self.plan.per_step;
        let mut groups = position.unfinished.clone();
        let fresh = (wanted + self.plan.carried_groups).saturating_sub(groups.len());
        let chosen = self.chosen(position.next_question, fresh, pass_rates);
        let jobs = self.jobs(groups.len(), &chosen, position.step);
        let mut carried = Vec::new();
        for (prompt, group) in groups.iter_mut().enumerate() {
            let episodes = group.episodes.drain(..);
            carried.extend(episodes.map(|episode| episode.with_prompt(prompt)));
        }
        groups.extend(chosen.questions.iter().map(|&(question, position)| UnfinishedGroup {
            position,
            question,
            finished: Vec::new(),
            episodes: Vec::new(),
        }));
        let work = RolloutWork { carried, jobs };
        let order = Order { step: position.step + 1, work, enough_prompts: Some(wanted) };
        let rollout = player.play(order, &model.tokenizer, stop, trace.as_mut())?;
        let mut played = Collected::nothing(position);
        played.add_figures(&rollout);
        for trajectory in rollout.trajectories {
            groups[trajectory.prompt].finished.push(trajectory);
        }
        for episode in rollout.carried {
            groups[episode.prompt()].episodes.push(episode);
        }
        let (whole, unfinished): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|group| group.episodes.is_empty());
        for (prompt, mut group) in whole.into_iter().enumerate() {
            group.finished.sort_by_key(|trajectory| trajectory.sample);
            let finished = group.finished.into_iter();
            played
                .trajectories
                .extend(finished.map(|trajectory| Trajectory { prompt, ..trajectory }));
            played.examples.push(&self.examples[group.question]);
        }
        self.check_searches(&played.trajectories, rollout.last_search_failure.as_deref())?;
        played.next.unfinished = unfinished;
        played.next.next_question = chosen.next;
        played.counters = player.take_counters();
        Ok(played)
    }

    /// Takes the rollout of the step, after ordering those that may begin with the current policy.
    fn play_ahead(
        &self,
        position: &Position,
        ahead: &mut Ahead,
        playing: Playing<'_>,
    ) -> anyhow::Result<Collected<'_>> {
        let Playing { model, pass_rates, trace, stop, .. } = playing;
        let (done, per_step) = (position.step, self.plan.per_step as u64);
        // Every step has as many questions, so those of a later one are known. A curriculum, with which they would not
        // be, is refused for rollouts that run ahead.
        let chosen = |step: u64| self.chosen((step - 1) * per_step, self.plan.per_step, pass_rates);
        ahead.order(model, done, |step| self.jobs(0, &chosen(step), step - 1))?;
        let taken = ahead.take(done + 1, stop)?;
        *trace = taken.trace;
        let mut played = Collected::nothing(position);
        played.add_figures(&taken.rollout);
        let failure = taken.rollout.last_search_failure.as_deref();
        self.check_searches(&taken.rollout.trajectories, failure)?;
        played.examples = self.examples_of(&chosen(done + 1)).collect();
        played.trajectories = taken.rollout.trajectories;
        played.counters = taken.counters;
        let staleness: Vec<u64> =
            played.trajectories.iter().map(|trajectory| trajectory.versions_behind(done)).collect();
        played.ahead = AheadMetrics {
            staleness_mean: staleness.iter().sum::<u64>() as f64 / staleness.len().max(1) as f64,
            staleness_max: staleness.iter().copied().max().unwrap_or(0),
            groups_ahead: taken.steps_ahead * per_step,
            overlapped_seconds: taken.overlapped.as_secs_f64(),
        };
        played.next.next_question = (done + 1) * per_step;
        Ok(played)
    }

    /// Takes `count` questions from a position in their order on. A curriculum skips some of them, but not more than all
    /// questions in a row.
    fn chosen(&self, first: u64, count: usize, pass_rates: &PassRates) -> Chosen {
        let Some(curriculum) = &self.curriculum else {
            let questions = self.mixture.questions_from(first, count).into_iter().zip(first..);
            return Chosen { questions: questions.collect(), next: first + count as u64 };
        };
        let (mut chosen, mut skipped) = (Chosen { questions: Vec::new(), next: first }, 0);
        while chosen.questions.len() < count {
            let missing = count - chosen.questions.len();
            for question in self.mixture.questions_from(chosen.next, missing) {
                let position = chosen.next;
                chosen.next += 1;
                let is_asked = curriculum.asks(pass_rates, &self.examples[question].id, position);
                if is_asked || skipped >= self.examples.len() {
                    chosen.questions.push((question, position));
                    skipped = 0;
                } else {
                    skipped += 1;
                }
            }
        }
        chosen
    }

    fn examples_of<'q>(&'q self, chosen: &Chosen) -> impl Iterator<Item = &'q Example> + use<'q> {
        let indices: Vec<usize> = chosen.questions.iter().map(|(question, _)| *question).collect();
        indices.into_iter().map(|index| &self.examples[index])
    }

    /// Returns the episodes of questions, whose prompts are numbered from `first` on, as drawn after `step` steps.
    fn jobs(&self, first: usize, chosen: &Chosen, step: u64) -> Vec<EpisodeJob> {
        let examples: Vec<&Example> = self.examples_of(chosen).collect();
        episode_jobs(first, &examples, self.plan.group_size, self.plan.seed, step)
    }

    /// Warns of trajectories whose searches failed, and refuses too many of them.
    fn check_searches(
        &self,
        trajectories: &[Trajectory],
        last_failure: Option<&str>,
    ) -> anyhow::Result<()> {
        let total = trajectories.len();
        let failed = trajectories
            .iter()
            .filter(|trajectory| trajectory.end == EndReason::SearchFailed)
            .count();
        let reason = last_failure.unwrap_or("unknown");
        if failed > 0 {
            warn!(failed, total, reason, "trajectories dropped: their searches failed");
        }
        let limit = self.plan.max_failed_search_fraction;
        anyhow::ensure!(
            failed as f64 <= limit * total as f64,
            "searches failed in {failed} of {total} trajectories, more than \
             training.max_failed_search_fraction = {limit} allows; last failure: {reason}"
        );
        Ok(())
    }
}

impl Collected<'_> {
    /// Counts the right answers among the trajectories of each question. What failed or was dropped counts for nothing.
    pub(crate) fn count_passed(&self, scored: &Scored, pass_rates: &mut PassRates) {
        for (prompt, example) in self.examples.iter().enumerate() {
            let rewards = self.trajectories.iter().zip(&scored.rewards);
            let rewards = rewards.filter(|(trajectory, _)| trajectory.prompt == prompt);
            let (mut passed, mut played) = (0, 0);
            for reward in rewards.filter_map(|(_, reward)| reward.as_ref()) {
                passed += u32::from(reward.exact_match > 0.0);
                played += 1;
            }
            pass_rates.count(&example.id, passed, played);
        }
    }

    /// Returns the beginning of the step after `position`.
    fn nothing(position: &Position) -> Self {
        let next_question = position.next_question;
        Self {
            trajectories: Vec::new(),
            examples: Vec::new(),
            search_seconds: 0.0,
            generation_seconds: 0.0,
            counters: EngineCounters::default(),
            record: RecordCounters::default(),
            ahead: AheadMetrics::default(),
            next: Position { step: position.step + 1, next_question, unfinished: Vec::new() },
        }
    }

    fn add_figures(&mut self, rollout: &Rollout) {
        self.search_seconds += rollout.times.search_only.as_secs_f64();
        self.generation_seconds += rollout.times.generation.as_secs_f64();
        self.record.add(rollout.record);
    }
}
