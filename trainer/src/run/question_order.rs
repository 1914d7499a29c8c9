//! The order of the questions, and the episodes that ask them: functions of a seed.

use shared::contract::splitmix;

use crate::data::Example;
use crate::engine::SamplingKey;
use crate::rollout::EpisodeJob;

/// Returns indices into a set of `questions`, for step `step` (from 0) of `per_step` questions. The set is gone
/// through again and again, each time in another order, and no question is skipped.
pub(super) fn step_questions(
    seed: u64,
    step: u64,
    per_step: usize,
    questions: usize,
) -> Vec<usize> {
    questions_from(seed, step * per_step as u64, per_step, questions)
}

/// Returns `count` indices from the position `first` in the endless order of [`step_questions`] on.
pub(super) fn questions_from(seed: u64, first: u64, count: usize, questions: usize) -> Vec<usize> {
    let mut epoch_order: Option<(u64, Vec<usize>)> = None;
    (first..first + count as u64)
        .map(|position| {
            let epoch = position / questions as u64;
            let (_, order) = match epoch_order.take() {
                Some(known) if known.0 == epoch => epoch_order.insert(known),
                _ => epoch_order.insert((epoch, shuffled(seed, epoch, questions))),
            };
            order[(position % questions as u64) as usize]
        })
        .collect()
}

/// Returns a permutation of `0..count` (Fisher and Yates) that seed and stream decide.
pub(super) fn shuffled(seed: u64, stream: u64, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut state = seed.wrapping_mul(splitmix::INCREMENT) ^ stream.rotate_left(32);
    for last in (1..count).rev() {
        let draw = splitmix::next(&mut state);
        order.swap(last, (draw % (last as u64 + 1)) as usize);
    }
    order
}

/// Returns `samples` episodes of each example. Prompts are numbered from `first` on.
pub(super) fn episode_jobs(
    first: usize,
    examples: &[&Example],
    samples: usize,
    seed: u64,
    step: u64,
) -> Vec<EpisodeJob> {
    let mut jobs = Vec::with_capacity(examples.len() * samples);
    for (prompt, example) in (first..).zip(examples) {
        for sample in 0..samples {
            jobs.push(EpisodeJob {
                prompt,
                sample,
                example_id: example.id.clone(),
                prompt_text: example.prompt_text.clone(),
                prompt_ids: example.prompt_ids.clone(),
                key: SamplingKey { seed, step, prompt: prompt as u64, sample: sample as u64 },
            });
        }
    }
    jobs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_holds_every_question_once() {
        let mut seen: Vec<usize> = (0..5).flat_map(|step| step_questions(3, step, 4, 10)).collect();
        let mut second = seen.split_off(10);
        assert_ne!(seen, second, "each epoch has an order of its own");
        seen.sort_unstable();
        second.sort_unstable();
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
        assert_eq!(second, seen);
    }

    #[test]
    fn seed_and_step_decide() {
        assert_eq!(step_questions(3, 1, 4, 100), step_questions(3, 1, 4, 100));
        assert_ne!(step_questions(3, 1, 4, 100), step_questions(4, 1, 4, 100));
    }
}
