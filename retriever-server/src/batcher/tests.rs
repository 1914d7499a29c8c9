//! Requests, cancellations, panics and deadlines in an order drawn from a seed. Every query must be
//! answered once, and correctly.

use std::collections::{HashMap, HashSet};

use shared::contract::splitmix;
use tokio::task::{JoinHandle, yield_now};

use super::*;
use crate::query::Hit;
use crate::ticket::AbandonOnDrop;

const QUERIES: usize = 10_000;
const MAX_QUERIES: usize = 16;
/// Turns that all tasks get to proceed. Everything that one task starts has ended long before.
const TURNS: usize = 40;

/// The end of a batch, which the test chooses.
#[derive(Debug, PartialEq)]
enum Ending {
    Answer,
    Panic,
}

/// A batch that waits for its end.
#[derive(Debug)]
struct Running {
    end: oneshot::Sender<Ending>,
    queries: Vec<String>,
}

#[derive(Debug, Default)]
struct Batches {
    running: Vec<Running>,
    searched: HashMap<String, usize>,
    most_running: usize,
}

/// A back end that answers each query when the test says so, by hits that depend on that query alone.
#[derive(Clone, Debug, Default)]
struct Held(Arc<Mutex<Batches>>);

/// Returns `top_k` hits, the first at a row that is computed from the query.
fn hits(query: &str, top_k: usize) -> Vec<Hit> {
    let first = query.bytes().fold(7u32, |sum, byte| sum * 31 % 65_521 + u32::from(byte));
    (0..top_k as u32).map(|rank| Hit { row: first + rank, score: 100.0 - rank as f32 }).collect()
}

impl Backend for Held {
    fn search(&self, batch: QueryBatch, ticket: Arc<Ticket>) -> SearchFuture<'_> {
        let (end, ending) = oneshot::channel();
        let mut batches = self.0.lock().unwrap();
        assert!((1..=MAX_QUERIES).contains(&batch.queries.len()));
        for query in batch.queries.iter() {
            *batches.searched.entry(query.clone()).or_default() += 1;
        }
        batches.running.push(Running { end, queries: batch.queries.to_vec() });
        batches.most_running = batches.most_running.max(batches.running.len());
        drop(batches);
        Box::pin(async move {
            assert!(ending.await != Ok(Ending::Panic), "as the test wants");
            let outcome = |query: &String| {
                if ticket.is_over() {
                    return Err(SearchFault::DeadlineExceeded);
                }
                Ok(hits(query, batch.top_k))
            };
            batch.queries.iter().map(outcome).collect()
        })
    }
}

/// A running request.
struct Asked {
    task: JoinHandle<Vec<QueryOutcome>>,
    queries: Vec<String>,
    top_k: usize,
    is_late: bool,
    is_cancelled: bool,
}

struct World {
    held: Held,
    batcher: Arc<Batcher>,
    metrics: Arc<Metrics>,
    asked: Vec<Asked>,
    submitted: usize,
    /// Queries whose batch has panicked.
    lost: HashSet<String>,
    state: u64,
}

impl World {
    fn new(seed: u64, wait: Duration) -> Self {
        let limits = BatchLimits {
            max_queries: MAX_QUERIES,
            max_tokens: 60,
            wait,
            capacity_queries: QUERIES,
            steady_top_k: usize::MAX,
        };
        let (held, metrics) = (Held::default(), Arc::<Metrics>::default());
        let batcher = Batcher::new(Box::new(held.clone()), limits, Arc::clone(&metrics));
        let (asked, lost) = (Vec::new(), HashSet::new());
        Self { held, batcher: Arc::new(batcher), metrics, asked, submitted: 0, lost, state: seed }
    }

    fn draw(&mut self, below: usize) -> usize {
        (splitmix::next(&mut self.state) % below as u64) as usize
    }

    fn submit(&mut self) {
        let most = if self.draw(9) == 0 { 40 } else { 5 };
        let count = 1 + self.draw(most);
        let queries: Vec<String> =
            (self.submitted..self.submitted + count).map(|number| format!("q{number}")).collect();
        self.submitted += count;
        let top_k = 1 + self.draw(6);
        let is_late = self.draw(12) == 0;
        let limit = if is_late { Duration::ZERO } else { Duration::from_hours(1) };
        let ticket = Arc::new(Ticket::new(limit, None));
        let batch = QueryBatch { queries: queries.clone().into(), top_k };
        let batcher = Arc::clone(&self.batcher);
        let task = tokio::spawn(async move {
            let _guard = AbandonOnDrop(Arc::clone(&ticket));
            batcher.search(batch, ticket).await
        });
        self.asked.push(Asked { task, queries, top_k, is_late, is_cancelled: false });
    }

    fn cancel(&mut self) {
        // Usually one that still waits or runs.
        let back = 1 + self.draw(20);
        let Some(index) = self.asked.len().checked_sub(back) else { return };
        let asked = &mut self.asked[index];
        if !asked.task.is_finished() {
            asked.task.abort();
            asked.is_cancelled = true;
        }
    }

