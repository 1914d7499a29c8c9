//! Batches of texts for the model. A batch has texts of similar length, which keeps padding small, and
//! at most a given number of tokens, which bounds memory.

use super::session::GraphShape;
use crate::device::Provider;

/// The limits of one run of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunLimits {
    /// The most tokens, including padding. A longer text gets a run of its own.
    pub(super) max_tokens: usize,
    /// The number of tokens of which every row length is a multiple.
    pub(super) multiple_tokens: usize,
    /// The most texts.
    pub(super) max_texts: usize,
    /// The number of tokens of every row, if the graph fixes it.
    pub(super) row_tokens: Option<usize>,
}

/// The limits that a graph sets for its runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GraphLimits {
    /// The most texts of a run; one if the answer for a text would depend on the others.
    pub(super) max_texts: usize,
    /// The number of tokens of every row, if the graph fixes it.
    pub(super) row_tokens: Option<usize>,
}

impl GraphLimits {
    /// Returns the limits of a graph. `is_dynamic` is `true` if it quantises activations while it runs.
    pub(super) fn new(shape: GraphShape, is_dynamic: bool) -> Self {
        // Without a mask, padding would count as text.
        let is_alone = is_dynamic || !shape.has_mask;
        let max_texts = if is_alone { 1 } else { shape.texts.unwrap_or(usize::MAX) };
        Self { max_texts, row_tokens: shape.tokens }
    }
}

impl RunLimits {
    /// Chooses limits for texts of these lengths in tokens, whose runs are shared by `sessions`.
    ///
    /// On a CPU, small runs are faster, because their values stay in its cache, and no session waits
    /// long for the last run of another. A GPU needs large runs and few different shapes, because its
    /// allocator keeps memory for each shape.
    pub(super) fn new(
        provider: Provider,
        sessions: usize,
        lengths: &[usize],
        graph: GraphLimits,
    ) -> Self {
        let (max_tokens, multiple_tokens) = match provider {
            Provider::Cpu if sessions > 1 => {
                let share = lengths.iter().sum::<usize>() / (sessions * RUNS_PER_SESSION);
                (share.clamp(MIN_TOKENS_CPU, MAX_TOKENS_CPU), 1)
            }
            Provider::Cpu => (MAX_TOKENS_CPU, 1),
            Provider::Cuda(_) => (16_384, 16),
        };
        let GraphLimits { max_texts, row_tokens } = graph;
        // A lone text gets no padding, which its answer might depend on.
        let multiple_tokens = if max_texts == 1 { 1 } else { multiple_tokens };
        Self { max_tokens, multiple_tokens, max_texts, row_tokens }
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
        let row_tokens = limits.row_tokens.unwrap_or(row_tokens);
        let fits = |batch: &Batch| {
            let texts = batch.texts.len() + 1;
            texts <= limits.max_texts && texts * batch.row_tokens <= limits.max_tokens
        };
        match batches.last_mut() {
            Some(batch) if fits(batch) => batch.texts.push(text),
            _ => batches.push(Batch { texts: vec![text], row_tokens }),
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FREE: GraphLimits = GraphLimits { max_texts: usize::MAX, row_tokens: None };

    fn limits(max_tokens: usize, multiple_tokens: usize) -> RunLimits {
        RunLimits { max_tokens, multiple_tokens, max_texts: usize::MAX, row_tokens: None }
    }

    #[test]
    fn texts_of_similar_length_go_together() {
        let limits = limits(20, 1);
        let batches = plan(&[5, 30, 4, 9, 10], limits);
        let expected = [(vec![1], 30), (vec![4, 3], 10), (vec![0, 2], 5)]
            .map(|(texts, row_tokens)| Batch { texts, row_tokens });
        assert_eq!(batches, expected);
        assert_eq!(plan(&[], limits), []);
    }

    #[test]
    fn sessions_share_the_tokens() {
        let max_tokens = |provider, sessions, texts, tokens| {
            RunLimits::new(provider, sessions, &vec![tokens; texts], FREE).max_tokens
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
        let batches = plan(&[17, 16, 3, 2], limits(64, 16));
        let expected = [(vec![0, 1], 32), (vec![2, 3], 16)]
            .map(|(texts, row_tokens)| Batch { texts, row_tokens });
        assert_eq!(batches, expected);
    }

    #[test]
    fn a_graph_limits_its_runs() {
        let shape = GraphShape {
            texts: None,
            tokens: None,
            has_mask: true,
            output: crate::encode::outputs::OutputKind::Pooled,
        };
        assert_eq!(GraphLimits::new(shape, false), FREE);
        let alone = GraphLimits { max_texts: 1, row_tokens: None };
        assert_eq!(GraphLimits::new(shape, true), alone);
        assert_eq!(GraphLimits::new(GraphShape { has_mask: false, ..shape }, false), alone);
        assert_eq!(GraphLimits::new(GraphShape { texts: Some(1), ..shape }, false), alone);
        let fixed = GraphShape { texts: Some(2), tokens: Some(40), ..shape };
        let fixed = GraphLimits::new(fixed, false);
        assert_eq!(fixed, GraphLimits { max_texts: 2, row_tokens: Some(40) });
        let lengths = [5, 7, 5];
        let cuda = RunLimits::new(Provider::Cuda(0), 1, &lengths, alone);
        let batch = |texts: &[usize], row_tokens| Batch { texts: texts.to_vec(), row_tokens };
        assert_eq!(plan(&lengths, cuda), [batch(&[1], 7), batch(&[0], 5), batch(&[2], 5)]);
        let cuda = RunLimits::new(Provider::Cuda(0), 1, &lengths, fixed);
        assert_eq!(plan(&lengths, cuda), [batch(&[1, 0], 40), batch(&[2], 40)]);
    }

    proptest! {
        #[test]
        fn every_text_goes_once_and_fits(
            lengths in prop::collection::vec(1usize..40, 0..60),
            max_tokens in 1usize..100,
            multiple_tokens in 1usize..9,
        ) {
            let batches = plan(&lengths, limits(max_tokens, multiple_tokens));
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
