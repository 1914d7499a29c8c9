//! A histogram of atomic counts. That of the library takes a lock, which requests on several threads would wait for.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// The upper bounds of latencies, in microseconds.
const LATENCIES_US: &[u64] = &[
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];
/// The upper bounds of counts.
const COUNTS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096];
const MICROSECONDS: f64 = 1e6;

/// Counts of observations by size. An observation adds to two counts and never waits.
pub struct Histogram {
    bounds: &'static [u64],
    /// The number of units in the unit that is shown.
    scale: f64,
    /// The observations up to each bound and above the one before; the last are above all bounds.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// Creates a histogram of durations, shown in seconds.
    pub fn of_latencies() -> Self {
        Self::new(LATENCIES_US, MICROSECONDS)
    }

    /// Creates a histogram of counts.
    pub fn of_counts() -> Self {
        Self::new(COUNTS, 1.0)
    }

    fn new(bounds: &'static [u64], scale: f64) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, scale, counts, sum: AtomicU64::new(0) }
    }

    /// Adds a count.
    pub fn observe(&self, value: u64) {
        let bucket = self.bounds.partition_point(|&bound| bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Adds a duration.
    pub fn observe_duration(&self, duration: Duration) {
        self.observe(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    /// Returns the number of observations and their sum in units.
    pub fn read(&self) -> (u64, u64) {
        let count = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        (count, self.sum.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, sum) = self.read();
        formatter.debug_struct("Histogram").field("count", &count).field("sum", &sum).finish()
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let bounds = self.bounds.iter().map(|&bound| bound as f64 / self.scale);
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.chain([f64::INFINITY]).zip(counts).collect();
        // The number comes from the same reading, so that the last bucket always equals it.
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = self.sum.load(Ordering::Relaxed) as f64 / self.scale;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::of_counts();
        for value in [0, 1, 2, 3, 4096, 4097] {
            histogram.observe(value);
        }
        let counts: Vec<u64> =
            histogram.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        assert_eq!(counts, [2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(histogram.read(), (6, 8199));
    }

    #[test]
    fn durations_are_counted_in_microseconds() {
        let histogram = Histogram::of_latencies();
        histogram.observe_duration(Duration::from_millis(3));
        histogram.observe_duration(Duration::MAX);
        assert_eq!(histogram.counts[6].load(Ordering::Relaxed), 1);
        assert_eq!(histogram.counts.last().unwrap().load(Ordering::Relaxed), 1);
    }
}