    fn end_one(&mut self) {
        let count = self.held.0.lock().unwrap().running.len();
        if count == 0 {
            return;
        }
        let (index, panics) = (self.draw(count), self.draw(10) == 0);
        let Running { end, queries } = self.held.0.lock().unwrap().running.remove(index);
        if panics {
            self.lost.extend(queries);
        }
        end.send(if panics { Ending::Panic } else { Ending::Answer }).unwrap();
    }

    async fn check(self) -> usize {
        let Self { held, batcher, asked, lost, metrics, .. } = self;
        let Batches { running, searched, most_running } =
            std::mem::take(&mut *held.0.lock().unwrap());
        assert!(running.is_empty() && most_running == 2, "{most_running}");
        let total: usize = searched.values().sum();
        assert_eq!(metrics.batch_queries.read().1, total as u64);
        let mut answered = 0;
        for one in asked {
            let Asked { task, queries, top_k, is_late, is_cancelled } = one;
            let times = |query: &String| searched.get(query).copied().unwrap_or(0);
            assert!(queries.iter().all(|query| times(query) <= 1), "{queries:?} twice");
            if is_cancelled {
                assert!(task.await.unwrap_err().is_cancelled());
                continue;
            }
            let outcomes = task.await.unwrap();
            assert_eq!(outcomes.len(), queries.len());
            answered += queries.len();
            for (query, outcome) in queries.iter().zip(outcomes) {
                let expected = match (is_late, lost.contains(query)) {
                    (true, _) => Err(SearchFault::DeadlineExceeded),
                    (false, true) => Err(SearchFault::Internal),
                    (false, false) => Ok(hits(query, top_k)),
                };
                assert_eq!((&outcome, times(query)), (&expected, usize::from(!is_late)), "{query}");
            }
        }
        assert!(matches!(batcher.shared.lock().next(Instant::now()), Step::Nothing));
        answered
    }
}

async fn settle() {
    for _ in 0..TURNS {
        yield_now().await;
    }
}

async fn run(seed: u64, wait: Duration) {
    println!("seed {seed}, wait {wait:?}");
    let mut world = World::new(seed, wait);
    while world.submitted < QUERIES {
        match world.draw(10) {
            0..5 => world.submit(),
            5..6 => world.cancel(),
            _ => world.end_one(),
        }
        if world.draw(2) == 0 {
            settle().await;
        }
    }
    settle().await;
    while !world.held.0.lock().unwrap().running.is_empty() {
        world.end_one();
        settle().await;
    }
    let (batches, _) = world.metrics.batch_queries.read();
    let answered = world.check().await;
    assert!(answered > QUERIES / 2 && batches > 0, "{answered} answered in {batches} batches");
}

#[tokio::test]
async fn no_query_is_lost_or_answered_twice() {
    // Without a wait, a second batch begins immediately; with an endless one, only when it is full.
    for (seed, wait) in [(1, Duration::ZERO), (2, Duration::from_hours(1))] {
        run(seed, wait).await;
    }
}

fn batcher() -> (Held, Batcher) {
    let held = Held::default();
    let limits = BatchLimits {
        max_queries: MAX_QUERIES,
        max_tokens: 1000,
        wait: Duration::from_hours(1),
        capacity_queries: 100,
        steady_top_k: usize::MAX,
    };
    (held.clone(), Batcher::new(Box::new(held), limits, Arc::default()))
}

fn request(query: &str, top_k: usize) -> QueryBatch {
    QueryBatch { queries: Arc::new([query.to_owned()]), top_k }
}

/// The request ends although its batch never does.
#[tokio::test]
async fn a_deadline_ends_a_request_whose_batch_goes_on() {
    let (held, batcher) = batcher();
    let ticket = Arc::new(Ticket::new(Duration::from_millis(1), None));
    let outcomes = batcher.search(request("a", 1), ticket).await;
    assert_eq!(outcomes, [Err(SearchFault::DeadlineExceeded)]);
    assert!(held.0.lock().unwrap().running.len() <= 1);
}

/// Both requests share the batch, and one of them is cancelled.
#[tokio::test]
async fn a_batch_goes_on_while_one_of_its_requests_is_there() {
    let (held, batcher) = batcher();
    let batcher = Arc::new(batcher);
    let ask = |query: &'static str, top_k| {
        let (batcher, ticket) =
            (Arc::clone(&batcher), Arc::new(Ticket::new(Duration::from_hours(1), None)));
        tokio::spawn(async move {
            let _guard = AbandonOnDrop(Arc::clone(&ticket));
            batcher.search(request(query, top_k), ticket).await
        })
    };
    let end = || held.0.lock().unwrap().running.remove(0);
    let first = ask("first", 1);
    settle().await;
    let (one, other) = (ask("one", 3), ask("other", 1));
    settle().await;
    end().end.send(Ending::Answer).unwrap();
    assert_eq!(first.await.unwrap(), [Ok(hits("first", 1))]);
    settle().await;
    one.abort();
    assert!(one.await.unwrap_err().is_cancelled());
    let shared = end();
    assert_eq!(shared.queries, ["one", "other"]);
    shared.end.send(Ending::Answer).unwrap();
    assert_eq!(other.await.unwrap(), [Ok(hits("other", 1))]);
}
