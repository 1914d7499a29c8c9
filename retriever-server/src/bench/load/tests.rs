use std::sync::Mutex;

use super::*;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn answered() -> Outcome {
    Outcome::Answered { queries_without_passages: 1 }
}

#[test]
fn arrivals_are_poisson_and_depend_on_the_seed() {
    const COUNT: usize = 20_000;
    let offsets = |seed| Arrivals::new(500.0, seed).take(COUNT).collect::<Vec<_>>();
    let times = offsets(7);
    assert_eq!(times, offsets(7));
    assert_ne!(times, offsets(8));
    let gaps: Vec<f64> =
        times.windows(2).map(|pair| pair[1].as_secs_f64() - pair[0].as_secs_f64()).collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    // The standard error of the mean of n gaps is mean / √n: 0.7 %.
    assert!((mean * 500.0 - 1.0).abs() < 0.03, "mean gap {mean} s");
    // An exponential distribution has a share of 1 - 1/e below its mean.
    let below = gaps.iter().filter(|&&gap| gap < 1.0 / 500.0).count() as f64 / gaps.len() as f64;
    assert!((below - 0.632).abs() < 0.015, "{below} of the gaps are below the mean");
}

#[test]
fn a_closed_loop_sends_every_request_once_and_no_more_than_its_clients_at_a_time() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (open, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (seen_here, most_here) = (Arc::clone(&seen), Arc::clone(&most));
    let send = move |number: u64| {
        let (seen, open, most) =
            (Arc::clone(&seen_here), Arc::clone(&open), Arc::clone(&most_here));
        async move {
            most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            seen.lock().unwrap().push(number);
            open.fetch_sub(1, Ordering::SeqCst);
            let outcome = match number {
                0..110 => answered(),
                110..130 => Outcome::Failed(Failure::Status(503)),
                _ => Outcome::Failed(Failure::Timeout),
            };
            (outcome, Instant::now())
        }
    };
    let record = run(&runtime(), Pace::Closed { clients: 4 }, Length::Requests(50), 100, send);
    let mut seen = seen.lock().unwrap().clone();
    seen.sort_unstable();
    assert_eq!(seen, (100..150).collect::<Vec<u64>>());
    assert!((1..=4).contains(&most.load(Ordering::SeqCst)));
    assert_eq!((record.latencies_ns.len(), record.queries_without_passages), (10, 10));
    let failures = BTreeMap::from([(Failure::Status(503), 20), (Failure::Timeout, 20)]);
    assert_eq!((record.failures.clone(), record.requests()), (failures, 50));
}

#[test]
fn a_closed_loop_ends_when_its_time_is_over() {
    let send = |_| std::future::ready((answered(), Instant::now()));
    let length = Length::Time(Duration::ZERO);
    let record = run(&runtime(), Pace::Closed { clients: 3 }, length, 0, send);
    assert_eq!(record.requests(), 0);
}

/// Only one request may be in flight, and the first answer takes longer than all arrivals. Every later
/// request is sent late, and its latency must include the delay.
#[test]
fn the_latency_of_an_open_loop_runs_from_the_time_a_request_was_due() {
    const REQUESTS: u64 = 20;
    const STALL: Duration = Duration::from_millis(60);
    let ends = Arc::new(Mutex::new(Vec::new()));
    let ends_here = Arc::clone(&ends);
    let send = move |number: u64| {
        let ends = Arc::clone(&ends_here);
        async move {
            if number == 0 {
                let _ = tokio::time::timeout(STALL, std::future::pending::<()>()).await;
            }
            let ended = Instant::now();
            ends.lock().unwrap().push(ended);
            (answered(), ended)
        }
    };
    let (requests_per_s, seed) = (2000.0, 3);
    let pace = Pace::Open { requests_per_s, seed, max_in_flight: 1 };
    let record = run(&runtime(), pace, Length::Requests(REQUESTS), 0, send);
    assert_eq!(record.requests(), REQUESTS);
    let offsets: Vec<Duration> =
        Arrivals::new(requests_per_s, seed).take(REQUESTS as usize).collect();
    // All requests are due before the stall ends, and no answer comes before that.
    let last = *offsets.last().unwrap();
    assert!(last < STALL, "{last:?}");
    let shortest = Duration::from_nanos(*record.latencies_ns.iter().min().unwrap());
    assert!(shortest + last >= STALL, "a latency of {shortest:?} hides the stall");
    assert!(record.sent_late_max + last >= STALL, "late by {:?}", record.sent_late_max);
}

#[test]
fn an_open_loop_sends_what_is_due_in_its_time() {
    let (requests_per_s, seed) = (5000.0, 11);
    let time = Duration::from_millis(20);
    let expected = Arrivals::new(requests_per_s, seed).take_while(|&offset| offset < time).count();
    assert!(expected > 50, "{expected}");
    let send = |_| std::future::ready((answered(), Instant::now()));
    let pace = Pace::Open { requests_per_s, seed, max_in_flight: 64 };
    let record = run(&runtime(), pace, Length::Time(time), 0, send);
    assert_eq!(record.requests(), expected as u64);
}
