//! The order of the questions of several files: a pure function of seed and position.
//!
//! Positions come in blocks. In each block, every file has the same number of positions, by its weight, in an order
//! that the seed decides. A file's questions are gone through again and again, each time in another order. A question
//! of weight w stands in an epoch w times on average: w is 1 unless a file of weights says otherwise.
//!
//! Invariant: the question at a position depends on nothing but the seed, the files and the weights, so that a resumed
//! run needs no more than its position.

use shared::contract::splitmix;

use super::question_order::shuffled;

/// Positions of a block, which is also the fineness of the shares of files.
const BLOCK: usize = 1024;
/// Separates the random draws of files, of blocks and of weights from each other.
const BLOCK_STREAM: u64 = 1 << 63;
const PHASE_STREAM: u64 = 0x70_68_61_73_65;

/// The training questions of one file, or of several that count as one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Source {
    /// Number of questions.
    pub(crate) questions: usize,
    /// Weight of the file among the others.
    pub(crate) weight: f64,
    /// Weight of each question; none if all have 1.
    pub(crate) question_weights: Vec<f64>,
}

/// The endless order of the questions of all sources.
#[derive(Clone, Debug)]
pub(crate) struct Mixture {
    seed: u64,
    sources: Vec<Source>,
    /// Positions of each source in a block.
    shares: Vec<usize>,
}

impl Mixture {
    /// Mixes sources with at least one question, whose weights are positive.
    pub(crate) fn new(seed: u64, sources: Vec<Source>) -> Self {
        let shares = shares(&sources);
        Self { seed, sources, shares }
    }

    /// Returns the number of questions.
    #[cfg(test)]
    pub(crate) fn questions(&self) -> usize {
        self.sources.iter().map(|source| source.questions).sum()
    }

    /// Returns the indices of the questions at `count` positions from `first` on.
    pub(crate) fn questions_from(&self, first: u64, count: usize) -> Vec<usize> {
        let mut epochs: Vec<Epochs<'_>> = self.epochs();
        let mut block: Option<(u64, Vec<usize>)> = None;
        let positions = first..first + count as u64;
        positions.map(|position| self.question_at(position, &mut block, &mut epochs)).collect()
    }

    fn question_at(
        &self,
        position: u64,
        block: &mut Option<(u64, Vec<usize>)>,
        epochs: &mut [Epochs<'_>],
    ) -> usize {
        if let [only] = epochs {
            return only.question_at(position);
        }
        let number = position / BLOCK as u64;
        let (_, labels) = match block.take() {
            Some(known) if known.0 == number => block.insert(known),
            _ => block.insert((number, self.labels(number))),
        };
        let offset = (position % BLOCK as u64) as usize;
        let source = labels[offset];
        let before = labels[..offset].iter().filter(|&&label| label == source).count();
        let within = number * self.shares[source] as u64 + before as u64;
        epochs[source].question_at(within)
    }

    /// Returns the source of each position of a block.
    fn labels(&self, number: u64) -> Vec<usize> {
        let labels = self.shares.iter().enumerate();
        let labels: Vec<usize> =
            labels.flat_map(|(source, &share)| std::iter::repeat_n(source, share)).collect();
        let order = shuffled(self.seed, BLOCK_STREAM | number, BLOCK);
        order.into_iter().map(|index| labels[index]).collect()
    }

    fn epochs(&self) -> Vec<Epochs<'_>> {
        let mut first = 0;
        let sources = self.sources.iter().enumerate();
        sources
            .map(|(number, source)| {
                let epochs = Epochs {
                    source,
                    // The first source has the seed itself: alone, it has the order of a single file.
                    seed: self.seed ^ (number as u64).wrapping_mul(splitmix::INCREMENT),
                    first_question: first,
                    epoch: 0,
                    start: 0,
                    order: None,
                };
                first += source.questions;
                epochs
            })
            .collect()
    }
}

/// Divides a block among sources by their weights (largest remainder), at least one position each.
fn shares(sources: &[Source]) -> Vec<usize> {
    let total: f64 = sources.iter().map(|source| source.weight).sum();
    let exact = sources.iter().map(|source| source.weight / total * BLOCK as f64);
    let exact: Vec<f64> = exact.collect();
    let mut shares: Vec<usize> = exact.iter().map(|share| (*share as usize).max(1)).collect();
    let lacking = |shares: &[usize], source: usize| exact[source] - shares[source] as f64;
    while shares.iter().sum::<usize>() != BLOCK {
        let is_short = shares.iter().sum::<usize>() < BLOCK;
        let candidates = (0..shares.len()).filter(|&source| is_short || shares[source] > 1);
        // The first of equals, so that the result is certain.
        let ordered = |a: &usize, b: &usize| {
            let by_lack = lacking(&shares, *a).total_cmp(&lacking(&shares, *b));
            by_lack.then(b.cmp(a))
        };
        let chosen = if is_short { candidates.max_by(ordered) } else { candidates.min_by(ordered) };
        let Some(chosen) = chosen else { break };
        if is_short {
            shares[chosen] += 1;
        } else {
            shares[chosen] -= 1;
        }
    }
    shares
}

