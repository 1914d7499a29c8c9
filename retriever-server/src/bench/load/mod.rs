//! The schedule of requests.
//!
//! In a closed loop, every client sends its next request once it has the last answer, so the server sets
//! the pace. In an open loop, requests are due at times that do not depend on answers, and a latency
//! starts when its request was due. A stalled server is then charged for every request that became due
//! in the meantime, and not only for those that were sent (no coordinated omission; G. Tene, "How NOT
//! to Measure Latency").

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use shared::contract::splitmix;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};

use super::asking::{Failure, Outcome};

/// The most requests of one measurement, including the warm-up. Each takes eight bytes.
pub const MAX_REQUESTS: u64 = 10_000_000;

/// The pace of requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// A closed loop of clients, each with one request at a time.
    Closed {
        /// The number of clients, at least one.
        clients: usize,
    },
    /// An open loop with Poisson arrivals.
    Open {
        /// The mean number of requests per second, finite and positive.
        requests_per_s: f64,
        /// The seed of the arrival times.
        seed: u64,
        /// The most requests without an answer. Another one is sent late, which its latency includes.
        max_in_flight: usize,
    },
}

/// The length of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// The number of requests.
    Requests(u64),
    /// The time after which no request starts.
    Time(Duration),
}

impl Length {
    fn requests(self) -> u64 {
        match self {
            Self::Requests(requests) => requests.min(MAX_REQUESTS),
            Self::Time(_) => MAX_REQUESTS,
        }
    }

    fn time(self) -> Duration {
        match self {
            Self::Requests(_) => Duration::MAX,
            Self::Time(time) => time,
        }
    }
}

/// The outcomes of a measurement's requests.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// The latencies of answered requests in nanoseconds, in no particular order.
    pub latencies_ns: Vec<u64>,
    /// The numbers of failed requests by kind.
    pub failures: BTreeMap<Failure, u64>,
    /// The number of queries in answered requests whose list was empty.
    pub queries_without_passages: u64,
    /// The time from the start to the last answer.
    pub elapsed: Duration,
    /// The longest delay of an open loop between the time a request was due and its sending.
    pub sent_late_max: Duration,
}

impl Record {
    /// Returns the number of requests that were sent.
    pub fn requests(&self) -> u64 {
        self.latencies_ns.len() as u64 + self.failures.values().sum::<u64>()
    }

    fn add(&mut self, outcome: Outcome, latency: Duration) {
        match outcome {
            Outcome::Answered { queries_without_passages } => {
                self.latencies_ns.push(latency.as_nanos().min(u128::from(u64::MAX)) as u64);
                self.queries_without_passages += queries_without_passages;
            }
            Outcome::Failed(failure) => *self.failures.entry(failure).or_default() += 1,
        }
    }

    /// Adds the result of a task that sent one request.
    fn add_done(&mut self, done: Result<(Outcome, Duration), JoinError>) {
        let (outcome, latency) = done.expect("sending a request does not panic");
        self.add(outcome, latency);
    }

    fn merge(&mut self, other: Self) {
        self.latencies_ns.extend(other.latencies_ns);
        self.queries_without_passages += other.queries_without_passages;
        for (failure, count) in other.failures {
            *self.failures.entry(failure).or_default() += count;
        }
    }
}

/// Sends requests `first`, `first + 1` and so on through `send`, which returns the outcome of the request
/// with that number and the time of its end. `send` prepares the request before its future is awaited.
pub fn run<S, F>(runtime: &Runtime, pace: Pace, length: Length, first: u64, send: S) -> Record
where
    S: Fn(u64) -> F + Clone + Send + 'static,
    F: Future<Output = (Outcome, Instant)> + Send + 'static,
{
    match pace {
        Pace::Closed { clients } => closed(runtime, clients, length, first, &send),
        Pace::Open { requests_per_s, seed, max_in_flight } => {
            let arrivals = Arrivals::new(requests_per_s, seed);
            open(runtime, arrivals, max_in_flight, length, |number| send(first + number))
        }
    }
}

fn closed<S, F>(runtime: &Runtime, clients: usize, length: Length, first: u64, send: &S) -> Record
where
    S: Fn(u64) -> F + Clone + Send + 'static,
    F: Future<Output = (Outcome, Instant)> + Send + 'static,
{
    let next = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let client = || {
        let (next, send) = (Arc::clone(&next), send.clone());
        async move {
            let mut record = Record::default();
            while started.elapsed() < length.time() {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= length.requests() {
                    break;
                }
                let request = send(first + number);
                let sent = Instant::now();
                let (outcome, ended) = request.await;
                record.add(outcome, ended.saturating_duration_since(sent));
            }
            record
        }
    };
    let mut running = JoinSet::new();
    for _ in 0..clients {
        running.spawn_on(client(), runtime.handle());
    }
    let mut whole = Record::default();
    runtime.block_on(async {
        while let Some(record) = running.join_next().await {
            whole.merge(record.expect("sending requests does not panic"));
        }
    });
    whole.elapsed = started.elapsed();
    whole
}

fn open<F>(
    runtime: &Runtime,
    arrivals: Arrivals,
    max_in_flight: usize,
    length: Length,
    send: impl Fn(u64) -> F,
) -> Record
where
    F: Future<Output = (Outcome, Instant)> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(max_in_flight));
    let mut running = JoinSet::new();
    let mut record = Record::default();
    let started = Instant::now();
    for (number, offset) in (0..length.requests()).zip(arrivals) {
        if offset >= length.time() {
            break;
        }
        let due = started + offset;
        let request = send(number);
        wait_until(due);
        let permit = match Arc::clone(&permits).try_acquire_owned() {
            Ok(permit) => Ok(permit),
            Err(_) => runtime.block_on(Arc::clone(&permits).acquire_owned()),
        };
        let permit = permit.expect("nothing closes the semaphore");
        record.sent_late_max = record.sent_late_max.max(due.elapsed());
        let task = async move {
            let (outcome, ended) = request.await;
            drop(permit);
            (outcome, ended.saturating_duration_since(due))
        };
        running.spawn_on(task, runtime.handle());
        while let Some(done) = running.try_join_next() {
            record.add_done(done);
        }
    }
    runtime.block_on(async {
        while let Some(done) = running.join_next().await {
            record.add_done(done);
        }
    });
    record.elapsed = started.elapsed();
    record
}

/// Blocks this thread until `due`. This is accurate to tens of microseconds, while the timers of the
/// runtime are accurate to a millisecond.
fn wait_until(due: Instant) {
    loop {
        let rest = due.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return;
        }
        thread::park_timeout(rest);
    }
}

/// The arrival times of a Poisson process, relative to the start. The gaps between them are independent
/// and exponentially distributed.
#[derive(Clone, Debug)]
struct Arrivals {
    requests_per_s: f64,
    state: u64,
    seconds: f64,
}

impl Arrivals {
    fn new(requests_per_s: f64, seed: u64) -> Self {
        Self { requests_per_s, state: splitmix::finalise(seed), seconds: 0.0 }
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        // The inverse of the distribution function at a random number in (0, 1].
        let uniform = 1.0 - splitmix::unit(splitmix::next(&mut self.state));
        self.seconds -= uniform.ln() / self.requests_per_s;
        Some(Duration::try_from_secs_f64(self.seconds).unwrap_or(Duration::MAX))
    }
}

#[cfg(test)]
mod tests;
