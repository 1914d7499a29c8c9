//! The scheduler: waiting, batches of queries, and failures.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use super::scripted::{ScriptedEngine, ScriptedSearcher, Timing, documents, jobs, settings};
use crate::rollout::{
    EndReason, RolloutError, RolloutEvent, RolloutObserver, RolloutSettings, SegmentKind, roll_out,
};
use crate::search::{SearchOutcome, SearchRequest, Searcher, SearcherError};
use crate::stop::StopFlag;
use crate::token::Tokenizer;

const SEARCH_THEN_ANSWER: &[&str] = &["<search>q</search>", "<answer>a</answer>"];

/// A searcher that answers job 0 only in `wait`, and records the jobs that had finished by then.
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

    fn wait(
        &mut self,
        _: Duration,
        _: &StopFlag,
    ) -> Result<Option<Vec<SearchOutcome>>, SearcherError> {
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
    let documents = documents(&[("*", &["t\ntext"])]);
    let mut searcher = OneSlowSearch {
        inner: ScriptedSearcher::new(documents, Timing::Immediate),
        slow: Vec::new(),
        finished: Rc::clone(&finished),
        finished_when_waited_for: Vec::new(),
    };
    let long =
        ["<search>a</search>", "<search>b</search>", "<search>c</search>", "<answer>z</answer>"];
    let mut engine = ScriptedEngine::from_texts(&[
        SEARCH_THEN_ANSWER,
        &long,
        SEARCH_THEN_ANSWER,
        SEARCH_THEN_ANSWER,
    ]);
    // The fourth episode starts only after another one has ended.
    let settings = RolloutSettings { max_running_episodes: 3, ..settings(false) };
    let rollout = roll_out(
        &mut engine,
        &mut searcher,
        &Tokenizer::characters(),
        jobs(&["p", "p", "p", "p"]),
        &settings,
        &mut NoteFinished(Rc::clone(&finished)),
    )
    .unwrap();
    assert_eq!(searcher.finished_when_waited_for, [BTreeSet::from([1, 2, 3])]);
    assert_eq!(rollout.ended(EndReason::Answered), 4);
    assert_eq!(rollout.trajectories[1].searches.len(), 3);
}

/// Checks the tickets of each request; two queries are ready in the same step and a third one later.
#[track_caller]
fn check_requests(deterministic: bool, search_batch: Duration, expected: &[&[u64]]) {
    let mut engine = ScriptedEngine::from_texts(&[
        &["<search>x</search>", "<answer>a</answer>"],
        &["<search>y</search>", "<answer>a</answer>"],
        &["long thoughts first <search>z</search>", "<answer>a</answer>"],
    ]);
    let mut searcher = ScriptedSearcher::new(documents(&[]), Timing::Immediate);
    let (jobs, tokenizer) = (jobs(&["p", "p", "p"]), Tokenizer::characters());
    let settings = RolloutSettings { search_batch, ..settings(deterministic) };
    let rollout =
        roll_out(&mut engine, &mut searcher, &tokenizer, jobs, &settings, &mut ()).unwrap();
    assert_eq!(rollout.ended(EndReason::Answered), 3);
    let batches: Vec<Vec<u64>> =
        searcher.batches.iter().map(|b| b.iter().map(|r| r.ticket).collect()).collect();
    assert_eq!(batches, expected);
}

#[test]
fn queries_that_are_ready_at_the_same_moment_go_out_in_one_request() {
    let together = settings(false).search_batch;
    check_requests(false, together, &[&[0, 1], &[2]]);
    check_requests(true, together, &[&[0, 1, 2]]);
}

#[test]
fn queries_that_must_not_wait_go_out_alone() {
    for deterministic in [false, true] {
        check_requests(deterministic, Duration::ZERO, &[&[0], &[1], &[2]]);
    }
}

/// Queries with a long time limit still go out as soon as the engine is idle.
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
        let mut engine = ScriptedEngine::from_texts(scripts);
        let mut searcher = ScriptedSearcher::new(documents(&[("*", &["t\nx"])]), timing);
        let jobs = jobs(&["p", "p", "p"]);
        let tokenizer = Tokenizer::characters();
        let rollout =
            roll_out(&mut engine, &mut searcher, &tokenizer, jobs, &settings(true), &mut ())
                .unwrap();
        (rollout.trajectories, engine.batches, searcher.batches)
    };
    let (trajectories, engine_batches, search_batches) = run(Timing::Immediate);
    assert_eq!(run(Timing::LateAndReversed), (trajectories, engine_batches, search_batches));
}

