//! The retriever dies, comes back or stays away while a model is trained.

use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;

use trainer::config::Config;
use trainer::rollout::trajectory::EndReason;
use trainer::run::train;

use crate::harness::http::PATIENCE;
use crate::harness::relay::{Relay, RelayEvent, Rule};
use crate::harness::retriever::RetrieverHandle;
use crate::harness::run_dir::{
    check_searches, checkpoint, comparable_metrics, metrics, trajectories, weights,
};
use crate::harness::tiny_world::TinyWorld;

/// Failed attempts that the test waits for before it starts the retriever again. With the pauses
/// between them this is a matter of seconds; a longer absence differs only in more attempts.
const LOST_ATTEMPTS: usize = 4;

#[test]
fn training_goes_on_when_a_killed_retriever_comes_back() {
    let world = TinyWorld::build();
    let retriever = RetrieverHandle::start(&world.index());
    world.warm_start(&retriever);
    let addr = retriever.addr();
    // Every step sends two requests at least, so that this one is in the middle.
    let relay = Relay::start(addr, Rule::Hold(3));
    let config = world.config(&relay.url(), "run", &["deterministic=false"]);
    let training = Training::start(config);

    relay.wait_for(RelayEvent::Held);
    retriever.stop();
    relay.let_go();
    for _ in 0..LOST_ATTEMPTS {
        relay.wait_for(RelayEvent::Lost);
    }
    let retriever = RetrieverHandle::start_with(&world.index(), addr.port(), &[]);
    training.finish().unwrap();

    assert!(relay.count(RelayEvent::Answered) > 0, "nothing was searched after the outage");
    let run = world.run_dir("run");
    let rows = metrics(&run);
    assert_eq!(rows.iter().map(|row| row.step).collect::<Vec<_>>(), [1, 2, 3]);
    for row in rows {
        assert_eq!((row.trajectories, row.dropped_trajectories), (16, 0));
        let episodes = trajectories(&run, row.step);
        assert!(episodes.iter().all(|one| one.end != EndReason::SearchFailed));
        // What was found during the outage is what is found now, never nothing.
        assert!(check_searches(&episodes, &retriever.url(), 2) > 0);
    }
}

/// The default patience is longer than a restart takes: twenty seconds of absence, and the longest
/// pause after it.
#[test]
fn by_default_searches_wait_for_a_restart() {
    assert!(Config::default().retriever.deadline_ms >= 60_000);
}

#[test]
fn trajectories_whose_searches_fail_are_dropped_and_counted() {
    let world = TinyWorld::build();
    let retriever = RetrieverHandle::start(&world.index());
    world.warm_start(&retriever);
    // Four episodes at a time: the refused request carries the searches of some of a step's only.
    let settings = ["rollout.max_sequences=4", "training.max_failed_search_fraction=0.9"];
    let relay = Relay::start(retriever.addr(), Rule::Refuse(2));
    let config = world.config(&relay.url(), "run", &settings);
    train(&config, &mut Vec::new()).unwrap();

    assert_eq!(relay.count(RelayEvent::Refused), 1);
    let run = world.run_dir("run");
    let mut dropped = Vec::new();
    for row in metrics(&run) {
        let episodes = trajectories(&run, row.step);
        let failed = episodes.iter().filter(|one| one.end == EndReason::SearchFailed).count();
        assert_eq!(row.dropped_trajectories, failed as u64);
        dropped.push(failed);
        // The kept ones saw what there is; the dropped ones saw no empty answer either.
        check_searches(&episodes, &retriever.url(), 2);
    }
    assert!((1..=4).contains(&dropped[0]) && dropped[1..] == [0, 0], "{dropped:?}");
}

#[test]
fn too_many_failed_searches_stop_the_run_and_leave_its_checkpoint() {
    let world = TinyWorld::build();
    let retriever = RetrieverHandle::start(&world.index());
    world.warm_start(&retriever);
    let run = world.run_dir("run");
    let one_step = world.config(&retriever.url(), "run", &["training.steps=1"]);
    train(&one_step, &mut Vec::new()).unwrap();
    let saved = weights(&checkpoint(&run, 1));
    let rows = comparable_metrics(&run);

    let settings = ["retriever.attempt_timeout_ms=300", "retriever.deadline_ms=300"];
    let unreachable = world.config(&nobodys_url(), "run", &settings);
    let message = format!("{:#}", train(&unreachable, &mut Vec::new()).unwrap_err());
    for part in ["training.max_failed_search_fraction = 0", "of 16 trajectories", "attempts"] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    assert_eq!(weights(&checkpoint(&run, 1)), saved);
    assert_eq!(comparable_metrics(&run), rows);

    // With the retriever back the same run goes on to its end.
    let config = world.config(&retriever.url(), "run", &[]);
    train(&config, &mut Vec::new()).unwrap();
    assert_eq!(metrics(&run).len(), 3);
}

/// Where any loss is tolerated, a step without a single whole trajectory teaches nothing.
#[test]
fn a_step_that_lost_every_trajectory_changes_no_weight() {
    let world = TinyWorld::build();
    let retriever = RetrieverHandle::start(&world.index());
    world.warm_start(&retriever);
    let settings = [
        "training.steps=1",
        "training.max_failed_search_fraction=1",
        "rollout.temperature=0.05",
        "retriever.attempt_timeout_ms=300",
        "retriever.deadline_ms=300",
    ];
    let config = world.config(&nobodys_url(), "run", &settings);
    train(&config, &mut Vec::new()).unwrap();
    let run = world.run_dir("run");
    let rows = metrics(&run);
    let row = &rows[0];
    let untouched = trajectories(&run, 1).iter().all(|one| one.searches.is_empty());
    assert!(untouched, "a search that failed is not one that found nothing");
    assert_eq!((row.dropped_trajectories, row.trajectories), (16, 16));
    assert!(row.reward_mean.is_nan(), "nothing was rewarded");
    assert!(weights(&checkpoint(&run, 1)) == weights(&world.model()));
}

/// A URL on which nobody listens.
fn nobodys_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// `trainer train` on a thread of its own.
struct Training {
    ended: mpsc::Receiver<Result<(), String>>,
}

impl Training {
    fn start(config: Config) -> Self {
        let (sender, ended) = mpsc::sync_channel(1);
        thread::spawn(move || {
            let result = train(&config, &mut Vec::new()).map_err(|error| format!("{error:#}"));
            let _ = sender.send(result);
        });
        Self { ended }
    }

    /// Waits for its end.
    fn finish(self) -> Result<(), String> {
        self.ended.recv_timeout(2 * PATIENCE).unwrap()
    }
}
