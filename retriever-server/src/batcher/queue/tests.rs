//! The beginnings of batches, by a clock that the tests control.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const WAIT: Duration = Duration::from_millis(2);
const LIMITS: BatchLimits = BatchLimits {
    max_queries: 4,
    max_tokens: 100,
    wait: WAIT,
    capacity_queries: 10,
    steady_top_k: 5,
};

type Answer = oneshot::Receiver<Vec<QueryOutcome>>;

fn chunk(queries: usize, since: Instant, limit: Duration) -> (Chunk, Answer) {
    let queries = vec!["abcd".to_owned(); queries];
    let tokens = queries.iter().map(|query| estimated_tokens(query)).sum();
    let ticket = Arc::new(Ticket::new(limit, None));
    let (reply, answer) = oneshot::channel();
    (Chunk { queries, tokens, top_k: 1, ticket, since, reply }, answer)
}

struct Line {
    queue: Queue,
    start: Instant,
    answers: Vec<Answer>,
}

impl Line {
    fn new() -> Self {
        Self { queue: Queue::new(LIMITS), start: Instant::now(), answers: Vec::new() }
    }

    fn add(&mut self, queries: usize, after: Duration) -> bool {
        let (chunk, answer) = chunk(queries, self.start + after, Duration::from_hours(1));
        self.answers.push(answer);
        self.queue.push(chunk)
    }

    /// Returns the sizes of the chunks of the batch that begins, if one does.
    fn begun(&mut self, after: Duration) -> Option<Vec<usize>> {
        match self.queue.next(self.start + after) {
            Step::Begin(chunks) => Some(chunks.iter().map(|chunk| chunk.queries.len()).collect()),
            Step::WakeAt(_) | Step::Nothing => None,
        }
    }
}

const ZERO: Duration = Duration::ZERO;

#[test]
fn a_lone_request_does_not_wait() {
    let mut line = Line::new();
    assert_eq!(line.begun(ZERO), None);
    line.add(1, ZERO);
    assert_eq!(line.begun(ZERO), Some(vec![1]));
    assert_eq!(line.begun(ZERO), None);
}

#[test]
fn beside_a_running_batch_queries_wait_for_others() {
    let mut line = Line::new();
    line.add(1, ZERO);
    assert!(line.begun(ZERO).is_some());
    line.add(1, ZERO);
    let due = line.start + WAIT;
    assert!(matches!(line.queue.next(line.start), Step::WakeAt(time) if time == due));
    // One alarm is enough.
    line.add(2, WAIT / 2);
    assert!(matches!(line.queue.next(line.start), Step::Nothing));
    line.queue.woken();
    assert_eq!(line.begun(WAIT), Some(vec![1, 2]), "both, once the first is due");
    line.add(4, WAIT);
    assert_eq!(line.begun(WAIT * 9), None, "two are running");
    line.queue.ended();
    assert_eq!(line.begun(WAIT), Some(vec![4]), "full, and so at once");
    line.queue.ended();
    line.queue.ended();
    line.add(1, WAIT);
    assert_eq!(line.begun(WAIT), Some(vec![1]), "none is running");
}

#[test]
fn a_batch_holds_what_fits_in_the_order_of_coming() {
    let mut line = Line::new();
    for queries in [2, 1, 2, 3] {
        assert!(line.add(queries, ZERO));
    }
    assert!(!line.add(3, ZERO), "ten are as many as may wait");
    assert_eq!(line.begun(ZERO), Some(vec![2, 1]));
    assert_eq!(line.begun(ZERO), Some(vec![2]));
    line.queue.ended();
    line.queue.ended();
    assert_eq!(line.begun(ZERO), Some(vec![3]));
}

/// A list of 6 hits from a graph may differ from the list of 3 in its first hits.
#[test]
fn lists_that_may_differ_are_not_of_one_batch() {
    let mut line = Line::new();
    for top_k in [3, 5, 6, 6, 7] {
        line.add(1, ZERO);
        line.queue.waiting.back_mut().unwrap().top_k = top_k;
    }
    for expected in [2, 2, 1] {
        assert_eq!(line.begun(ZERO), Some(vec![1; expected]));
        line.queue.ended();
    }
}

#[test]
fn what_nobody_wants_does_not_begin() {
    let mut line = Line::new();
    line.add(1, ZERO);
    drop(line.answers.pop());
    let (late, mut answer) = chunk(2, line.start, Duration::ZERO);
    line.queue.push(late);
    assert!(matches!(line.queue.next(line.start), Step::Nothing));
    assert_eq!(
        answer.try_recv().unwrap(),
        [Err(SearchFault::DeadlineExceeded), Err(SearchFault::DeadlineExceeded)]
    );
}

proptest! {
    #[test]
    fn pieces_fit_and_are_the_queries_in_order(
        lengths in prop::collection::vec(0usize..200, 0..40),
        max_queries in 1usize..9,
        max_tokens in 1usize..90,
    ) {
        let queries: Vec<String> =
            lengths.iter().enumerate().map(|(at, &length)| format!("{at:length$}")).collect();
        let limits = BatchLimits { max_queries, max_tokens, ..LIMITS };
        let pieces = pieces(&queries, &limits);
        for (piece, tokens) in &pieces {
            prop_assert!(piece.len() <= max_queries);
            prop_assert!(*tokens <= max_tokens || piece.len() == 1);
            prop_assert_eq!(*tokens, piece.iter().map(|query| estimated_tokens(query)).sum::<usize>());
        }
        let joined: Vec<String> = pieces.into_iter().flat_map(|(piece, _)| piece).collect();
        prop_assert_eq!(joined, queries);
    }
}
