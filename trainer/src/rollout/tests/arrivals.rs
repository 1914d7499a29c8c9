//! Episodes that arrive and are cancelled while others run.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use super::scripted::{ScriptedEngine, ScriptedSearcher, Timing, documents, jobs, settings};
use crate::engine::Sampling;
use crate::rollout::{Arrival, Arrivals, RolloutEvent, RolloutObserver, roll_out_as_they_come};
use crate::token::Tokenizer;

/// The events so far. Four episodes arrive together and a fifth later; two are cancelled, one of them
/// during its search.
#[derive(Default)]
struct Seen {
    searching: BTreeSet<usize>,
    finished: BTreeSet<usize>,
    most_sampled: usize,
    takes: usize,
}

struct Source<'s>(&'s RefCell<Seen>);

fn arrival(id: usize) -> Arrival {
    let job = jobs(&["p"]).remove(0);
    let sampling = Sampling { temperature: 0.0, top_p: 1.0 };
    Arrival::Job { id, job, sampling, max_sampled_tokens: 1000 }
}

impl Arrivals for Source<'_> {
    fn take(&mut self, _: Duration) -> Option<Vec<Arrival>> {
        let mut seen = self.0.borrow_mut();
        seen.takes += 1;
        if seen.takes == 1 {
            return Some((0..4).map(arrival).collect());
        }
        if seen.takes == 3 {
            // One episode in its first turn, and one that does not exist.
            return Some(vec![Arrival::Cancel { id: 2 }, Arrival::Cancel { id: 77 }]);
        }
        if seen.searching.contains(&1) && seen.searching.len() < 10 {
            seen.searching.extend(100..110);
            return Some(vec![Arrival::Cancel { id: 1 }, arrival(4)]);
        }
        (seen.finished.len() < 3).then(Vec::new)
    }
}

impl RolloutObserver for &RefCell<Seen> {
    fn observe(&mut self, event: RolloutEvent<'_>) {
        let mut seen = self.borrow_mut();
        match event {
            RolloutEvent::Searching { job, .. } => {
                seen.searching.insert(job);
            }
            RolloutEvent::Finished { job, trajectory, .. } => {
                assert_eq!(trajectory.searches.len(), 1);
                assert!(seen.finished.insert(job), "job {job} finished twice");
            }
            RolloutEvent::Sampling { token_ids, .. } => {
                seen.most_sampled = seen.most_sampled.max(token_ids.len());
            }
            _ => {}
        }
    }
}

#[test]
fn cancelled_episodes_are_released_and_do_not_disturb_the_others() {
    for timing in [Timing::Immediate, Timing::LateAndReversed] {
        let turns = ["<search>q</search>", "<answer>a</answer>"];
        let slow = ["<think>for a while</think><search>q</search>", "<answer>a</answer>"];
        let mut engine = ScriptedEngine::from_texts(&[&turns, &turns, &slow, &slow, &turns]);
        let mut searcher = ScriptedSearcher::new(documents(&[("*", &["t\ntext"])]), timing);
        let seen = RefCell::new(Seen::default());
        roll_out_as_they_come(
            &mut engine,
            &mut searcher,
            &Tokenizer::characters(),
            &mut Source(&seen),
            &settings(false),
            &mut &seen,
        )
        .unwrap();
        assert_eq!(seen.borrow().finished, BTreeSet::from([0, 3, 4]), "{timing:?}");
        assert_eq!(engine.released, BTreeSet::from([0, 1, 2, 3, 4]));
        assert!(searcher.cancelled);
    }
}
