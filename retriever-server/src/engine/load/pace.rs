//! The pace of a load: as many and as large batches as the engine takes. It is a function of what the engine
//! answered, without a clock.

/// The most records of a batch.
const MAX_RECORDS: usize = 1024;
/// The fewest.
const MIN_RECORDS: usize = 16;
/// The most batches in flight.
const MAX_REQUESTS: usize = 8;
/// Batches without a refusal after which one more is in flight.
const STEADY_BATCHES: usize = 8;

/// The number and the size of batches in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    requests: usize,
    records: usize,
    steady: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { requests: 2, records: 256, steady: 0 }
    }
}

impl Pace {
    /// Returns the most batches in flight.
    pub(super) fn requests(&self) -> usize {
        self.requests
    }

    /// Returns the most records of the next batch.
    pub(super) fn records(&self) -> usize {
        self.records
    }

    /// Halves both after a refusal, and raises them slowly without one.
    pub(super) fn note(&mut self, was_refused: bool) {
        if was_refused {
            self.requests = (self.requests / 2).max(1);
            self.records = (self.records / 2).max(MIN_RECORDS);
            self.steady = 0;
            return;
        }
        self.steady += 1;
        if self.steady == STEADY_BATCHES {
            self.steady = 0;
            self.requests = (self.requests + 1).min(MAX_REQUESTS);
            self.records = (self.records + self.records / 4).min(MAX_RECORDS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_halves_what_many_successes_raised() {
        let mut pace = Pace::default();
        for _ in 0..STEADY_BATCHES * 50 {
            pace.note(false);
        }
        assert_eq!((pace.requests(), pace.records()), (MAX_REQUESTS, MAX_RECORDS));
        pace.note(true);
        assert_eq!((pace.requests(), pace.records()), (MAX_REQUESTS / 2, MAX_RECORDS / 2));
        for _ in 0..50 {
            pace.note(true);
        }
        assert_eq!((pace.requests(), pace.records()), (1, MIN_RECORDS));
    }

    #[test]
    fn one_success_after_a_refusal_raises_nothing() {
        let mut pace = Pace::default();
        pace.note(true);
        let (requests, records) = (pace.requests(), pace.records());
        for _ in 1..STEADY_BATCHES {
            pace.note(false);
        }
        assert_eq!((pace.requests(), pace.records()), (requests, records));
        pace.note(false);
        assert!(pace.requests() > requests && pace.records() > records);
    }
}
