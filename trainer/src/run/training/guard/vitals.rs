//! The figures of a step that fall or rise in a collapse, and their limits.

use serde::{Deserialize, Deserializer, Serialize};

use crate::track::StepMetrics;

/// The figures of a step that the guard watches. NaN stands for a figure that the step does not have, and raises no
/// alarm.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Vitals {
    /// Mean entropy at the sampled tokens, in nats.
    pub(crate) entropy: f64,
    /// Mean log-prob of the tokens with a positive advantage, in nats.
    pub(crate) positive_log_prob: f64,
    /// Mean divergence from the reference, in nats per token.
    pub(crate) kl: f64,
    /// L2 norm of the gradient before clipping.
    pub(crate) grad_norm: f64,
    /// Mean reward of the trajectories.
    pub(crate) reward: f64,
    /// Share of the groups whose trajectories all have one reward.
    pub(crate) uniform_groups: f64,
    /// Turns without a complete action, per trajectory.
    pub(crate) invalid_actions: f64,
    /// Searches per question.
    pub(crate) searches: f64,
    /// Share of the trajectories that were too long, out of turns or malformed.
    pub(crate) abnormal: f64,
}

impl From<&StepMetrics> for Vitals {
    fn from(metrics: &StepMetrics) -> Self {
        let share = |part: u64, whole: u64| part as f64 / whole as f64;
        // A step without an update, such as one of the critic's warm-up, has no figures of the policy.
        let is_updated = metrics.learning_rate > 0.0;
        let updated = |value: f64| if is_updated { value } else { f64::NAN };
        Self {
            entropy: updated(metrics.entropy),
            positive_log_prob: updated(metrics.algorithm.positive_log_prob),
            kl: updated(metrics.kl),
            grad_norm: updated(metrics.grad_norm),
            reward: metrics.reward_mean,
            uniform_groups: share(metrics.algorithm.uniform_groups, metrics.guard.groups),
            invalid_actions: share(metrics.invalid_actions, metrics.trajectories),
            searches: metrics.searches_per_question,
            abnormal: share(metrics.guard.abnormal_trajectories, metrics.trajectories),
        }
    }
}

impl Vitals {
    fn to_array(self) -> [f64; 9] {
        [
            self.entropy,
            self.positive_log_prob,
            self.kl,
            self.grad_norm,
            self.reward,
            self.uniform_groups,
            self.invalid_actions,
            self.searches,
            self.abnormal,
        ]
    }

    fn from_array(values: [f64; 9]) -> Self {
        let [
            entropy,
            positive_log_prob,
            kl,
            grad_norm,
            reward,
            uniform_groups,
            invalid_actions,
            searches,
            abnormal,
        ] = values;
        Self {
            entropy,
            positive_log_prob,
            kl,
            grad_norm,
            reward,
            uniform_groups,
            invalid_actions,
            searches,
            abnormal,
        }
    }
}

/// The mean of the first healthy steps. Sums are kept as bits, because decimal text might not read back to the same
/// number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Baseline {
    steps: u64,
    sums: [u64; 9],
}

impl Baseline {
    /// Returns the number of steps that the mean is of.
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// Adds a step, unless it lacks a figure.
    pub(super) fn add(&mut self, vitals: &Vitals) {
        let values = vitals.to_array();
        if values.iter().all(|value| value.is_finite()) {
            self.steps += 1;
            for (sum, value) in self.sums.iter_mut().zip(values) {
                *sum = (f64::from_bits(*sum) + value).to_bits();
            }
        }
    }

    fn mean(&self) -> Vitals {
        Vitals::from_array(self.sums.map(|sum| f64::from_bits(sum) / self.steps.max(1) as f64))
    }
}

