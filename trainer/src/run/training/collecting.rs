//! The first part of a step: trajectories and their rewards, from as many rollouts as it takes.

use std::collections::BTreeSet;

use anyhow::Context as _;
use tracing::warn;

use super::TrainingRun;
use crate::algo::{OverlongPenalty, overlong_penalty, uniform_groups};
use crate::data::Example;
use crate::engine::{EngineCounters, Sampling};
use crate::reward::{Reward, reward};
use crate::rollout::trajectory::{EndReason, Trajectory};
use crate::rollout::{CarriedEpisode, EpisodeJob, Rollout, RolloutSettings, RolloutWork};
use crate::run::loaded_model::{episode_jobs_from, reward_config, rollout_config};
use crate::run::question_order::questions_from;
use crate::stop::StopFlag;
use crate::track::AheadMetrics;

/// What a step has played.
#[derive(Default)]
pub(super) struct Collected {
    pub(super) trajectories: Vec<Trajectory>,
    /// Reward of each trajectory; none for one whose searches failed, which is left out of everything.
    pub(super) rewards: Vec<Option<Reward>>,
    /// What advantages are made of, one a trajectory: its reward and any penalty for its length.
    pub(super) scores: Vec<f64>,
    /// Groups whose rewards are all equal, by prompt number.
    pub(super) uniform: BTreeSet<usize>,
    /// Seconds in which there was nothing to do but wait for passages.
    pub(super) search_seconds: f64,
    /// Seconds in which the engine computed.
    pub(super) generation_seconds: f64,
    /// Trajectories of which a part was sampled before the policy's last update.
    pub(super) stale_trajectories: usize,
    /// What the engine computed for it.
    pub(super) counters: EngineCounters,
    /// What only rollouts have that went ahead.
    pub(super) ahead: AheadMetrics,
    /// Questions asked so far.
    questions: usize,
    /// What the last search that failed for good failed of.
    last_search_failure: Option<String>,
}

impl Collected {
    /// Rewards of the trajectories that count.
    pub(super) fn kept_rewards(&self) -> Vec<&Reward> {
        self.rewards.iter().flatten().collect()
    }

    pub(super) fn take_times(&mut self, rollout: &Rollout) {
        self.search_seconds += rollout.times.search_only.as_secs_f64();
        self.generation_seconds += rollout.times.generation.as_secs_f64();
        if rollout.last_search_failure.is_some() {
            self.last_search_failure.clone_from(&rollout.last_search_failure);
        }
    }

    /// Groups that can be learned from.
    fn varied_groups(&self) -> usize {
        self.questions - self.uniform.len()
    }
}

/// The episodes of one question that a step did not wait for.
pub(super) struct UnfinishedGroup {
    /// Place of the question in their order, which a run that is resumed asks again from.
    pub(super) place: u64,
    /// Index of the question.
    question: usize,
    finished: Vec<Trajectory>,
    episodes: Vec<CarriedEpisode>,
}

