//! Choosing a token from log-probs, with draws decided by counters alone.

use shared::contract::splitmix;

use super::{Sampling, SamplingKey};

/// A chosen token and its log-prob before top-p.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// The token id.
    pub token: u32,
    /// The log-prob at the sampling temperature.
    pub log_prob: f32,
}

/// Chooses a token from one row of log-probs, taken at the sampling temperature, and their exponentials.
/// `position` is the token's position in its sequence.
pub(super) fn choose(
    log_probs: &[f32],
    probabilities: &[f32],
    sampling: Sampling,
    key: SamplingKey,
    position: u64,
) -> Choice {
    if sampling.temperature <= 0.0 {
        return choose_greedy(log_probs);
    }
    let draw = uniform(key, position);
    let token = if sampling.top_p < 1.0 {
        choose_top_p(probabilities, f64::from(sampling.top_p), draw)
    } else {
        choose_by_sum(probabilities, draw)
    };
    Choice { token: token as u32, log_prob: log_probs[token] }
}

fn choose_greedy(log_probs: &[f32]) -> Choice {
    let mut best = 0;
    for (token, &log_prob) in log_probs.iter().enumerate() {
        if log_prob > log_probs[best] {
            best = token;
        }
    }
    Choice { token: best as u32, log_prob: log_probs[best] }
}

/// Inverts the cumulative distribution. It sums blocks first and then searches the block that holds the draw,
/// so most of the vocabulary is only summed.
fn choose_by_sum(probabilities: &[f32], draw: f64) -> usize {
    const BLOCK: usize = 256;
    let sums: Vec<f64> =
        probabilities.chunks(BLOCK).map(|block| f64::from(block.iter().sum::<f32>())).collect();
    let mut rest = draw * sums.iter().sum::<f64>();
    let mut chosen = None;
    for (index, &sum) in sums.iter().enumerate() {
        if sum <= 0.0 {
            continue;
        }
        chosen = Some(index);
        if rest < sum {
            break;
        }
        rest -= sum;
    }
    let start = chosen.unwrap_or(0) * BLOCK;
    let end = (start + BLOCK).min(probabilities.len());
    let mut token = start;
    for (offset, &probability) in probabilities[start..end].iter().enumerate() {
        let probability = f64::from(probability);
        if probability <= 0.0 {
            continue;
        }
        token = start + offset;
        if rest < probability {
            break;
        }
        rest -= probability;
    }
    token
}

/// Samples from the smallest set of most likely tokens whose probabilities reach `top_p`.
fn choose_top_p(probabilities: &[f32], top_p: f64, draw: f64) -> usize {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&left, &right| {
        probabilities[right].total_cmp(&probabilities[left]).then(left.cmp(&right))
    });
    let mut total = 0.0;
    let mut kept = 0;
    for &token in &order {
        total += f64::from(probabilities[token]);
        kept += 1;
        if total >= top_p {
            break;
        }
    }
    let mut rest = draw * total;
    for &token in &order[..kept] {
        let probability = f64::from(probabilities[token]);
        if rest < probability {
            return token;
        }
        rest -= probability;
    }
    order[kept - 1]
}

/// Returns a uniform number in [0, 1) that depends on the counters alone.
pub(super) fn uniform(key: SamplingKey, position: u64) -> f64 {
    let mut state = splitmix::INCREMENT;
    for counter in [key.seed, key.step, key.prompt, key.sample, position] {
        state = splitmix::finalise(state ^ counter).wrapping_add(splitmix::INCREMENT);
    }
    splitmix::unit(splitmix::finalise(state))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: SamplingKey = SamplingKey { seed: 7, step: 1, prompt: 2, sample: 3 };

    fn pick(weights: &[f32], sampling: Sampling, position: u64) -> Choice {
        let total: f32 = weights.iter().sum();
        let probabilities: Vec<f32> = weights.iter().map(|weight| weight / total).collect();
        let log_probs: Vec<f32> = probabilities.iter().map(|value| value.ln()).collect();
        choose(&log_probs, &probabilities, sampling, KEY, position)
    }

    fn shares(sampling: Sampling, weights: &[f32], draws: u64) -> Vec<f64> {
        let mut counts = vec![0_u64; weights.len()];
        for position in 0..draws {
            counts[pick(weights, sampling, position).token as usize] += 1;
        }
        counts.iter().map(|&count| count as f64 / draws as f64).collect()
    }

    #[test]
    fn zero_temperature_takes_the_first_most_likely_token() {
        let greedy = Sampling { temperature: 0.0, top_p: 1.0 };
        let choice = pick(&[1.0, 3.0, 3.0], greedy, 0);
        assert_eq!(choice, Choice { token: 1, log_prob: (3.0_f32 / 7.0).ln() });
    }

    #[test]
    fn shares_follow_the_probabilities() {
        let mut weights = vec![0.0_f32; 1000];
        (weights[3], weights[255], weights[256], weights[999]) = (0.5, 0.2, 0.2, 0.1);
        let shares = shares(Sampling { temperature: 1.0, top_p: 1.0 }, &weights, 20_000);
        for (token, expected) in [(3, 0.5), (255, 0.2), (256, 0.2), (999, 0.1)] {
            assert!((shares[token] - expected).abs() < 0.015, "{token}: {}", shares[token]);
        }
    }

    #[test]
    fn top_p_keeps_the_smallest_set_that_reaches_it() {
        let shares = shares(Sampling { temperature: 1.0, top_p: 0.7 }, &[0.1, 0.6, 0.3], 5_000);
        assert!(shares[0].abs() < f64::EPSILON);
        assert!((shares[1] - 2.0 / 3.0).abs() < 0.03, "{}", shares[1]);
    }

    #[test]
    fn every_counter_changes_the_draw() {
        let changed = [
            SamplingKey { seed: 8, ..KEY },
            SamplingKey { step: 8, ..KEY },
            SamplingKey { prompt: 8, ..KEY },
            SamplingKey { sample: 8, ..KEY },
        ];
        let first = uniform(KEY, 5);
        assert!((uniform(KEY, 5) - first).abs() < f64::EPSILON);
        assert!((uniform(KEY, 6) - first).abs() > 1e-9);
        for key in changed {
            assert!((uniform(key, 5) - first).abs() > 1e-9, "{key:?}");
        }
    }
}
