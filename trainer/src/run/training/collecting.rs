//! The first part of a step: trajectories and their rewards, from as many rollouts as it takes.

use std::collections::BTreeSet;

use tracing::warn;

use super::TrainingRun;
use crate::algo::{OverlongPenalty, overlong_penalty, uniform_groups};
use crate::data::Example;
use crate::engine::Sampling;
use crate::reward::{Reward, reward};
use crate::rollout::scheduler::{Rollout, roll_out};
use crate::rollout::trajectory::{EndReason, Trajectory};
use crate::run::loaded_model::{EpisodeProgress, episode_jobs_from, reward_config, rollout_config};
use crate::run::question_order::questions_from;
use crate::stop::StopFlag;
use crate::track::Progress;

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
    /// Questions asked so far.
    questions: usize,
}

impl Collected {
    /// Rewards of the trajectories that count.
    pub(super) fn kept_rewards(&self) -> Vec<&Reward> {
        self.rewards.iter().flatten().collect()
    }

    /// Groups that can be learned from.
    fn varied_groups(&self) -> usize {
        self.questions - self.uniform.len()
    }
}

impl TrainingRun<'_> {
    /// Plays the questions of a step; with `algorithm.dynamic_sampling` further ones in place of those
    /// whose trajectories all have one reward (DAPO, arXiv 2503.14476, section 3.2).
    pub(super) fn collect(&mut self, stop: &StopFlag) -> anyhow::Result<Collected> {
        let wanted = self.config.grpo.prompts_per_step;
        let algorithm = &self.config.algorithm;
        let rounds = if algorithm.dynamic_sampling { algorithm.sampling_rounds } else { 1 };
        let per_step = wanted as u64;
        let drawn = self.state.questions_drawn.unwrap_or(self.state.step * per_step);
        let mut collected = Collected::default();
        for _ in 0..rounds {
            let missing = wanted - collected.varied_groups();
            if missing == 0 {
                break;
            }
            let first = drawn + collected.questions as u64;
            self.collect_round(&mut collected, first, missing, stop)?;
        }
        self.next_question = drawn + collected.questions as u64;
        Ok(collected)
    }

    /// One rollout of `count` questions, from the place `first` in their order on.
    fn collect_round(
        &mut self,
        collected: &mut Collected,
        first: u64,
        count: usize,
        stop: &StopFlag,
    ) -> anyhow::Result<()> {
        let chosen = questions_from(self.config.seed, first, count, self.questions.len());
        let offset = collected.questions;
        let rollout = self.roll_out(offset, &chosen, stop)?;
        self.check_failed_searches(&rollout)?;
        let scoring = reward_config(self.config);
        let (mut scores, mut groups) = (Vec::new(), Vec::new());
        for trajectory in &rollout.trajectories {
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
        collected.search_seconds += rollout.times.search_only.as_secs_f64();
        collected.trajectories.extend(rollout.trajectories);
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

    fn roll_out(
        &mut self,
        offset: usize,
        chosen: &[usize],
        stop: &StopFlag,
    ) -> anyhow::Result<Rollout> {
        let config = self.config;
        let examples: Vec<&Example> = chosen.iter().map(|&index| &self.questions[index]).collect();
        let (samples, step) = (config.grpo.group_size, self.state.step);
        let jobs = episode_jobs_from(offset, &examples, samples, config.seed, step);
        let sampling = Sampling {
            temperature: config.rollout.temperature as f32,
            top_p: config.rollout.top_p as f32,
        };
        let rollout = rollout_config(config, sampling, config.rollout.max_sequences, stop);
        let label = format!("rollout {}", self.state.step + 1);
        let mut observer =
            EpisodeProgress(Progress::start(&label, jobs.len() as u64, "trajectories"));
        let tokenizer = &self.loaded.tokenizer;
        let (engine, searcher) = (self.engine.as_engine(), &mut self.searcher);
        let rollout = roll_out(engine, searcher, tokenizer, jobs, &rollout, &mut observer)?;
        observer.0.finish();
        Ok(rollout)
    }

    /// Warns of trajectories without their passages, and refuses to go on with too many of them.
    fn check_failed_searches(&self, rollout: &Rollout) -> anyhow::Result<()> {
        let total = rollout.trajectories.len();
        let failed = rollout.ended(EndReason::SearchFailed);
        if failed > 0 {
            let reason = rollout.last_search_failure.as_deref().unwrap_or("unknown");
            warn!(failed, total, reason, "trajectories dropped: their searches failed");
        }
        let limit = self.config.grpo.max_failed_search_fraction;
        anyhow::ensure!(
            failed as f64 <= limit * total as f64,
            "searches failed in {failed} of {total} trajectories, more than \
             grpo.max_failed_search_fraction = {limit} allows; last failure: {}",
            rollout.last_search_failure.as_deref().unwrap_or("unknown")
        );
        Ok(())
    }
}
