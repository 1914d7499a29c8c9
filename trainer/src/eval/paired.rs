//! The comparison of two evaluations of the same questions: paired differences, their intervals, McNemar's test, and the
//! questions that flipped. Pure functions of rows and a seed.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use shared::contract::splitmix;

use super::result::EvalRow;
use super::statistics::Interval;

/// Number of samples of the bootstrap.
const RESAMPLES: usize = 10_000;
/// The parts of the sampled distribution below and above a 95 % interval.
const TAIL: f64 = 0.025;

/// A mean paired difference, `after` minus `before`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairedDifference {
    pub before: f64,
    pub after: f64,
    /// Mean of the differences.
    pub difference: f64,
    /// 95 % interval by the percentile bootstrap over questions (B. Efron, The Annals of Statistics 7, 1979).
    pub interval: Interval,
}

/// A question whose exact match changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flip {
    pub id: String,
    pub question: String,
    pub golden_answers: Vec<String>,
    pub before: Option<String>,
    pub after: Option<String>,
}

/// Two evaluations of the same questions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pairing {
    /// Questions that both asked.
    pub questions: usize,
    /// Questions that only one of them asked.
    pub unpaired: usize,
    pub em: PairedDifference,
    pub f1: PairedDifference,
    pub searches: PairedDifference,
    /// Two-sided p-value of McNemar's exact test on exact match (Q. McNemar, Psychometrika 12, 1947).
    pub mcnemar_p: f64,
    /// Questions that became right, in the order of the first evaluation.
    pub gained: Vec<Flip>,
    /// Questions that became wrong.
    pub lost: Vec<Flip>,
}

/// Pairs rows by id and question. `None` if no question is in both.
pub fn pair(before: &[EvalRow], after: &[EvalRow], seed: u64) -> Option<Pairing> {
    let key = |row: &EvalRow| (row.example_id.clone(), row.question.clone());
    let by_key: HashMap<_, &EvalRow> = after.iter().map(|row| (key(row), row)).collect();
    let pairs: Vec<(&EvalRow, &EvalRow)> =
        before.iter().filter_map(|row| Some((row, *by_key.get(&key(row))?))).collect();
    if pairs.is_empty() {
        return None;
    }
    let measured = |measure: &dyn Fn(&EvalRow) -> f64| {
        let values: Vec<(f64, f64)> =
            pairs.iter().map(|(first, second)| (measure(first), measure(second))).collect();
        difference(&values, seed)
    };
    let flips = |is_right_after: bool| -> Vec<Flip> {
        let changed = pairs
            .iter()
            .filter(|(first, second)| first.em != second.em && second.em == is_right_after);
        changed
            .map(|(first, second)| Flip {
                id: first.example_id.clone(),
                question: first.question.clone(),
                golden_answers: first.golden_answers.clone(),
                before: first.prediction.clone(),
                after: second.prediction.clone(),
            })
            .collect()
    };
    let (gained, lost) = (flips(true), flips(false));
    Some(Pairing {
        questions: pairs.len(),
        unpaired: before.len() + after.len() - 2 * pairs.len(),
        em: measured(&|row| f64::from(u8::from(row.em))),
        f1: measured(&|row| row.f1),
        searches: measured(&|row| row.searches as f64),
        mcnemar_p: mcnemar(gained.len(), lost.len()),
        gained,
        lost,
    })
}

/// Returns the mean difference of pairs, which must not be empty, with its bootstrap interval.
fn difference(pairs: &[(f64, f64)], seed: u64) -> PairedDifference {
    let count = pairs.len() as f64;
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / count;
    let differences: Vec<f64> = pairs.iter().map(|(before, after)| after - before).collect();
    PairedDifference {
        before: mean(&mut pairs.iter().map(|pair| pair.0)),
        after: mean(&mut pairs.iter().map(|pair| pair.1)),
        difference: mean(&mut differences.iter().copied()),
        interval: bootstrap(&[&differences], seed),
    }
}

