//! Proportions and means with their 95 % confidence intervals. Pure functions.

use serde::{Deserialize, Serialize};

/// Two-sided 95 % quantile of the normal distribution.
const Z_95: f64 = 1.959_963_984_540_054;

/// A 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

impl Interval {
    /// Returns `true` if the intervals share a value; their ends belong to them.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.low <= other.high && other.low <= self.high
    }
}

/// A number of successes out of a total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proportion {
    pub successes: usize,
    pub total: usize,
}

impl Proportion {
    /// Counts the outcomes that are `true`.
    pub fn from_outcomes(outcomes: impl IntoIterator<Item = bool>) -> Self {
        outcomes.into_iter().fold(Self { successes: 0, total: 0 }, |count, success| Self {
            successes: count.successes + usize::from(success),
            total: count.total + 1,
        })
    }

    /// Returns the proportion; NaN for a total of 0.
    pub fn value(&self) -> f64 {
        self.successes as f64 / self.total as f64
    }

    /// Returns Wilson's score interval without continuity correction (E. B. Wilson, Journal of the American
    /// Statistical Association 22, 1927). For a total of 0, it is the interval from 0 to 1.
    pub fn interval(&self) -> Interval {
        if self.total == 0 {
            return Interval { low: 0.0, high: 1.0 };
        }
        let (share, total) = (self.value(), self.total as f64);
        let squared = Z_95 * Z_95;
        let centre = share + squared / (2.0 * total);
        let spread =
            Z_95 * (share * (1.0 - share) / total + squared / (4.0 * total * total)).sqrt();
        let scale = 1.0 + squared / total;
        // At a proportion of 0 or 1, the formula yields the bound except for rounding.
        let low = if self.successes == 0 { 0.0 } else { (centre - spread) / scale };
        let high = if self.successes == self.total { 1.0 } else { (centre + spread) / scale };
        Interval { low, high }
    }

    /// Returns the interval of `self - other` for two independent samples: Newcombe's hybrid of Wilson's
    /// intervals (R. G. Newcombe, Statistics in Medicine 17, 1998, method 10).
    pub fn difference_interval(&self, other: &Self) -> Interval {
        let (first, second) = (self.interval(), other.interval());
        let difference = self.value() - other.value();
        let below = (self.value() - first.low).hypot(second.high - other.value());
        let above = (first.high - self.value()).hypot(other.value() - second.low);
        Interval { low: difference - below, high: difference + above }
    }
}

/// A mean with its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    pub value: f64,
    /// The unbiased standard error; 0 for fewer than two values.
    pub standard_error: f64,
}

impl Mean {
    /// Computes the mean of `values`; NaN if there are none.
    pub fn from_values(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let value = values.iter().sum::<f64>() / count;
        if values.len() < 2 {
            return Self { value, standard_error: 0.0 };
        }
        let squares: f64 = values.iter().map(|each| (each - value) * (each - value)).sum();
        Self { value, standard_error: (squares / (count - 1.0) / count).sqrt() }
    }

    /// Returns the interval of the normal approximation.
    pub fn interval(&self) -> Interval {
        let spread = Z_95 * self.standard_error;
        Interval { low: self.value - spread, high: self.value + spread }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn close(actual: f64, expected: f64) {
        assert!((actual - expected).abs() < 5e-5, "{actual} is not {expected}");
    }

    #[test]
    fn wilson_matches_published_examples() {
        // Newcombe 1998 ("Two-sided confidence intervals for the single proportion"), table I.
        for (successes, total, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let interval = Proportion { successes, total }.interval();
            close(interval.low, low);
            close(interval.high, high);
        }
    }

    #[test]
    fn difference_matches_published_examples() {
        // Newcombe 1998 ("Interval estimation for the difference between independent
        // proportions"), table II, method 10.
        for (first, second, low, high) in [
            ((56, 70), (48, 80), 0.0524, 0.3339),
            ((9, 10), (3, 10), 0.1705, 0.8090),
            ((5, 56), (0, 29), -0.0381, 0.1926),
        ] {
            let first = Proportion { successes: first.0, total: first.1 };
            let second = Proportion { successes: second.0, total: second.1 };
            let interval = first.difference_interval(&second);
            close(interval.low, low);
            close(interval.high, high);
        }
    }

    #[test]
    fn intervals_stay_within_bounds_and_hold_the_share() {
        for total in [1, 2, 10, 200, 5000] {
            for successes in [0, 1, total / 2, total] {
                let share = Proportion { successes, total };
                let interval = share.interval();
                assert!(0.0 <= interval.low && interval.high <= 1.0, "{share:?} {interval:?}");
                assert!(interval.low <= share.value() && share.value() <= interval.high);
            }
        }
        let nothing = Proportion::from_outcomes([]);
        assert_eq!(nothing.interval(), Interval { low: 0.0, high: 1.0 });
        assert!(nothing.value().is_nan());
    }

    #[test]
    fn overlap_is_symmetric_and_includes_the_ends() {
        let interval = Interval { low: 0.1, high: 0.2 };
        for (low, high, expected) in [
            (0.2, 0.3, true),
            (0.0, 0.1, true),
            (0.12, 0.15, true),
            (0.21, 0.3, false),
            (0.0, 0.09, false),
        ] {
            let other = Interval { low, high };
            assert_eq!(interval.overlaps(&other), expected, "{other:?}");
            assert_eq!(other.overlaps(&interval), expected, "{other:?}");
        }
    }

    #[test]
    fn mean_has_the_interval_of_its_standard_error() {
        let mean = Mean::from_values(&[0.0, 0.5, 1.0, 0.5]);
        close(mean.value, 0.5);
        close(mean.standard_error, 0.204_124);
        close(mean.interval().low, 0.5 - 1.96 * 0.204_124);
        close(Mean::from_values(&[0.3]).interval().high, 0.3);
        assert!(Mean::from_values(&[]).value.is_nan());
    }
}
