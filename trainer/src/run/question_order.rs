//! Which questions a step trains on: a function of seed and step alone.

use shared::splitmix;

/// Indices into a set of `questions`, for step `step` (from 0) of `per_step` questions: the set is
/// gone through again and again, each time in another order, and no question is skipped.
pub(super) fn step_questions(
    seed: u64,
    step: u64,
    per_step: usize,
    questions: usize,
) -> Vec<usize> {
    questions_from(seed, step * per_step as u64, per_step, questions)
}

/// As [`step_questions`], from the place `first` in that endless order on.
pub(super) fn questions_from(seed: u64, first: u64, count: usize, questions: usize) -> Vec<usize> {
    let mut order: Option<(u64, Vec<usize>)> = None;
    (first..first + count as u64)
        .map(|position| {
            let epoch = position / questions as u64;
            if order.as_ref().is_none_or(|(known, _)| *known != epoch) {
                order = Some((epoch, shuffled(seed, epoch, questions)));
            }
            let (_, order) = order.get_or_insert_with(|| (epoch, Vec::new()));
            order[(position % questions as u64) as usize]
        })
        .collect()
}

/// A permutation of `0..count` (Fisher and Yates) decided by seed and stream.
pub(super) fn shuffled(seed: u64, stream: u64, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut state = seed.wrapping_mul(splitmix::INCREMENT) ^ stream.rotate_left(32);
    for last in (1..count).rev() {
        let draw = splitmix::next(&mut state);
        order.swap(last, (draw % (last as u64 + 1)) as usize);
    }
    order
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