/// The epochs of one source, gone through with rising positions.
struct Epochs<'m> {
    source: &'m Source,
    seed: u64,
    /// Index of the source's first question among all.
    first_question: usize,
    epoch: u64,
    /// Position of the epoch's first question.
    start: u64,
    order: Option<Vec<usize>>,
}

impl Epochs<'_> {
    fn question_at(&mut self, position: u64) -> usize {
        if self.source.question_weights.is_empty() {
            let questions = self.source.questions as u64;
            let epoch = position / questions;
            if epoch != self.epoch {
                (self.epoch, self.order) = (epoch, None);
            }
            let order =
                self.order.get_or_insert_with(|| shuffled(self.seed, epoch, self.source.questions));
            return self.first_question + order[(position % questions) as usize];
        }
        loop {
            let (seed, epoch) = (self.seed, self.epoch);
            let order = self.order.get_or_insert_with(|| weighted(self.source, seed, epoch));
            let offset = position - self.start;
            if let Some(&question) = order.get(offset as usize) {
                return self.first_question + question;
            }
            self.start += order.len() as u64;
            (self.epoch, self.order) = (epoch + 1, None);
        }
    }
}

/// Returns the questions of an epoch in their order, each as often as its weight asks for: a weight of 0.25 in one of
/// four epochs, of 1.5 once and twice in turns.
fn weighted(source: &Source, seed: u64, epoch: u64) -> Vec<usize> {
    let mut listed = Vec::new();
    for (question, weight) in source.question_weights.iter().enumerate() {
        let mut state = seed ^ PHASE_STREAM ^ (question as u64).rotate_left(20);
        // Questions of one weight do not all stand in the same epochs.
        let phase = (splitmix::next(&mut state) >> 11) as f64 / (1_u64 << 53) as f64;
        let up_to = |epochs: u64| (epochs as f64 * weight + phase).floor() as u64;
        let times = up_to(epoch + 1) - up_to(epoch);
        listed.extend(std::iter::repeat_n(question, times as usize));
    }
    let order = shuffled(seed, epoch, listed.len());
    order.into_iter().map(|index| listed[index]).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::run::question_order::questions_from;

    fn source(questions: usize, weight: f64) -> Source {
        Source { questions, weight, question_weights: Vec::new() }
    }

    fn counts(mixture: &Mixture, first: u64, count: usize) -> Vec<usize> {
        let mut counts = vec![0; mixture.questions()];
        for question in mixture.questions_from(first, count) {
            counts[question] += 1;
        }
        counts
    }

    #[test]
    fn one_file_has_the_order_of_a_single_file() {
        let mixture = Mixture::new(3, vec![source(10, 5.0)]);
        assert_eq!(mixture.questions_from(7, 40), questions_from(3, 7, 40, 10));
    }

    #[test]
    fn files_have_their_shares_in_every_block() {
        let mixture = Mixture::new(1, vec![source(100, 3.0), source(7, 1.0)]);
        for block in 0..3 {
            let counts = counts(&mixture, block * BLOCK as u64, BLOCK);
            assert_eq!(counts[..100].iter().sum::<usize>(), 768);
            // 256 positions of seven questions: 36 or 37 times each, and one more or less where epochs begin before a block.
            assert!(counts[100..].iter().all(|count| (35..=38).contains(count)), "{counts:?}");
        }
        let tiny = Mixture::new(1, vec![source(1, 1e-9), source(1, 1.0), source(1, 1e-9)]);
        assert_eq!(tiny.shares, [1, 1022, 1]);
    }

    #[test]
    fn questions_stand_in_epochs_by_their_weights() {
        let weights = vec![1.0, 0.25, 0.0, 1.5, 0.25, 2.0];
        let mixture =
            Mixture::new(9, vec![Source { questions: 6, weight: 1.0, question_weights: weights }]);
        // 400 epochs of five questions on average.
        let counts = counts(&mixture, 0, 2000);
        for (count, expected) in counts.iter().zip([400, 100, 0, 600, 100, 800]) {
            assert!(count.abs_diff(expected) <= 2, "{counts:?}");
        }
        let ones = Source { questions: 5, weight: 1.0, question_weights: vec![1.0; 5] };
        let plain = Mixture::new(9, vec![source(5, 1.0)]);
        assert_eq!(Mixture::new(9, vec![ones]).questions_from(3, 40), plain.questions_from(3, 40));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        /// What a resumed run asks is what the uninterrupted one asked.
        #[test]
        fn a_position_alone_decides(
            seed: u64,
            sizes in prop::collection::vec((1_usize..40, 1_u32..9, any::<bool>()), 1..4),
            first in 0_u64..3000,
            count in 1_usize..50,
        ) {
            let sources = sizes.iter().map(|&(questions, weight, weighted)| Source {
                questions,
                weight: f64::from(weight),
                question_weights: if weighted { vec![0.75; questions] } else { Vec::new() },
            });
            let mixture = Mixture::new(seed, sources.collect());
            let all = mixture.questions_from(0, first as usize + count);
            prop_assert_eq!(&all[first as usize..], &mixture.questions_from(first, count)[..]);
        }
    }
}