#[test]
fn a_search_that_fails_for_good_ends_its_episode_only() {
    for deterministic in [false, true] {
        let mut engine = ScriptedEngine::from_texts(&[
            SEARCH_THEN_ANSWER,
            &["<search>broken</search>", "<answer>never said</answer>"],
        ]);
        let mut searcher = ScriptedSearcher::new(documents(&[]), Timing::Immediate);
        searcher.failing.insert("broken".to_owned());
        let jobs = jobs(&["p", "p"]);
        let tokenizer = Tokenizer::characters();
        let rollout = roll_out(
            &mut engine,
            &mut searcher,
            &tokenizer,
            jobs,
            &settings(deterministic),
            &mut (),
        )
        .unwrap();
        assert_eq!(rollout.failed_searches, 1);
        assert_eq!(rollout.last_search_failure.as_deref(), Some("scripted failure"));
        let [answered, failed] = &rollout.trajectories[..] else { panic!("two jobs") };
        assert_eq!(answered.end, EndReason::Answered);
        assert!(answered.end.is_trainable());
        // An empty result is a success: the model sees an empty frame.
        assert_eq!(answered.segments[2].text, "\n\n<information></information>\n\n");
        assert_eq!(failed.end, EndReason::SearchFailed);
        assert!(!failed.end.is_trainable());
        let kinds: Vec<SegmentKind> = failed.segments.iter().map(|s| s.kind).collect();
        assert_eq!(kinds, [SegmentKind::Prompt, SegmentKind::Sampled], "no empty observation");
        assert!(engine.released.contains(&1));
    }
}

#[test]
fn an_engine_failure_releases_everything() {
    for deterministic in [false, true] {
        let mut engine =
            ScriptedEngine::from_texts(&[SEARCH_THEN_ANSWER, &["a longer turn of a model"]]);
        engine.fails_after_turns = Some(1);
        let mut searcher = ScriptedSearcher::new(documents(&[]), Timing::LateAndReversed);
        let jobs = jobs(&["p", "p"]);
        let tokenizer = Tokenizer::characters();
        let result = roll_out(
            &mut engine,
            &mut searcher,
            &tokenizer,
            jobs,
            &settings(deterministic),
            &mut (),
        );
        assert!(matches!(result, Err(RolloutError::Engine(_))), "{result:?}");
        assert_eq!(engine.released, BTreeSet::from([0, 1]));
        assert!(searcher.cancelled);
    }
}

/// A searcher that returns an outcome without a request.
struct Confused;

impl Searcher for Confused {
    fn submit(&mut self, _: Vec<SearchRequest>) -> Result<(), SearcherError> {
        Ok(())
    }

    fn poll(&mut self) -> Result<Vec<SearchOutcome>, SearcherError> {
        Ok(vec![SearchOutcome { ticket: 77, result: Ok(Vec::new()) }])
    }

    fn wait(
        &mut self,
        _: Duration,
        _: &StopFlag,
    ) -> Result<Option<Vec<SearchOutcome>>, SearcherError> {
        self.poll().map(Some)
    }

    fn cancel(&mut self) {}
}

#[test]
fn an_outcome_that_belongs_to_no_episode_is_an_error() {
    let mut engine = ScriptedEngine::from_texts(&[SEARCH_THEN_ANSWER]);
    let tokenizer = Tokenizer::characters();
    let result =
        roll_out(&mut engine, &mut Confused, &tokenizer, jobs(&["p"]), &settings(false), &mut ());
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
                // The number of steps and waits is the engine's business.
                RolloutEvent::Stepped { .. }
                | RolloutEvent::Sampling { .. }
                | RolloutEvent::Waited { .. } => return,
            });
        }
    }
    let mut engine = ScriptedEngine::from_texts(&[SEARCH_THEN_ANSWER]);
    let mut searcher = ScriptedSearcher::new(documents(&[("q", &["t\nx"])]), Timing::Immediate);
    let mut log = Log(Vec::new());
    let tokenizer = Tokenizer::characters();
    roll_out(&mut engine, &mut searcher, &tokenizer, jobs(&["p"]), &settings(false), &mut log)
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
    let mut engine = ScriptedEngine::from_texts(&[]);
    let mut searcher = ScriptedSearcher::new(documents(&[]), Timing::Immediate);
    for deterministic in [false, true] {
        let tokenizer = Tokenizer::characters();
        let settings = settings(deterministic);
        let rollout =
            roll_out(&mut engine, &mut searcher, &tokenizer, Vec::new(), &settings, &mut ())
                .unwrap();
        assert!(rollout.trajectories.is_empty());
    }
    assert!(engine.batches.is_empty());
}
