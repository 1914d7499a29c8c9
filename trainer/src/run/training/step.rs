//! One training step, from top to bottom. Each array has one entry per trajectory, in the same order.

use super::TrainingRun;
use super::advantages::{Estimator, StepRewards, Targets, Values, advantages};
use super::divergence::{Divergence, Penalties};
use super::questions::Playing;
use super::record::StepFigures;
use super::score::score;
use crate::critic::CriticSequence;
use crate::run::learner::PolicyUpdates;
use crate::run::settings::objective::StepSettings;
use crate::stop::{StopFlag, Uninterruptible};
use crate::track::StepMetrics;
use crate::update::TrainSequence;

/// Does the next step of a run. An error leaves the run after the last step that was done.
pub(super) fn step(run: &mut TrainingRun, stop: &StopFlag) -> anyhow::Result<StepMetrics> {
    let TrainingRun {
        settings,
        questions,
        position,
        pass_rates,
        rollouts,
        learner,
        kl_weight,
        record,
        watch,
        ..
    } = run;
    let done = position.step;
    let mut times = record.begin(done + 1);

    // Questions, rollouts and scores.
    let StepSettings { scoring, drops_uniform_groups, divergence } = settings;
    let (drops_uniform_groups, divergence) = (*drops_uniform_groups, *divergence);
    let model = &learner.model;
    let playing = Playing { model, scoring, pass_rates, trace: &mut times.trace, stop };
    let played = questions.play(position, rollouts, playing)?;
    let trajectories = &played.trajectories;
    let scored = score(trajectories, &played.examples, scoring, stop);
    stop.check()?;
    scored.outside.check(trajectories.len(), questions.plan.max_failed_search_fraction)?;
    times.end_rollout(record, trajectories)?;

    // Drop the trajectories that teach nothing.
    let kept = scored.trained(trajectories, drops_uniform_groups);
    let mut sequences: Vec<TrainSequence> =
        kept.iter().map(|&index| TrainSequence::from(&trajectories[index])).collect();
    let scores: Vec<f64> = kept.iter().map(|&index| scored.scores[index]).collect();
    let groups: Vec<usize> = kept.iter().map(|&index| trajectories[index].prompt).collect();

    // Log-probs of the trained tokens. With one update the current policy is the one that sampled, so the old ones
    // are needed only if something reads them before.
    let reference_log_probs = learner.reference_log_probs(&sequences, stop)?;
    let needs_old = learner.schedule().has_several_updates(sequences.len())
        || matches!(divergence, Divergence::InReward(_));
    let old_log_probs = needs_old.then(|| learner.log_probs(&sequences, stop)).transpose()?;

    // Advantages.
    let kl_coefficient = kl_weight.coefficient();
    let log_probs = (old_log_probs.as_deref(), reference_log_probs.as_deref());
    let penalties = penalties(divergence, kl_coefficient, log_probs, &sequences);
    let estimator = learner.values(&sequences, stop)?;
    let masks: Vec<&[bool]> = sequences.iter().map(|sequence| &sequence.mask[..]).collect();
    let rewards = StepRewards {
        scores: &scores,
        groups: &groups,
        masks: &masks,
        penalties: &penalties.tokens,
    };
    let Targets { advantages, returns } = advantages(&rewards, &estimator);
    times.end_log_probs();

    // Critic, then policy: a stop can still come before the first update.
    let mut updates = Uninterruptible::new(stop);
    let critic_sequences = critic_sequences(&sequences, &estimator, returns);
    complete(&mut sequences, advantages, old_log_probs, reference_log_probs);
    let critic_updates = learner
        .update_critic(&critic_sequences, &mut updates)
        .map_err(|fault| record.refused(learner, done + 1, fault))?;
    let policy_updates = if learner.trains_policy(done) {
        learner
            .update_policy(&sequences, &mut updates)
            .map_err(|fault| record.refused(learner, done + 1, fault))?
    } else {
        PolicyUpdates::default()
    };
    times.end_update();

    // Record, and hand on the weights.
    let figures = StepFigures {
        played: &played,
        scored: &scored,
        policy: &policy_updates,
        critic: &critic_updates,
        kl_coefficient,
    };
    let mut metrics = times.metrics(&figures);
    watch.observe(&mut metrics);
    kl_weight.adapt(&penalties, sequences.len());
    if questions.curriculum.is_some() {
        played.count_passed(&scored, pass_rates);
    }
    *position = played.next;
    rollouts.take_policy(&learner.model, position.step)?;
    record.append(&metrics)?;
    times.finish(record)?;
    Ok(metrics)
}

/// A number for each trained token of each sequence.
type TokenNumbers = [Vec<f32>];

/// Returns the penalties of the tokens for their divergence, from the old log-probs and those of the reference; none
/// unless they belong to the reward.
fn penalties(
    divergence: Divergence,
    coefficient: f64,
    log_probs: (Option<&TokenNumbers>, Option<&TokenNumbers>),
    sequences: &[TrainSequence],
) -> Penalties {
    if let (Divergence::InReward(estimator), (Some(old), Some(reference))) = (divergence, log_probs)
    {
        return Penalties::new(estimator, coefficient, old, reference);
    }
    let trained: Vec<usize> = sequences.iter().map(TrainSequence::trained_tokens).collect();
    Penalties::none(&trained)
}

/// Returns the sequences of the critic's update; none without a critic.
fn critic_sequences(
    sequences: &[TrainSequence],
    estimator: &Estimator<Values>,
    returns: Vec<Vec<f32>>,
) -> Vec<CriticSequence> {
    let Some(valued) = estimator.critic() else { return Vec::new() };
    let parts = sequences.iter().zip(valued).zip(returns);
    parts
        .map(|((sequence, valued), returns)| CriticSequence {
            token_ids: sequence.token_ids.clone(),
            mask: valued.mask.clone(),
            old_values: valued.values.clone(),
            returns,
        })
        .collect()
}

/// Adds advantages and log-probs to the sequences of the policy's update.
fn complete(
    sequences: &mut [TrainSequence],
    advantages: Vec<Vec<f32>>,
    old_log_probs: Option<Vec<Vec<f32>>>,
    reference_log_probs: Option<Vec<Vec<f32>>>,
) {
    for (sequence, advantages) in sequences.iter_mut().zip(advantages) {
        sequence.advantages = advantages;
    }
    for (sequence, log_probs) in sequences.iter_mut().zip(old_log_probs.into_iter().flatten()) {
        sequence.old_log_probs = Some(log_probs);
    }
    let reference_log_probs = reference_log_probs.into_iter().flatten();
    for (sequence, log_probs) in sequences.iter_mut().zip(reference_log_probs) {
        sequence.reference_log_probs = Some(log_probs);
    }
}