/// The limits of the figures; 0 turns a limit off.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    /// Smallest entropy, as a share of the baseline's.
    pub(crate) entropy_fall: f64,
    /// Largest entropy, in nats.
    pub(crate) max_entropy: f64,
    /// Nats by which the log-prob of rewarded tokens may fall below the baseline's.
    pub(crate) log_prob_drop: f64,
    /// Largest divergence, in nats per token.
    pub(crate) max_kl: f64,
    /// Largest norm of the gradient, in multiples of the baseline's.
    pub(crate) grad_norm_rise: f64,
    /// Largest share of groups of one reward while the reward is below half of the baseline's.
    pub(crate) uniform_share: f64,
    /// Rise of the invalid actions per trajectory above the baseline's.
    pub(crate) invalid_rise: f64,
    /// Smallest number of searches per question, as a share of the baseline's.
    pub(crate) searches_fall: f64,
    /// Largest number of searches per question, in multiples of the baseline's.
    pub(crate) searches_rise: f64,
    /// Rise of the share of abnormal trajectories above the baseline's.
    pub(crate) abnormal_rise: f64,
}

/// A figure outside of its limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Alarm {
    /// The figure, as `metrics.jsonl` and the pages call it.
    pub(crate) figure: String,
    /// Infinite values are `null` in the file.
    #[serde(deserialize_with = "infinite_if_null")]
    pub(crate) value: f64,
    /// The limit that it has passed.
    pub(crate) limit: f64,
}

/// Reads `null` as infinity, which JSON cannot represent.
fn infinite_if_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
}

impl Alarm {
    /// Returns the alarm in words.
    pub(crate) fn in_words(&self) -> String {
        let Self { figure, value, limit } = self;
        let side = if value < limit { "below" } else { "above" };
        format!("{figure} {value:.4} is {side} {limit:.4}")
    }
}

