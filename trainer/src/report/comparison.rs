//! The headline figures: the gain from training, and the loss with random passages.

use super::{AFTER, AFTER_RANDOM, BEFORE, RunRecord};
use crate::eval::{EvalResult, Interval};

/// A comparison of two evaluations.
#[derive(Clone, Debug)]
pub struct Comparison<'a> {
    pub from: &'a EvalResult,
    pub to: &'a EvalResult,
}

impl Comparison<'_> {
    /// Returns the EM of `to` minus the EM of `from`.
    pub fn difference(&self) -> f64 {
        self.to.em().value() - self.from.em().value()
    }

    /// Returns the 95 % interval of the difference.
    pub fn difference_interval(&self) -> Interval {
        self.to.em().difference_interval(&self.from.em())
    }

    /// Returns `true` if the 95 % intervals of the two EMs overlap.
    pub fn intervals_overlap(&self) -> bool {
        self.to.em().interval().overlaps(&self.from.em().interval())
    }

    /// States in words if the intervals overlap.
    pub fn verdict(&self) -> &'static str {
        if self.intervals_overlap() {
            "the 95 % intervals overlap"
        } else {
            "the 95 % intervals do not overlap"
        }
    }

    /// Returns the whole comparison as one line.
    pub fn sentence(&self) -> String {
        let interval = self.difference_interval();
        format!(
            "{}, compared with {}: EM {:+.3} ({:+.3} to {:+.3}); {}",
            self.to.name,
            self.from.name,
            self.difference(),
            interval.low,
            interval.high,
            self.verdict()
        )
    }
}

/// The main comparisons of a run; those without evaluations are `None`.
#[derive(Clone, Debug)]
pub struct Headline<'a> {
    /// The model after GRPO, compared with the model after the warm start.
    pub training: Option<Comparison<'a>>,
    /// Random passages, compared with the retriever's; both after GRPO.
    pub control: Option<Comparison<'a>>,
}

impl<'a> Headline<'a> {
    pub fn from_record(record: &'a RunRecord) -> Self {
        let compare = |from, to| {
            let (from, to) = (record.evaluation(from)?, record.evaluation(to)?);
            Some(Comparison { from, to })
        };
        Self { training: compare(BEFORE, AFTER), control: compare(AFTER, AFTER_RANDOM) }
    }

    /// Returns the existing comparisons, in order.
    pub fn comparisons(&self) -> impl Iterator<Item = &Comparison<'a>> {
        self.training.iter().chain(&self.control)
    }
}
