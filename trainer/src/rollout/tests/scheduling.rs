//! The scheduler: who waits for whom, what goes out together, what happens on failure.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use super::scripted::{ScriptedEngine, ScriptedSearcher, Timing, config, documents, jobs};
use crate::rollout::{
    EndReason, RolloutConfig, RolloutError, RolloutEvent, RolloutObserver, SegmentKind, roll_out,
};
use crate::search::{SearchOutcome, SearchRequest, Searcher, SearcherError};
use crate::token::Tokenizer;

const SEARCH_THEN_ANSWER: &[&str] = &["<search>q</search>", "<answer>a</answer>"];

/// Answers job 0 only when it is waited for, and notes who had finished by then.
struct OneSlowSearch {
    inner: ScriptedSearcher,
    slow: Vec<SearchRequest>,
    finished: Rc<RefCell<BTreeSet<usize>>>,
    finished_when_waited_for: Vec<BTreeSet<usize>>,
}

impl Searcher for OneSlowSearch {
    fn submit(&mut self, requests: Vec<SearchRequest>) -> Result<(), SearcherError> {
        let (slow, fast): (Vec<_>, Vec<_>) = requests.into_iter().partition(|r| r.ticket == 0);
        self.slow.extend(slow);
        if fast.is_empty() { Ok(()) } else { self.inner.submit(fast) }
    }

    fn poll(&mut self) -> Result<Vec<SearchOutcome>, SearcherError> {
        self.inner.poll()
    }

    fn wait(&mut self, _: Duration) -> Result<Option<Vec<SearchOutcome>>, SearcherError> {
        let fast = self.inner.poll()?;
        if !fast.is_empty() {
            return Ok(Some(fast));
        }
        self.finished_when_waited_for.push(self.finished.borrow().clone());
        self.inner.submit(std::mem::take(&mut self.slow))?;
        self.inner.poll().map(Some)
    }

    fn cancel(&mut self) {}
}

struct NoteFinished(Rc<RefCell<BTreeSet<usize>>>);

impl RolloutObserver for NoteFinished {
    fn observe(&mut self, event: RolloutEvent<'_>) {
        if let RolloutEvent::Finished { job, done, total, .. } = event {
            self.0.borrow_mut().insert(job);
            assert_eq!(done, self.0.borrow().len());
            assert_eq!(total, 4);
        }
    }
}

#[test]
fn one_slow_search_does_not_hold_up_the_other_episodes() {
    let finished = Rc::new(RefCell::new(BTreeSet::new()));
    let found = documents(&[("*", &["t\ntext"])]);
    let mut searcher = OneSlowSearch {
        inner: ScriptedSearcher::new(found, Timing::Immediate),
        slow: Vec::new(),
        finished: Rc::clone(&finished),
        finished_when_waited_for: Vec::new(),
    };
    let long =
        ["<search>a</search>", "<search>b</search>", "<search>c</search>", "<answer>z</answer>"];
    let mut engine =
        ScriptedEngine::of(&[SEARCH_THEN_ANSWER, &long, SEARCH_THEN_ANSWER, SEARCH_THEN_ANSWER]);
    // The fourth episode starts only when another one has made room for it.
    let config = RolloutConfig { max_running_episodes: 3, ..config(false) };
    let rollout = roll_out(
        &mut engine,
        &mut searcher,
        &Tokenizer::characters(),
        jobs(&["p", "p", "p", "p"]),
        &config,
        &mut NoteFinished(Rc::clone(&finished)),
    )
    .unwrap();
    assert_eq!(searcher.finished_when_waited_for, [BTreeSet::from([1, 2, 3])]);
    assert_eq!(rollout.ended(EndReason::Answered), 4);
    assert_eq!(rollout.trajectories[1].searches.len(), 3);
}

