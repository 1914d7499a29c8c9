//! The headline: what training gained, and what is lost when the passages are random.

use super::{AFTER, AFTER_RANDOM, BEFORE, RunRecord};
use crate::eval::{EvalResult, Interval};

/// Two evaluations side by side.
#[derive(Clone, Debug)]
pub struct Comparison<'a> {
    pub from: &'a EvalResult,
    pub to: &'a EvalResult,
}

impl Comparison<'_> {
    /// EM of `to` minus EM of `from`.
    pub fn difference(&self) -> f64 {
        self.to.em().value() - self.from.em().value()
    }

    /// 95 % interval of the difference.
    pub fn difference_interval(&self) -> Interval {
        self.to.em().difference_interval(&self.from.em())
    }

    /// Whether the 95 % intervals of the two EMs have a value in common.
    pub fn intervals_overlap(&self) -> bool {
        self.to.em().interval().overlaps(&self.from.em().interval())
    }

    /// How the intervals lie, in words.
    pub fn verdict(&self) -> &'static str {
        if self.intervals_overlap() {
            "the 95 % intervals overlap"
        } else {
            "the 95 % intervals do not overlap"
        }
    }

    /// The whole comparison in one line.
    pub fn sentence(&self) -> String {
        let interval = self.difference_interval();
        format!(
            "{}, against {}: EM {:+.3} ({:+.3} to {:+.3}); {}",
            self.to.name,
            self.from.name,
            self.difference(),
            interval.low,
            interval.high,
            self.verdict()
        )
    }
}

/// The comparisons that a run is judged by, as far as their evaluations are there.
#[derive(Clone, Debug)]
pub struct Headline<'a> {
    /// After GRPO against after the warm start.
    pub training: Option<Comparison<'a>>,
    /// Random passages against the retriever's, after GRPO.
    pub control: Option<Comparison<'a>>,
}

impl<'a> Headline<'a> {
    pub fn of(record: &'a RunRecord) -> Self {
        let compare = |from, to| {
            let (from, to) = (record.evaluation(from)?, record.evaluation(to)?);
            Some(Comparison { from, to })
        };
        Self { training: compare(BEFORE, AFTER), control: compare(AFTER, AFTER_RANDOM) }
    }

    /// Those that there are, in order.
    pub fn comparisons(&self) -> impl Iterator<Item = &Comparison<'a>> {
        self.training.iter().chain(&self.control)
    }
}