/// Returns the 95 % interval of the mean of the groups' means: each sample draws with replacement within each group.
/// With one group it is that of its mean. No group is empty.
pub fn bootstrap(groups: &[&[f64]], seed: u64) -> Interval {
    let mut state = splitmix::finalise(seed ^ splitmix::INCREMENT);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let of_groups = groups.iter().map(|values| {
                let drawn = (0..values.len())
                    .map(|_| values[(splitmix::next(&mut state) % values.len() as u64) as usize]);
                drawn.sum::<f64>() / values.len() as f64
            });
            of_groups.sum::<f64>() / groups.len() as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    let at = |share: f64| means[((share * RESAMPLES as f64) as usize).min(RESAMPLES - 1)];
    Interval { low: at(TAIL), high: at(1.0 - TAIL) }
}

/// Returns the two-sided p-value of McNemar's exact test: under the null hypothesis a question that flips becomes right
/// or wrong with equal probability.
pub fn mcnemar(gained: usize, lost: usize) -> f64 {
    let (flips, fewer) = (gained + lost, gained.min(lost));
    // The logarithm of the probability of the current number of heads in `flips` throws.
    let mut log_probability = -(flips as f64) * std::f64::consts::LN_2;
    let mut tail = log_probability.exp();
    for heads in 1..=fewer {
        log_probability += (((flips - heads + 1) as f64) / heads as f64).ln();
        tail += log_probability.exp();
    }
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::super::result::tests::result;
    use super::*;

    #[track_caller]
    fn close(actual: f64, expected: f64) {
        assert!((actual - expected).abs() < 1e-9, "{actual} is not {expected}");
    }

    #[test]
    fn mcnemar_is_the_binomial_test_on_the_flips() {
        // Values of a two-sided binomial test with p = 1/2, computed by hand as sums of binomial coefficients.
        close(mcnemar(0, 0), 1.0);
        close(mcnemar(5, 5), 1.0);
        close(mcnemar(0, 5), 2.0 / 32.0);
        close(mcnemar(1, 9), 22.0 / 1024.0);
        close(mcnemar(9, 1), 22.0 / 1024.0);
        // Far more flips than 2^-n can hold as a product.
        assert!(mcnemar(1200, 1300) > 0.04 && mcnemar(1200, 1300) < 0.05);
        assert!(mcnemar(3000, 100) < 1e-100);
    }

    #[test]
    fn differences_are_paired_and_repeat_with_their_seed() {
        let (before, after) = (result("before", 40, 200).rows, result("after", 90, 200).rows);
        let pairing = pair(&before, &after, 3).unwrap();
        assert_eq!((pairing.questions, pairing.unpaired), (200, 0));
        close(pairing.em.before, 0.2);
        close(pairing.em.difference, 0.25);
        close(pairing.f1.difference, 0.25);
        close(pairing.searches.difference, 0.0);
        // The standard error of 50 ones among 200 is 0.0307; the interval of the pairs is about twice as wide each side.
        let Interval { low, high } = pairing.em.interval;
        assert!((0.17..0.21).contains(&low) && (0.29..0.33).contains(&high), "{low} to {high}");
        assert_eq!((pairing.gained.len(), pairing.lost.len()), (50, 0));
        assert_eq!(pairing.gained[0].id, "q40");
        assert_eq!(pair(&before, &after, 3), Some(pairing.clone()));
        // The other way round, gains are losses.
        let back = pair(&after, &before, 3).unwrap();
        assert_eq!((back.gained.len(), back.lost.len()), (0, 50));
        close(back.em.difference, -0.25);
    }

    #[test]
    fn questions_of_one_side_only_are_counted_and_left_out() {
        let before = result("before", 3, 10).rows;
        let mut after = result("after", 5, 12).rows;
        after[0].question = "another?".to_owned();
        let pairing = pair(&before, &after, 1).unwrap();
        assert_eq!((pairing.questions, pairing.unpaired), (9, 4));
        assert_eq!(pair(&before[..1], &after[1..], 1), None);
    }

    #[test]
    fn groups_weigh_the_same_whatever_their_size() {
        let (ones, zeros) = (vec![1.0; 10], vec![0.0; 1000]);
        let interval = bootstrap(&[&ones, &zeros], 1);
        assert_eq!(interval, Interval { low: 0.5, high: 0.5 });
    }
}
