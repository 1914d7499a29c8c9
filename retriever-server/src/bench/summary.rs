//! Figures of a measurement, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;
use serde_json::Value;

use super::load::Record;

/// What was measured and what came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// How it was measured.
    pub setting: Setting,
    /// What the server says of itself at `/info`; `null` for one that does not.
    pub server: Value,
    /// Requests that were sent, without those of the warm-up.
    pub requests: u64,
    /// Requests in which every query was answered.
    pub requests_answered: u64,
    /// Requests that were not, by kind of failure.
    pub failures: BTreeMap<String, u64>,
    /// Queries of answered requests.
    pub queries: u64,
    /// Those of them for which nothing was found.
    pub queries_without_passages: u64,
    /// From the first request to the last answer.
    pub elapsed_s: f64,
    /// Answered queries by elapsed time.
    pub queries_per_s: f64,
    /// Of answered requests; `null` if there are none.
    pub latency_ms: Option<Latency>,
    /// The latest that a request was sent after it was due: above a millisecond or so, the client
    /// or the bound on requests in flight held requests up. 0 in a closed loop.
    pub sent_late_ms_max: f64,
}

/// How a measurement was made.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// Where requests went.
    pub url: String,
    /// `closed` or `open`.
    pub pace: &'static str,
    /// Clients of a closed loop.
    pub clients: Option<usize>,
    /// Rate of an open loop.
    pub rate_queries_per_s: Option<f64>,
    /// Decides the times of arrival in an open loop.
    pub seed: u64,
    /// Queries a request.
    pub batch_queries: usize,
    /// Passages asked for per query.
    pub top_k: usize,
    /// Different queries in the file.
    pub queries_in_file: usize,
    /// Requests before the measurement.
    pub warm_up_requests: u64,
}

/// Latencies in milliseconds; of an open loop, from the time at which a request was due.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// Arithmetic mean.
    pub mean: f64,
    /// Half of the requests took no longer.
    pub p50: f64,
    /// Nine in ten took no longer.
    pub p90: f64,
    /// 99 in a hundred took no longer.
    pub p99: f64,
    /// None took longer.
    pub max: f64,
}

impl Latency {
    /// Exact figures; `None` of nothing.
    pub fn of(mut latencies_ns: Vec<u64>) -> Option<Self> {
        latencies_ns.sort_unstable();
        let max = *latencies_ns.last()?;
        let sum: u128 = latencies_ns.iter().map(|&one| u128::from(one)).sum();
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

/// The smallest value that is not below a `share` of all, by the nearest-rank method.
fn percentile(sorted: &[u64], share: f64) -> u64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

impl Summary {
    /// Figures of a record.
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
            latency_ms: Latency::of(record.latencies_ns),
            sent_late_ms_max: record.sent_late_max.as_secs_f64() * 1e3,
        }
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let setting = &self.setting;
        let pace = match (setting.clients, setting.rate_queries_per_s) {
            (_, Some(rate)) => format!("open loop, {rate} queries/s, seed {}", setting.seed),
            (clients, None) => format!("closed loop, {} clients", clients.unwrap_or(1)),
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
            rows.push(("sent late, max ms", format!("{:.3}", self.sent_late_ms_max)));
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
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<u64> = (1..=100).rev().map(|ms| ms * 1_000_000).collect();
        let found = Latency::of(values).unwrap();
        let expected = Latency { mean: 50.5, p50: 50.0, p90: 90.0, p99: 99.0, max: 100.0 };
        assert_eq!(found, expected);
        let two = Latency { mean: 2.0, p50: 2.0, p90: 2.0, p99: 2.0, max: 2.0 };
        assert_eq!(Latency::of(vec![2_000_000]), Some(two));
        // Of two the worse half begins above the first.
        assert_eq!(percentile(&[1, 9], 0.5), 1);
        assert_eq!(percentile(&[1, 9], 0.51), 9);
        assert_eq!(Latency::of(Vec::new()), None);
    }

    #[test]
    fn failures_are_no_fast_answers() {
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