impl TrainingRun<'_> {
    /// Plays the questions of a step; with `algorithm.dynamic_sampling` further ones in place of those
    /// whose trajectories all have one reward (DAPO, arXiv 2503.14476, section 3.2).
    pub(super) fn collect(&mut self, stop: &StopFlag) -> anyhow::Result<Collected> {
        let per_step = self.config.training.prompts_per_step as u64;
        let drawn = self.state.questions_drawn.unwrap_or(self.state.step * per_step);
        let mut collected = Collected::default();
        if self.ahead.is_some() {
            self.collect_ahead(&mut collected, stop)?;
            return Ok(collected);
        }
        if self.config.rollout.carried_groups > 0 {
            self.collect_enough(&mut collected, drawn, stop)?;
        } else {
            self.collect_rounds(&mut collected, drawn, stop)?;
        }
        if let Some(player) = &mut self.player {
            collected.counters = player.engine.take_counters();
        }
        Ok(collected)
    }

    /// As many rollouts as it takes, of questions from the place `drawn` on.
    fn collect_rounds(
        &mut self,
        collected: &mut Collected,
        drawn: u64,
        stop: &StopFlag,
    ) -> anyhow::Result<()> {
        let wanted = self.config.training.prompts_per_step;
        let algorithm = &self.config.algorithm;
        let rounds = if algorithm.dynamic_sampling { algorithm.sampling_rounds } else { 1 };
        for _ in 0..rounds {
            let missing = wanted - collected.varied_groups();
            if missing == 0 {
                break;
            }
            let first = drawn + collected.questions as u64;
            self.collect_round(collected, first, missing, stop)?;
        }
        self.next_question = drawn + collected.questions as u64;
        Ok(())
    }

    /// So many questions from a place in their order on.
    pub(super) fn questions_of(&self, first: u64, count: usize) -> Vec<usize> {
        questions_from(self.config.seed, first, count, self.questions.len())
    }

    /// One rollout of `count` questions, from the place `first` in their order on.
    fn collect_round(
        &mut self,
        collected: &mut Collected,
        first: u64,
        count: usize,
        stop: &StopFlag,
    ) -> anyhow::Result<()> {
        let chosen = self.questions_of(first, count);
        let jobs = self.jobs(collected.questions, &chosen, self.state.step);
        let rollout = self.roll_out(jobs.into(), None, stop)?;
        collected.take_times(&rollout);
        self.take_groups(collected, &chosen, rollout.trajectories)
    }

    /// One rollout of more groups than the step needs, which ends once enough of them are whole; the others
    /// are kept for the next step. Groups begin anew where a run is resumed.
    fn collect_enough(
        &mut self,
        collected: &mut Collected,
        drawn: u64,
        stop: &StopFlag,
    ) -> anyhow::Result<()> {
        let wanted = self.config.training.prompts_per_step;
        let mut groups = std::mem::take(&mut self.unfinished);
        let fresh = (wanted + self.config.rollout.carried_groups).saturating_sub(groups.len());
        let chosen = self.questions_of(drawn, fresh);
        let jobs = self.jobs(groups.len(), &chosen, self.state.step);
        let mut carried = Vec::new();
        for (prompt, group) in groups.iter_mut().enumerate() {
            let episodes = group.episodes.drain(..);
            carried.extend(episodes.map(|episode| episode.with_prompt(prompt)));
        }
        groups.extend(chosen.iter().zip(drawn..).map(|(&question, place)| UnfinishedGroup {
            place,
            question,
            finished: Vec::new(),
            episodes: Vec::new(),
        }));
        let rollout = self.roll_out(RolloutWork { carried, jobs }, Some(wanted), stop)?;
        collected.take_times(&rollout);
        for trajectory in rollout.trajectories {
            groups[trajectory.prompt].finished.push(trajectory);
        }
        for episode in rollout.carried {
            groups[episode.prompt()].episodes.push(episode);
        }
        let (whole, unfinished): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|group| group.episodes.is_empty());
        self.unfinished = unfinished;
        self.next_question = drawn + fresh as u64;
        let questions: Vec<usize> = whole.iter().map(|group| group.question).collect();
        let mut trajectories = Vec::new();
        for (prompt, group) in whole.into_iter().enumerate() {
            let mut finished = group.finished;
            finished.sort_by_key(|trajectory| trajectory.sample);
            trajectories.extend(finished.into_iter().map(|one| Trajectory { prompt, ..one }));
        }
        self.take_groups(collected, &questions, trajectories)
    }

    /// Scores whole groups and adds them to what the step has; `chosen` are their questions.
    pub(super) fn take_groups(
        &mut self,
        collected: &mut Collected,
        chosen: &[usize],
        trajectories: Vec<Trajectory>,
    ) -> anyhow::Result<()> {
        let (offset, count) = (collected.questions, chosen.len());
        self.check_failed_searches(&trajectories, collected.last_search_failure.as_deref())?;
        let scoring = reward_config(self.config);
        let (mut scores, mut groups) = (Vec::new(), Vec::new());
        for trajectory in &trajectories {
            let golden = &self.questions[chosen[trajectory.prompt - offset]].golden_answers;
            let found = trajectory.end.is_trainable().then(|| reward(trajectory, golden, &scoring));
            if let Some(found) = &found {
                scores.push(found.score);
                groups.push(trajectory.prompt);
            }
            let score = found.as_ref().map_or(0.0, |found| found.score);
            collected.scores.push(score + self.length_penalty(trajectory));
            collected.rewards.push(found);
        }
        // A group that lost all trajectories to failed searches is as little to learn from.
        let varied: BTreeSet<usize> = uniform_groups(&scores, &groups)
            .into_iter()
            .filter_map(|(group, uniform)| (!uniform).then_some(group))
            .collect();
        collected.uniform.extend((offset..offset + count).filter(|group| !varied.contains(group)));
        let present = self.state.step;
        collected.stale_trajectories +=
            trajectories.iter().filter(|one| one.versions_behind(present) > 0).count();
        collected.trajectories.extend(trajectories);
        collected.questions += count;
        Ok(())
    }

    fn length_penalty(&self, trajectory: &Trajectory) -> f64 {
        let algorithm = &self.config.algorithm;
        if algorithm.overlong_buffer_tokens == 0 {
            return 0.0;
        }
        let penalty = OverlongPenalty {
            limit_tokens: self.config.overlong_limit_tokens(),
            buffer_tokens: algorithm.overlong_buffer_tokens,
            most: algorithm.overlong_penalty,
        };
        overlong_penalty(penalty, trajectory.sampled_tokens())
    }

    /// Episodes of the questions, whose prompts are numbered from `first` on, as drawn after `step` steps.
    pub(super) fn jobs(&self, first: usize, chosen: &[usize], step: u64) -> Vec<EpisodeJob> {
        let examples: Vec<&Example> = chosen.iter().map(|&index| &self.questions[index]).collect();
        let samples = self.config.training.group_size;
        episode_jobs_from(first, &examples, samples, self.config.seed, step)
    }

    /// How a step plays, until `stop` wishes its end.
    pub(super) fn rollout_config(&self, stop: &StopFlag) -> RolloutSettings {
        let config = self.config;
        let sampling = Sampling {
            temperature: config.rollout.temperature as f32,
            top_p: config.rollout.top_p as f32,
        };
        rollout_config(config, sampling, config.rollout.max_sequences, stop)
    }

    fn roll_out(
        &mut self,
        work: RolloutWork,
        enough_prompts: Option<usize>,
        stop: &StopFlag,
    ) -> anyhow::Result<Rollout> {
        let rollout = RolloutSettings { enough_prompts, ..self.rollout_config(stop) };
        let player = self.player.as_mut().context("rollouts go ahead")?;
        let (tokenizer, step) = (&self.loaded.tokenizer, self.state.step + 1);
        player.play(tokenizer, step, (work, &rollout), self.trace.as_mut())
    }

    /// Warns of trajectories without their passages, and refuses to go on with too many of them.
    fn check_failed_searches(
        &self,
        trajectories: &[Trajectory],
        last_failure: Option<&str>,
    ) -> anyhow::Result<()> {
        let total = trajectories.len();
        let failed = trajectories.iter().filter(|one| one.end == EndReason::SearchFailed).count();
        let reason = last_failure.unwrap_or("unknown");
        if failed > 0 {
            warn!(failed, total, reason, "trajectories dropped: their searches failed");
        }
        let limit = self.config.training.max_failed_search_fraction;
        anyhow::ensure!(
            failed as f64 <= limit * total as f64,
            "searches failed in {failed} of {total} trajectories, more than \
             training.max_failed_search_fraction = {limit} allows; last failure: {reason}"
        );
        Ok(())
    }
}
