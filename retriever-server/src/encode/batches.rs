//! Batches of texts for the model. A batch has texts of similar length, which keeps padding small, and
//! at most a given number of tokens, which bounds memory.

use crate::device::Provider;

/// The limits of one run of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunLimits {
    /// The most tokens, including padding. A longer text gets a run of its own.
    pub(super) max_tokens: usize,
    /// The number of tokens of which every row length is a multiple.
    pub(super) multiple_tokens: usize,
}

impl RunLimits {
    /// Chooses limits for texts of these lengths in tokens, whose runs are shared by `sessions`.
    ///
    /// On a CPU, small runs are faster, because their values stay in its cache, and no session waits
    /// long for the last run of another. A GPU needs large runs and few different shapes, because its
    /// allocator keeps memory for each shape.
    pub(super) fn new(provider: Provider, sessions: usize, lengths: &[usize]) -> Self {
        match provider {
            Provider::Cpu if sessions > 1 => {
                let share = lengths.iter().sum::<usize>() / (sessions * RUNS_PER_SESSION);
                let max_tokens = share.clamp(MIN_TOKENS_CPU, MAX_TOKENS_CPU);
                Self { max_tokens, multiple_tokens: 1 }
            }
            Provider::Cpu => Self { max_tokens: MAX_TOKENS_CPU, multiple_tokens: 1 },
            Provider::Cuda(_) => Self { max_tokens: 16_384, multiple_tokens: 16 },
        }
    }
}

/// The most tokens of a run on a CPU. Larger runs are not faster.
const MAX_TOKENS_CPU: usize = 256;
/// The fewest tokens to aim for in a run on a CPU. Smaller runs are slow, because each reads all weights.
const MIN_TOKENS_CPU: usize = 64;
/// The number of runs that each of several sessions should get, if there are enough texts.
const RUNS_PER_SESSION: usize = 8;

/// Texts that go through the model together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// The positions of the texts.
    pub(super) texts: Vec<usize>,
    /// The number of tokens of each row, including padding.
    pub(super) row_tokens: usize,
}

/// Groups texts with these lengths in tokens into batches, longest texts first. Later batches then fit
/// into the memory of the first run.
pub(super) fn plan(lengths: &[usize], limits: RunLimits) -> Vec<Batch> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&text| std::cmp::Reverse(lengths[text]));
    let mut batches: Vec<Batch> = Vec::new();
    for text in order {
        let row_tokens = lengths[text].next_multiple_of(limits.multiple_tokens);
        match batches.last_mut() {
            Some(batch) if (batch.texts.len() + 1) * batch.row_tokens <= limits.max_tokens => {
                batch.texts.push(text);
            }
            _ => batches.push(Batch { texts: vec![text], row_tokens }),
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_of_similar_length_go_together() {
        let limits = RunLimits { max_tokens: 20, multiple_tokens: 1 };
        let batches = plan(&[5, 30, 4, 9, 10], limits);
        let expected = [(vec![1], 30), (vec![4, 3], 10), (vec![0, 2], 5)]
            .map(|(texts, row_tokens)| Batch { texts, row_tokens });
        assert_eq!(batches, expected);
        assert_eq!(plan(&[], limits), []);
    }

    #[test]
    fn sessions_share_the_tokens() {
        let max_tokens = |provider, sessions, texts, tokens| {
            RunLimits::new(provider, sessions, &vec![tokens; texts]).max_tokens
        };
        assert_eq!(max_tokens(Provider::Cpu, 1, 8, 50), 256);
        assert_eq!(max_tokens(Provider::Cpu, 2, 0, 50), 64);
        assert_eq!(max_tokens(Provider::Cpu, 2, 8, 50), 64);
        assert_eq!(max_tokens(Provider::Cpu, 2, 64, 50), 200);
        assert_eq!(max_tokens(Provider::Cpu, 4, 64, 50), 100);
        assert_eq!(max_tokens(Provider::Cpu, 2, 2048, 50), 256);
        assert_eq!(max_tokens(Provider::Cuda(0), 1, 2048, 50), 16_384);
    }

    #[test]
    fn rows_are_padded_to_a_multiple() {
        let limits = RunLimits { max_tokens: 64, multiple_tokens: 16 };
        let batches = plan(&[17, 16, 3, 2], limits);
        let expected = [(vec![0, 1], 32), (vec![2, 3], 16)]
            .map(|(texts, row_tokens)| Batch { texts, row_tokens });
        assert_eq!(batches, expected);
    }

    proptest! {
        #[test]
        fn every_text_goes_once_and_fits(
            lengths in prop::collection::vec(1usize..40, 0..60),
            max_tokens in 1usize..100,
            multiple_tokens in 1usize..9,
        ) {
            let limits = RunLimits { max_tokens, multiple_tokens };
            let batches = plan(&lengths, limits);
            let mut texts: Vec<usize> = Vec::new();
            for batch in &batches {
                let tokens = batch.texts.len() * batch.row_tokens;
                prop_assert!(tokens <= max_tokens || batch.texts.len() == 1);
                prop_assert_eq!(batch.row_tokens % multiple_tokens, 0);
                prop_assert!(batch.texts.iter().all(|&text| lengths[text] <= batch.row_tokens));
                texts.extend(&batch.texts);
            }
            texts.sort_unstable();
            prop_assert_eq!(texts, (0..lengths.len()).collect::<Vec<_>>());
        }
    }
}