impl Limits {
    /// Returns the figures outside of their limits. Limits that are relative to the baseline need one.
    pub(super) fn alarms(&self, now: &Vitals, baseline: Option<&Baseline>) -> Vec<Alarm> {
        let mut alarms = Vec::new();
        let mut check = |is_on: bool, is_past: bool, figure: &str, value: f64, limit: f64| {
            if is_on && is_past {
                alarms.push(Alarm { figure: figure.to_owned(), value, limit });
            }
        };
        let mut above = |setting: f64, figure: &str, value: f64, limit: f64| {
            check(setting > 0.0, value > limit, figure, value, limit);
        };
        above(self.max_entropy, "entropy", now.entropy, self.max_entropy);
        above(self.max_kl, "kl", now.kl, self.max_kl);
        let Some(usual) = baseline.map(Baseline::mean) else { return alarms };
        if usual.grad_norm > 0.0 {
            let limit = self.grad_norm_rise * usual.grad_norm;
            above(self.grad_norm_rise, "grad_norm", now.grad_norm, limit);
        }
        if now.reward < usual.reward / 2.0 {
            // A share of 1 cannot be passed, but is the limit of a step that teaches nothing.
            let (value, limit) = (now.uniform_groups, self.uniform_share);
            check(limit > 0.0, value >= limit, "uniform_groups", value, limit);
        }
        let mut above = |setting: f64, figure: &str, value: f64, limit: f64| {
            check(setting > 0.0, value > limit, figure, value, limit);
        };
        let (rise, value) = (self.invalid_rise, now.invalid_actions);
        above(rise, "invalid_actions", value, usual.invalid_actions + rise);
        let (rise, value) = (self.abnormal_rise, now.abnormal);
        above(rise, "abnormal_trajectories", value, usual.abnormal + rise);
        if usual.searches > 0.0 {
            let limit = self.searches_rise * usual.searches;
            above(self.searches_rise, "searches_per_question", now.searches, limit);
        }
        let mut below = |setting: f64, figure: &str, value: f64, limit: f64| {
            check(setting > 0.0, value < limit, figure, value, limit);
        };
        let limit = self.entropy_fall * usual.entropy;
        below(self.entropy_fall, "entropy", now.entropy, limit);
        let limit = usual.positive_log_prob - self.log_prob_drop;
        below(self.log_prob_drop, "positive_log_prob", now.positive_log_prob, limit);
        let limit = self.searches_fall * usual.searches;
        below(self.searches_fall, "searches_per_question", now.searches, limit);
        alarms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Vitals = Vitals {
        entropy: 1.0,
        positive_log_prob: -0.5,
        kl: 0.01,
        grad_norm: 2.0,
        reward: 0.4,
        uniform_groups: 0.5,
        invalid_actions: 0.25,
        searches: 1.0,
        abnormal: 0.25,
    };
    const LIMITS: Limits = Limits {
        entropy_fall: 0.5,
        max_entropy: 4.0,
        log_prob_drop: 1.0,
        max_kl: 0.5,
        grad_norm_rise: 4.0,
        uniform_share: 1.0,
        invalid_rise: 0.5,
        searches_fall: 0.5,
        searches_rise: 2.0,
        abnormal_rise: 0.5,
    };

    fn baseline() -> Baseline {
        let mut baseline = Baseline::default();
        // Their mean is USUAL. A step that lacks a figure does not count.
        baseline.add(&Vitals { entropy: 0.5, ..USUAL });
        baseline.add(&Vitals { entropy: f64::NAN, ..USUAL });
        baseline.add(&Vitals { entropy: 1.5, ..USUAL });
        assert_eq!(baseline.steps(), 2);
        baseline
    }

    fn figures(now: &Vitals, baseline: Option<&Baseline>) -> Vec<String> {
        LIMITS.alarms(now, baseline).into_iter().map(|alarm| alarm.figure).collect()
    }

    #[test]
    fn each_figure_has_its_limit() {
        let baseline = baseline();
        assert!(figures(&USUAL, Some(&baseline)).is_empty());
        let table = [
            (Vitals { entropy: 0.4, ..USUAL }, "entropy"),
            (Vitals { entropy: 4.5, ..USUAL }, "entropy"),
            (Vitals { positive_log_prob: -1.6, ..USUAL }, "positive_log_prob"),
            (Vitals { kl: 0.6, ..USUAL }, "kl"),
            (Vitals { grad_norm: 9.0, ..USUAL }, "grad_norm"),
            (Vitals { uniform_groups: 1.0, reward: 0.1, ..USUAL }, "uniform_groups"),
            (Vitals { invalid_actions: 0.8, ..USUAL }, "invalid_actions"),
            (Vitals { searches: 0.4, ..USUAL }, "searches_per_question"),
            (Vitals { searches: 2.5, ..USUAL }, "searches_per_question"),
            (Vitals { abnormal: 0.8, ..USUAL }, "abnormal_trajectories"),
        ];
        for (now, figure) in table {
            assert_eq!(figures(&now, Some(&baseline)), [figure], "{now:?}");
            assert!(Limits::default().alarms(&now, Some(&baseline)).is_empty(), "0 is off");
        }
        let all_right = Vitals { uniform_groups: 1.0, reward: 1.0, ..USUAL };
        assert!(figures(&all_right, Some(&baseline)).is_empty(), "all are right");
    }

    #[test]
    fn without_a_baseline_only_absolute_limits_count() {
        let worst = Vitals { kl: 9.0, searches: 0.0, abnormal: 1.0, ..USUAL };
        assert_eq!(figures(&worst, None), ["kl"]);
    }

    #[test]
    fn a_missing_figure_raises_no_alarm() {
        let missing = Vitals::from_array([f64::NAN; 9]);
        assert!(figures(&missing, Some(&baseline())).is_empty());
    }

    #[test]
    fn an_alarm_says_on_which_side() {
        let alarm = &LIMITS.alarms(&Vitals { kl: 0.6, ..USUAL }, None)[0];
        assert_eq!(alarm.in_words(), "kl 0.6000 is above 0.5000");
    }
}
