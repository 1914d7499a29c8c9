//! The figures of a measurement, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;
use serde_json::Value;

use super::load::Record;

/// The settings and the results of a measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The settings.
    pub setting: Setting,
    /// The server's `/info`; `null` if it has none.
    pub server: Value,
    /// The number of requests that were sent, without the warm-up.
    pub requests: u64,
    /// The number of requests in which every query was answered.
    pub requests_answered: u64,
    /// The numbers of the other requests, by kind of failure.
    pub failures: BTreeMap<String, u64>,
    /// The number of queries in answered requests.
    pub queries: u64,
    /// The number of these queries whose list was empty.
    pub queries_without_passages: u64,
    /// The time from the first request to the last answer.
    pub elapsed_s: f64,
    /// The number of answered queries divided by the elapsed time.
    pub queries_per_s: f64,
    /// The latencies of answered requests; `null` if there are none.
    pub latency_ms: Option<Latency>,
    /// The longest delay between the time a request was due and its sending; 0 in a closed loop. More
    /// than about a millisecond means that the client or the limit of requests in flight delayed them.
    pub sent_late_ms_max: f64,
}

/// The settings of a measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// The address of the requests.
    pub url: String,
    /// `closed` or `open`.
    pub pace: &'static str,
    /// The number of clients of a closed loop.
    pub clients: Option<usize>,
    /// The rate of an open loop.
    pub rate_queries_per_s: Option<f64>,
    /// The seed of the arrival times in an open loop.
    pub seed: u64,
    /// The number of queries in a request.
    pub batch_queries: usize,
    /// The number of passages requested per query.
    pub top_k: usize,
    /// The number of different queries in the file.
    pub queries_in_file: usize,
    /// The number of requests before the measurement.
    pub warm_up_requests: u64,
}

/// Latencies in milliseconds. In an open loop, they start when a request was due.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// The arithmetic mean.
    pub mean: f64,
    /// The median.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The longest latency.
    pub max: f64,
}

impl Latency {
    /// Computes exact figures. Returns `None` without latencies.
    pub fn from_ns(mut latencies_ns: Vec<u64>) -> Option<Self> {
        latencies_ns.sort_unstable();
        let max = *latencies_ns.last()?;
        let sum: u128 = latencies_ns.iter().map(|&latency| u128::from(latency)).sum();
        let at = |share| milliseconds(percentile(&latencies_ns, share));
        Some(Self {
            mean: sum as f64 / latencies_ns.len() as f64 / 1e6,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: milliseconds(max),
        })
    }
}

/// Returns the smallest value that is not below a `share` of all, by the nearest-rank method. `sorted`
/// must not be empty.
fn percentile(sorted: &[u64], share: f64) -> u64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.saturating_sub(1)]
}

fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

impl Summary {
    /// Computes the figures of a record.
    pub fn new(setting: Setting, server: Value, record: Record) -> Self {
        let requests = record.requests();
        let requests_answered = record.latencies_ns.len() as u64;
        let queries = requests_answered * setting.batch_queries as u64;
        let elapsed_s = record.elapsed.as_secs_f64();
        let failures = record.failures.iter().map(|(kind, &n)| (kind.to_string(), n)).collect();
        Self {
            setting,
            server,
            requests,
            requests_answered,
            failures,
            queries,
            queries_without_passages: record.queries_without_passages,
            elapsed_s,
            queries_per_s: if elapsed_s > 0.0 { queries as f64 / elapsed_s } else { 0.0 },
            latency_ms: Latency::from_ns(record.latencies_ns),
            sent_late_ms_max: record.sent_late_max.as_secs_f64() * 1e3,
        }
    }

    /// Returns a table for people.
    pub fn table(&self) -> String {
        let setting = &self.setting;
        let pace = if let Some(rate) = setting.rate_queries_per_s {
            format!("open loop, {rate} queries/s, seed {}", setting.seed)
        } else {
            let clients = setting.clients.expect("a closed loop has clients");
            format!("closed loop, {clients} clients")
        };
        let mut rows = vec![
            ("server", setting.url.clone()),
            ("pace", pace),
            ("request", format!("{} queries, top {}", setting.batch_queries, setting.top_k)),
            ("requests", format!("{} in {:.2} s", self.requests, self.elapsed_s)),
            ("queries per second", format!("{:.1}", self.queries_per_s)),
        ];
        if let Some(latency) = self.latency_ms {
            rows.push(("latency, mean ms", format!("{:.3}", latency.mean)));
            rows.push(("latency, p50 ms", format!("{:.3}", latency.p50)));
            rows.push(("latency, p90 ms", format!("{:.3}", latency.p90)));
            rows.push(("latency, p99 ms", format!("{:.3}", latency.p99)));
            rows.push(("latency, max ms", format!("{:.3}", latency.max)));
        }
        if setting.rate_queries_per_s.is_some() {
            rows.push(("delay of sending, max ms", format!("{:.3}", self.sent_late_ms_max)));
        }
        rows.push(("queries without passages", self.queries_without_passages.to_string()));
        rows.push(("failed requests", (self.requests - self.requests_answered).to_string()));
        let mut table = String::new();
        for (name, value) in rows {
            // Writing to a string cannot fail.
            let _ = writeln!(table, "{name:<26} {value}");
        }
        for (kind, count) in &self.failures {
            let _ = writeln!(table, "  {kind:<24} {count}");
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::asking::Failure;

    #[test]
    fn percentiles_are_measured_values() {
        let values: Vec<u64> = (1..=100).rev().map(|ms| ms * 1_000_000).collect();
        let latency = Latency::from_ns(values).unwrap();
        let expected = Latency { mean: 50.5, p50: 50.0, p90: 90.0, p99: 99.0, max: 100.0 };
        assert_eq!(latency, expected);
        let two = Latency { mean: 2.0, p50: 2.0, p90: 2.0, p99: 2.0, max: 2.0 };
        assert_eq!(Latency::from_ns(vec![2_000_000]), Some(two));
        // With two values, any share above a half needs the second.
        assert_eq!(percentile(&[1, 9], 0.5), 1);
        assert_eq!(percentile(&[1, 9], 0.51), 9);
        assert_eq!(Latency::from_ns(Vec::new()), None);
    }

    #[test]
    fn failures_do_not_count_as_fast_answers() {
        let setting = Setting {
            url: "http://server".to_owned(),
            pace: "closed",
            clients: Some(2),
            rate_queries_per_s: None,
            seed: 0,
            batch_queries: 4,
            top_k: 3,
            queries_in_file: 9,
            warm_up_requests: 0,
        };
        let record = Record {
            latencies_ns: vec![1_000_000, 3_000_000],
            failures: BTreeMap::from([(Failure::Status(503), 5), (Failure::Timeout, 1)]),
            queries_without_passages: 2,
            elapsed: Duration::from_secs(2),
            sent_late_max: Duration::ZERO,
        };
        let summary = Summary::new(setting, Value::Null, record);
        assert_eq!((summary.requests, summary.requests_answered, summary.queries), (8, 2, 8));
        assert_eq!((summary.queries_per_s, summary.latency_ms.unwrap().max), (4.0, 3.0));
        let table = summary.table();
        for line in ["failed requests            6\n", "  status 503               5\n"] {
            assert!(table.contains(line), "{line:?} is not in\n{table}");
        }
        let json = serde_json::to_value(&summary).unwrap();
        assert_eq!(json["failures"]["timeout"], 1);
        assert_eq!(json["setting"]["rate_queries_per_s"], Value::Null);
    }
}