/// The tickets of each request, where two queries are ready at once and a third one later.
#[track_caller]
fn check_requests(deterministic: bool, search_batch: Duration, expected: &[&[u64]]) {
    let mut engine = ScriptedEngine::of(&[
        &["<search>x</search>", "<answer>a</answer>"],
        &["<search>y</search>", "<answer>a</answer>"],
        &["long thoughts first <search>z</search>", "<answer>a</answer>"],
    ]);
    let mut searcher = ScriptedSearcher::new(documents(&[]), Timing::Immediate);
    let (jobs, tokenizer) = (jobs(&["p", "p", "p"]), Tokenizer::characters());
    let config = RolloutConfig { search_batch, ..config(deterministic) };
    let rollout = roll_out(&mut engine, &mut searcher, &tokenizer, jobs, &config, &mut ()).unwrap();
    assert_eq!(rollout.ended(EndReason::Answered), 3);
    let batches: Vec<Vec<u64>> =
        searcher.batches.iter().map(|b| b.iter().map(|r| r.ticket).collect()).collect();
    assert_eq!(batches, expected);
}

#[test]
fn queries_that_are_ready_at_the_same_moment_go_out_in_one_request() {
    let together = config(false).search_batch;
    check_requests(false, together, &[&[0, 1], &[2]]);
    check_requests(true, together, &[&[0, 1, 2]]);
}

#[test]
fn queries_go_out_alone_where_they_are_not_to_wait_for_others() {
    for deterministic in [false, true] {
        check_requests(deterministic, Duration::ZERO, &[&[0], &[1], &[2]]);
    }
}

/// However long queries may wait for others: not once nothing else is left to do.
#[test]
fn queries_wait_for_others_while_something_runs() {
    check_requests(false, Duration::from_hours(1), &[&[0, 1, 2]]);
}

#[test]
fn in_lock_step_the_engine_sees_the_same_batches_whatever_searches_take() {
    let scripts: &[&[&str]] = &[
        &["<search>a</search>", "<search>bb</search>", "<answer>c</answer>"],
        &["invalid", "<search>bbb</search>", "<answer>cc</answer>"],
        &["<search>aaaa</search>", "<answer>c</answer>"],
    ];
    let run = |timing| {
        let mut engine = ScriptedEngine::of(scripts);
        let mut searcher = ScriptedSearcher::new(documents(&[("*", &["t\nx"])]), timing);
        let jobs = jobs(&["p", "p", "p"]);
        let tokenizer = Tokenizer::characters();
        let rollout =
            roll_out(&mut engine, &mut searcher, &tokenizer, jobs, &config(true), &mut ()).unwrap();
        (rollout.trajectories, engine.batches, searcher.batches)
    };
    let (trajectories, engine_batches, search_batches) = run(Timing::Immediate);
    assert_eq!(run(Timing::LateAndReversed), (trajectories, engine_batches, search_batches));
}

#[test]
fn a_search_that_fails_for_good_ends_its_episode_only() {
    for deterministic in [false, true] {
        let mut engine = ScriptedEngine::of(&[
            SEARCH_THEN_ANSWER,
            &["<search>broken</search>", "<answer>never said</answer>"],
        ]);
        let mut searcher = ScriptedSearcher::new(documents(&[]), Timing::Immediate);
        searcher.failing.insert("broken".to_owned());
        let jobs = jobs(&["p", "p"]);
        let tokenizer = Tokenizer::characters();
        let rollout =
            roll_out(&mut engine, &mut searcher, &tokenizer, jobs, &config(deterministic), &mut ())
                .unwrap();
        assert_eq!(rollout.failed_searches, 1);
        assert_eq!(rollout.last_search_failure.as_deref(), Some("scripted failure"));
        let [answered, failed] = &rollout.trajectories[..] else { panic!("two jobs") };
        assert_eq!(answered.end, EndReason::Answered);
        assert!(answered.end.is_trainable());
        // Nothing found is a success, and shown as such.
        assert_eq!(answered.segments[2].text, "\n\n<information></information>\n\n");
        assert_eq!(failed.end, EndReason::SearchFailed);
        assert!(!failed.end.is_trainable());
        let kinds: Vec<SegmentKind> = failed.segments.iter().map(|s| s.kind).collect();
        assert_eq!(kinds, [SegmentKind::Prompt, SegmentKind::Sampled], "no empty observation");
        assert!(engine.released.contains(&1));
    }
}

