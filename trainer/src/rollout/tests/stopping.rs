//! A stopped rollout ends at once and releases everything.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shared::machine::shutdown::Shutdown;

use super::scripted::{ScriptedEngine, ScriptedSearcher, Timing, documents, jobs, settings};
use crate::rollout::{
    Rollout, RolloutError, RolloutEvent, RolloutObserver, RolloutSettings, roll_out,
};
use crate::search::{SearchOutcome, SearchRequest, Searcher, SearcherError};
use crate::stop::StopFlag;
use crate::token::Tokenizer;

/// A flag that the test raises.
#[derive(Clone, Default)]
struct Switch(Arc<AtomicBool>);

impl Switch {
    fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn flag(&self) -> StopFlag {
        let raised = Arc::clone(&self.0);
        StopFlag::asking(move || raised.load(Ordering::Relaxed).then_some(Shutdown::Terminate))
    }
}

fn run(
    engine: &mut ScriptedEngine,
    searcher: &mut dyn Searcher,
    switch: &Switch,
    deterministic: bool,
    observer: &mut dyn RolloutObserver,
) -> Result<Rollout, RolloutError> {
    let settings = RolloutSettings { stop_flag: switch.flag(), ..settings(deterministic) };
    roll_out(engine, searcher, &Tokenizer::characters(), jobs(&["p", "p"]), &settings, observer)
}

/// Raises the flag when the first turn has been sampled.
struct RaiseAfterFirstTurn(Switch);

impl RolloutObserver for RaiseAfterFirstTurn {
    fn observe(&mut self, event: RolloutEvent<'_>) {
        if let RolloutEvent::Searching { .. } = event {
            self.0.raise();
        }
    }
}

#[test]
fn the_engine_takes_no_further_step() {
    let scripts: &[&[&str]] =
        &[&["<search>q</search>", "<answer>a</answer>"], &["a long turn without an action"]];
    let steps_of_first_turn = "<search>q</search>".len();
    let mut engine = ScriptedEngine::from_texts(scripts);
    let mut searcher = ScriptedSearcher::new(documents(&[]), Timing::LateAndReversed);
    let switch = Switch::default();
    let mut observer = RaiseAfterFirstTurn(switch.clone());
    let result = run(&mut engine, &mut searcher, &switch, false, &mut observer);
    assert!(matches!(result, Err(RolloutError::Stopped(_))), "{result:?}");
    assert_eq!(engine.batches.len(), steps_of_first_turn);
    assert_eq!(engine.released, BTreeSet::from([0, 1]));
    assert!(searcher.cancelled);
}

#[test]
fn a_raised_flag_lets_nothing_begin() {
    for deterministic in [false, true] {
        let mut engine =
            ScriptedEngine::from_texts(&[&["<answer>a</answer>"], &["<answer>a</answer>"]]);
        let mut searcher = ScriptedSearcher::new(documents(&[]), Timing::Immediate);
        let switch = Switch::default();
        switch.raise();
        let result = run(&mut engine, &mut searcher, &switch, deterministic, &mut ());
        assert!(matches!(result, Err(RolloutError::Stopped(_))), "{result:?}");
        assert!(engine.batches.is_empty());
    }
}

/// A searcher that never answers and raises the flag in the third wait.
struct Silent {
    switch: Switch,
    waits: usize,
    cancelled: bool,
}

impl Searcher for Silent {
    fn submit(&mut self, _: Vec<SearchRequest>) -> Result<(), SearcherError> {
        Ok(())
    }

    fn poll(&mut self) -> Result<Vec<SearchOutcome>, SearcherError> {
        Ok(Vec::new())
    }

    fn wait(
        &mut self,
        _: Duration,
        stop: &StopFlag,
    ) -> Result<Option<Vec<SearchOutcome>>, SearcherError> {
        self.waits += 1;
        if self.waits == 3 {
            self.switch.raise();
            assert!(stop.check().is_err(), "the wait cannot see the stop");
        }
        Ok(None)
    }

    fn cancel(&mut self) {
        self.cancelled = true;
    }
}

#[test]
fn searches_are_not_waited_for() {
    for deterministic in [false, true] {
        let mut engine =
            ScriptedEngine::from_texts(&[&["<search>q</search>"], &["<search>q</search>"]]);
        let switch = Switch::default();
        let mut searcher = Silent { switch: switch.clone(), waits: 0, cancelled: false };
        let result = run(&mut engine, &mut searcher, &switch, deterministic, &mut ());
        assert!(matches!(result, Err(RolloutError::Stopped(_))), "{result:?}");
        assert_eq!(searcher.waits, 3);
        assert!(searcher.cancelled);
        assert_eq!(engine.released, BTreeSet::from([0, 1]));
    }
}

/// A searcher that returns from a wait before the limit, without an outcome.
struct Empty;

impl Searcher for Empty {
    fn submit(&mut self, _: Vec<SearchRequest>) -> Result<(), SearcherError> {
        Ok(())
    }

    fn poll(&mut self) -> Result<Vec<SearchOutcome>, SearcherError> {
        Ok(Vec::new())
    }

    fn wait(
        &mut self,
        _: Duration,
        _: &StopFlag,
    ) -> Result<Option<Vec<SearchOutcome>>, SearcherError> {
        Ok(Some(Vec::new()))
    }

    fn cancel(&mut self) {}
}

#[test]
fn a_wait_that_ends_with_nothing_is_an_error() {
    for deterministic in [false, true] {
        let mut engine =
            ScriptedEngine::from_texts(&[&["<search>q</search>"], &["<search>q</search>"]]);
        let result = run(&mut engine, &mut Empty, &Switch::default(), deterministic, &mut ());
        assert!(matches!(result, Err(RolloutError::Protocol(_))), "{result:?}");
    }
}
