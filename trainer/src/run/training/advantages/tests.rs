//! Every estimator on one step, with values computed by hand.

use OutcomeEstimator as Outcome;

use super::*;

/// Four trajectories of two questions. The penalties of the last one take 0.25 off its score of 0.5, so the sums of
/// the token rewards are 1, 0, 0.5 and 0.25. The second one has an observation after its first sampled token.
const SCORES: [f64; 4] = [1.0, 0.0, 0.5, 0.5];
const GROUPS: [usize; 4] = [0, 0, 1, 1];
const MASKS: [&[bool]; 4] =
    [&[false, true], &[false, true, false, true, true], &[false, true, true], &[false, true, true]];
const RESPONSES: [&[bool]; 4] = [MASKS[0], &[false, true, true, true, true], MASKS[2], MASKS[3]];
const HALF: Discount = Discount { gamma: 0.5, lambda: 0.5 };

fn penalties() -> [Vec<f64>; 4] {
    [vec![0.0], vec![0.0; 3], vec![0.0; 2], vec![0.25, 0.0]]
}

fn outcome(estimator: OutcomeEstimator) -> Estimator<Values> {
    Estimator::Outcome { estimator, normalise_by_std: true }
}

fn gae(steps: GaeSteps, masks: [&[bool]; 4], values: [&[f32]; 4]) -> Estimator<Values> {
    let valued =
        |(mask, values): (&[bool], &[f32])| Valued { mask: mask.to_vec(), values: values.to_vec() };
    let critic = masks.into_iter().zip(values).map(valued).collect();
    Estimator::Gae { discount: HALF, steps, critic }
}

fn estimate(estimator: &Estimator<Values>) -> Targets {
    let penalties = penalties();
    let rewards =
        StepRewards { scores: &SCORES, groups: &GROUPS, masks: &MASKS, penalties: &penalties };
    advantages(&rewards, estimator)
}

/// Returns the advantages of trajectories at each of their tokens.
fn spread(advantages: [f64; 4]) -> Vec<Vec<f64>> {
    advantages.iter().zip(penalties()).map(|(&one, tokens)| vec![one; tokens.len()]).collect()
}

fn is_close(actual: &[Vec<f32>], expected: &[Vec<f64>]) -> bool {
    actual.len() == expected.len()
        && actual.iter().zip(expected).all(|(actual, expected)| {
            actual.len() == expected.len()
                && actual
                    .iter()
                    .zip(expected)
                    .all(|(&actual, expected)| (f64::from(actual) - expected).abs() < 1e-5)
        })
}

