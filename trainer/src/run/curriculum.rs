//! A curriculum by running pass rates: questions that the policy always or never answers teach a group nothing, so that
//! most of their turns are skipped.
//!
//! Invariant: the choice at a position depends on the seed, the position and the rates alone. The rates are counts, so
//! that they are read back exactly; a checkpoint keeps them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared::contract::splitmix;

/// Trajectories of a question that are remembered: beyond them, older ones count half.
const REMEMBERED: u32 = 32;
/// Separates the draws from those of other parts.
const STREAM: u64 = 0x6375_7272_6963;

/// The rules of the curriculum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct CurriculumSettings {
    pub(crate) seed: u64,
    /// Pass rates up to this one are too hard.
    pub(crate) hard: f64,
    /// Pass rates from this one on are too easy.
    pub(crate) easy: f64,
    /// Share of the turns at which such a question is asked nevertheless, to see if it has changed.
    pub(crate) kept: f64,
}

/// The trajectories of a question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Rate {
    passed: u32,
    played: u32,
}

/// The running pass rates of the questions by their ids, as a checkpoint keeps them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct PassRates(BTreeMap<String, Rate>);

impl PassRates {
    /// Reads what [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// Bytes that are not such rates.
    pub(crate) fn from_json(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }

    /// Returns the rates as JSON, in the order of the ids.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("counts always have a JSON form")
    }

    /// Counts the trajectories of a question, `passed` of which were right.
    pub(crate) fn count(&mut self, id: &str, passed: u32, played: u32) {
        if played == 0 {
            return;
        }
        let rate = self.0.entry(id.to_owned()).or_default();
        (rate.passed, rate.played) = (rate.passed + passed, rate.played + played);
        while rate.played > REMEMBERED {
            (rate.passed, rate.played) = (rate.passed / 2, rate.played / 2);
        }
    }
}

impl CurriculumSettings {
    /// Returns `true` if the question with this id is asked when its position comes.
    pub(crate) fn asks(&self, rates: &PassRates, id: &str, position: u64) -> bool {
        let Some(rate) = rates.0.get(id) else { return true };
        let rate = f64::from(rate.passed) / f64::from(rate.played);
        if rate > self.hard && rate < self.easy {
            return true;
        }
        let mut state = self.seed ^ STREAM ^ position.rotate_left(24);
        let draw = (splitmix::next(&mut state) >> 11) as f64 / (1_u64 << 53) as f64;
        draw < self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: CurriculumSettings =
        CurriculumSettings { seed: 5, hard: 0.0, easy: 0.9, kept: 0.25 };

    fn asked(rates: &PassRates, id: &str) -> usize {
        (0..4000).filter(|&position| SETTINGS.asks(rates, id, position)).count()
    }

    #[test]
    fn questions_that_are_always_or_never_answered_are_mostly_skipped() {
        let mut rates = PassRates::default();
        for (id, passed) in [("easy", 8), ("hard", 0), ("open", 3)] {
            rates.count(id, passed, 8);
        }
        rates.count("lost", 0, 0);
        assert_eq!(asked(&rates, "open"), 4000);
        assert_eq!(asked(&rates, "new"), 4000);
        assert_eq!(asked(&rates, "lost"), 4000);
        for id in ["easy", "hard"] {
            assert!(asked(&rates, id).abs_diff(1000) < 100, "{id}: {}", asked(&rates, id));
        }
    }

    #[test]
    fn a_question_that_was_learned_becomes_easy_again() {
        let mut rates = PassRates::default();
        for _ in 0..20 {
            rates.count("q", 0, 8);
        }
        rates.count("q", 8, 8);
        assert_eq!(asked(&rates, "q"), 4000);
        for _ in 0..20 {
            rates.count("q", 8, 8);
        }
        assert!(asked(&rates, "q") < 2000);
    }

    #[test]
    fn rates_are_read_back_exactly() {
        let mut rates = PassRates::default();
        rates.count("a \"b\"", 1, 3);
        rates.count("c", 5, 8);
        assert_eq!(PassRates::from_json(&rates.to_json()).unwrap(), rates);
        assert!(PassRates::from_json(b"{\"a\": 1}").is_err());
    }
}