#[test]
fn an_engine_failure_gives_everything_back() {
    for deterministic in [false, true] {
        let mut engine = ScriptedEngine::of(&[SEARCH_THEN_ANSWER, &["a longer turn of a model"]]);
        engine.fails_after_turns = Some(1);
        let mut searcher = ScriptedSearcher::new(documents(&[]), Timing::LateAndReversed);
        let jobs = jobs(&["p", "p"]);
        let tokenizer = Tokenizer::characters();
        let result =
            roll_out(&mut engine, &mut searcher, &tokenizer, jobs, &config(deterministic), &mut ());
        assert!(matches!(result, Err(RolloutError::Engine(_))), "{result:?}");
        assert_eq!(engine.released, BTreeSet::from([0, 1]));
        assert!(searcher.cancelled);
    }
}

/// Returns an outcome that nobody asked for.
struct Confused;

impl Searcher for Confused {
    fn submit(&mut self, _: Vec<SearchRequest>) -> Result<(), SearcherError> {
        Ok(())
    }

    fn poll(&mut self) -> Result<Vec<SearchOutcome>, SearcherError> {
        Ok(vec![SearchOutcome { ticket: 77, result: Ok(Vec::new()) }])
    }

    fn wait(&mut self, _: Duration) -> Result<Option<Vec<SearchOutcome>>, SearcherError> {
        self.poll().map(Some)
    }

    fn cancel(&mut self) {}
}

#[test]
fn an_outcome_that_belongs_to_no_episode_is_an_error() {
    let mut engine = ScriptedEngine::of(&[SEARCH_THEN_ANSWER]);
    let tokenizer = Tokenizer::characters();
    let result =
        roll_out(&mut engine, &mut Confused, &tokenizer, jobs(&["p"]), &config(false), &mut ());
    assert!(matches!(result, Err(RolloutError::Protocol(_))), "{result:?}");
}

#[test]
fn the_observer_sees_what_happens_in_order() {
    struct Log(Vec<String>);
    impl RolloutObserver for Log {
        fn observe(&mut self, event: RolloutEvent<'_>) {
            self.0.push(match event {
                RolloutEvent::Appended { segment, .. } => {
                    format!("{:?} {}", segment.kind, segment.text.trim())
                }
                RolloutEvent::Searching { query, .. } => format!("searching {query}"),
                RolloutEvent::Found { passages, .. } => format!("found {}", passages.len()),
                RolloutEvent::SearchFailed { reason, .. } => format!("failed {reason}"),
                RolloutEvent::Finished { done, total, .. } => format!("finished {done}/{total}"),
                // How often there is something to compute or to wait for is the engine's affair.
                RolloutEvent::Stepped { .. }
                | RolloutEvent::Sampling { .. }
                | RolloutEvent::Waited { .. } => return,
            });
        }
    }
    let mut engine = ScriptedEngine::of(&[SEARCH_THEN_ANSWER]);
    let mut searcher = ScriptedSearcher::new(documents(&[("q", &["t\nx"])]), Timing::Immediate);
    let mut log = Log(Vec::new());
    let tokenizer = Tokenizer::characters();
    roll_out(&mut engine, &mut searcher, &tokenizer, jobs(&["p"]), &config(false), &mut log)
        .unwrap();
    let expected = [
        "Prompt p",
        "Sampled <search>q</search>",
        "searching q",
        "found 1",
        "Observation <information>Doc 1(Title: t) x</information>",
        "Sampled <answer>a</answer>",
        "finished 1/1",
    ];
    assert_eq!(log.0, expected);
}

#[test]
fn no_jobs_are_no_work() {
    let mut engine = ScriptedEngine::of(&[]);
    let mut searcher = ScriptedSearcher::new(documents(&[]), Timing::Immediate);
    for deterministic in [false, true] {
        let tokenizer = Tokenizer::characters();
        let config = config(deterministic);
        let rollout =
            roll_out(&mut engine, &mut searcher, &tokenizer, Vec::new(), &config, &mut ()).unwrap();
        assert!(rollout.trajectories.is_empty());
    }
    assert!(engine.batches.is_empty());
}