/// The name of an estimator, the estimator, and its advantages.
type Case = (&'static str, Estimator<Values>, Vec<Vec<f64>>);

/// Returns each estimator with its advantages. No two are alike, so that none can stand in for another.
fn table() -> Vec<Case> {
    vec![
        // Means 0.5 and 0.375, unbiased deviations sqrt(0.5) and sqrt(0.03125), each with 1e-6 added:
        // 0.5 / 0.7071078 and 0.125 / 0.1767777.
        (
            "grpo",
            outcome(Outcome::Grpo),
            spread([0.707_105_8, -0.707_105_8, 0.707_102_8, -0.707_102_8]),
        ),
        // The distances themselves, also with `normalise_by_std`.
        ("dr-grpo", outcome(Outcome::DrGrpo), spread([0.5, -0.5, 0.125, -0.125])),
        // Each less the other one.
        ("rloo", outcome(Outcome::Rloo), spread([1.0, -1.0, 0.25, -0.25])),
        // The first question's mean by tokens is (1 * 1 + 3 * 0) / 4; the second's lengths are equal.
        ("opo", outcome(Outcome::Opo), spread([0.75, -0.25, 0.125, -0.125])),
        // Three of four scores are not 0: the distances times 4 / 3.
        ("gpg", outcome(Outcome::Gpg), spread([2.0 / 3.0, -2.0 / 3.0, 1.0 / 6.0, -1.0 / 6.0])),
        ("reinforce", outcome(Outcome::Reinforce), spread([1.0, 0.0, 0.5, 0.25])),
        // The mean of the step is 1.75 / 4.
        (
            "reinforce-baseline",
            outcome(Outcome::ReinforceBaseline),
            spread([0.5625, -0.4375, 0.0625, -0.1875]),
        ),
        // The distances at 1, 3, 2 and 2 tokens have mean -0.125 and variance 0.9375 / 7.
        (
            "reinforce++-baseline",
            outcome(Outcome::ReinforcePlusPlusBaseline),
            spread([1.707_825_1, -1.024_695_0, 0.683_130_0, 0.0]),
        ),
        // Returns 1 | 0, 0, 0 | 0.25, 0.5 | -0.25 + 0.5 * 0.5, 0.5: mean 0.28125, variance 0.1328125.
        (
            "reinforce++",
            Estimator::ReinforcePlusPlus { gamma: 0.5 },
            vec![
                vec![1.972_233_7],
                vec![-0.771_743_6; 3],
                vec![-0.085_749_3, 0.600_245_0],
                vec![-0.771_743_6, 0.600_245_0],
            ],
        ),
        // A = r + 0.5 V' - V + 0.25 A', from the end: 0.5 | -0.421875, -0.1875, -0.25 | 0, 0 | -0.0625, 0.25.
        // Mean -0.0214844, variance 0.0840498.
        (
            "gae",
            gae(GaeSteps::Masked, MASKS, [&[0.5], &[0.5, 0.25, 0.25], &[0.25, 0.5], &[0.0, 0.25]]),
            vec![
                vec![1.798_759_1],
                vec![-1.381_069_7, -0.572_638_7, -0.788_220_3],
                vec![0.074_106_2; 2],
                vec![-0.141_475_4, 0.936_432_7],
            ],
        ),
        // The observation has the value 1 and is a step: the second row is -0.23046875, -0.921875, -0.1875, -0.25.
        // It is whitened with the others, mean -0.1002604 and variance 0.1533203, and then left out.
        (
            "gae over observations",
            gae(
                GaeSteps::All,
                RESPONSES,
                [&[0.5], &[0.5, 1.0, 0.25, 0.25], &[0.25, 0.5], &[0.0, 0.25]],
            ),
            vec![
                vec![1.532_991_8],
                vec![-0.332_536_2, -0.222_799_2, -0.382_416_6],
                vec![0.256_052_9; 2],
                vec![0.096_435_5, 0.894_522_4],
            ],
        ),
    ]
}

#[test]
fn every_estimator_and_no_other() {
    let table = table();
    for (name, estimator, _) in &table {
        let actual = estimate(estimator).advantages;
        for (expected_name, _, expected) in &table {
            assert_eq!(is_close(&actual, expected), name == expected_name, "{name}: {actual:?}");
        }
    }
}

#[test]
fn grpo_without_the_deviation_is_dr_grpo() {
    let estimator =
        Estimator::Outcome { estimator: OutcomeEstimator::Grpo, normalise_by_std: false };
    let expected = spread([0.5, -0.5, 0.125, -0.125]);
    assert!(is_close(&estimate(&estimator).advantages, &expected));
}

/// A return is an unwhitened advantage and its value.
#[test]
fn the_critic_learns_the_returns_of_valued_tokens() {
    let values: [&[f32]; 4] = [&[0.5], &[0.5, 0.25, 0.25], &[0.25, 0.5], &[0.0, 0.25]];
    let estimates = estimate(&gae(GaeSteps::Masked, MASKS, values));
    let expected = [vec![1.0], vec![0.078_125, 0.0625, 0.0], vec![0.25, 0.5], vec![-0.0625, 0.5]];
    assert!(is_close(&estimates.returns, &expected), "{:?}", estimates.returns);
    assert!(estimate(&outcome(OutcomeEstimator::Grpo)).returns.is_empty());
}

/// The others of its group were lost to failed searches.
#[test]
fn a_lone_trajectory_has_nothing_to_be_compared_with() {
    let penalties = [vec![0.0; 2], vec![0.0], vec![0.0]];
    let rewards = StepRewards {
        scores: &[0.5, 1.0, 0.0],
        groups: &[4, 7, 7],
        masks: &[&[false, true, true], &[false, true], &[false, true]],
        penalties: &penalties,
    };
    for (estimator, expected) in [
        (Outcome::Grpo, [0.0, 0.0]),
        (Outcome::DrGrpo, [0.0, 0.0]),
        (Outcome::Rloo, [0.0, 0.0]),
        (Outcome::Opo, [0.0, 0.0]),
        (Outcome::Gpg, [0.0, 0.0]),
        (Outcome::ReinforcePlusPlusBaseline, [0.0, 0.0]),
        (Outcome::Reinforce, [0.5, 0.5]),
    ] {
        let estimates = advantages(&rewards, &outcome(estimator));
        assert_eq!(estimates.advantages[0], expected, "{estimator:?}");
        assert!(estimates.advantages[1][0] > 0.0, "{estimator:?}");
    }
}

/// A prompt of two tokens, one sampled, two observed, one sampled, one observed.
#[test]
fn the_score_falls_to_the_last_valued_token() {
    let mask = [false, false, true, false, false, true, false];
    let response = [false, false, true, true, true, true, true];
    let rewards = |valued: &[bool]| valued_rewards(&mask, valued, &[0.25, 0.5], 1.0);
    assert_eq!(rewards(&mask), [-0.25, 0.5]);
    assert_eq!(rewards(&response), [-0.25, 0.0, 0.0, -0.5, 1.0]);
    let numbers = [1.0, 2.0, 3.0, 4.0, 5.0];
    assert_eq!(at_trained_tokens(&mask, &response, &numbers), [1.0, 4.0]);
    assert_eq!(at_trained_tokens(&mask, &mask, &numbers[..2]), [1.0, 2.0]);
}

#[test]
fn a_step_of_one_token_is_not_whitened() {
    assert_eq!(whitened(vec![vec![3.0], vec![]]), vec![vec![3.0], vec![]]);
    let rows = whitened(vec![vec![1.0, 0.0]]);
    assert!((rows[0][0] - 0.5_f64.sqrt()).abs() < 1e-6, "{rows:?}");
}
