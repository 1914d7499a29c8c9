//! The retriever dies during training, and restarts or stays away.

use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;

use trainer::config::Config;
use trainer::rollout::trajectory::{EndReason, Trajectory};
use trainer::run::train;

use crate::harness::http::PATIENCE;
use crate::harness::relay::{Relay, RelayEvent, Rule};
use crate::harness::retriever::RetrieverHandle;
use crate::harness::run_dir::{
    check_searches, checkpoint, comparable_metrics, metrics, trajectories, weights,
};
use crate::harness::tiny_world::TinyWorld;

/// Number of failed attempts before the test restarts the retriever. With the pauses between them, they take
/// seconds; a longer outage differs only in the number of attempts.
const LOST_ATTEMPTS: usize = 4;

#[test]
fn training_continues_when_a_killed_retriever_restarts() {
    let world = TinyWorld::build();
    let retriever = RetrieverHandle::start(&world.index());
    world.warm_start(&retriever);
    let addr = retriever.addr();
    // Every step sends at least two requests, so the third is not in the first step.
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

    assert!(relay.count(RelayEvent::Answered) > 0, "no search was answered after the outage");
    let run = world.run_dir("run");
    let rows = metrics(&run);
    assert_eq!(rows.iter().map(|row| row.step).collect::<Vec<_>>(), [1, 2, 3]);
    for row in rows {
        assert_eq!((row.trajectories, row.dropped_trajectories), (16, 0));
        let episodes = trajectories(&run, row.step);
        assert!(episodes.iter().all(|episode| episode.end != EndReason::SearchFailed));
        // The searches of the outage have the passages that the retriever returns now.
        assert!(check_searches(&episodes, &retriever.url(), 2) > 0);
    }
}

/// The relay in front of the first retriever holds its second search, during which that retriever is killed for good.
#[test]
fn training_continues_with_the_other_retriever_when_one_is_killed() {
    let world = TinyWorld::build();
    let [killed, other] = [0, 0].map(|_| RetrieverHandle::start(&world.index()));
    world.warm_start(&other);
    // The first request compares what the retrievers serve.
    let relay = Relay::start(killed.addr(), Rule::Hold(3));
    let urls = format!("{}, {}", relay.url(), other.url());
    let config = world.config(&urls, "run", &["deterministic=false"]);
    let training = Training::start(config);

    relay.wait_for(RelayEvent::Held);
    killed.stop();
    relay.let_go();
    relay.wait_for(RelayEvent::Lost);
    training.finish().unwrap();

    let run = world.run_dir("run");
    let rows = metrics(&run);
    assert_eq!(rows.iter().map(|row| row.step).collect::<Vec<_>>(), [1, 2, 3]);
    for row in rows {
        assert_eq!((row.trajectories, row.dropped_trajectories), (16, 0));
        assert!(check_searches(&trajectories(&run, row.step), &other.url(), 2) > 0);
    }
}

/// The default deadline is longer than a restart: an outage of twenty seconds, then the longest pause.
#[test]
fn by_default_searches_wait_for_a_restart() {
    assert!(Config::default().retriever.deadline_ms >= 60_000);
}

#[test]
fn trajectories_whose_searches_fail_are_dropped_and_counted() {
    let world = TinyWorld::build();
    let retriever = RetrieverHandle::start(&world.index());
    world.warm_start(&retriever);
    // With four concurrent episodes, the refused request has only some of the step's searches.
    let settings = ["rollout.max_sequences=4", "training.max_failed_search_fraction=0.9"];
    let relay = Relay::start(retriever.addr(), Rule::Refuse(2));
    let config = world.config(&relay.url(), "run", &settings);
    train(&config, &mut Vec::new()).unwrap();

    assert_eq!(relay.count(RelayEvent::Refused), 1);
    let run = world.run_dir("run");
    let mut dropped = Vec::new();
    for row in metrics(&run) {
        let episodes = trajectories(&run, row.step);
        let has_failed = |episode: &&Trajectory| episode.end == EndReason::SearchFailed;
        let failed = episodes.iter().filter(has_failed).count();
        assert_eq!(row.dropped_trajectories, failed as u64);
        dropped.push(failed);
        // Neither the kept nor the dropped trajectories saw an empty result instead of passages.
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
    let unreachable = world.config(&unused_url(), "run", &settings);
    let message = format!("{:#}", train(&unreachable, &mut Vec::new()).unwrap_err());
    for part in ["training.max_failed_search_fraction = 0", "of 16 trajectories", "attempts"] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    assert_eq!(weights(&checkpoint(&run, 1)), saved);
    assert_eq!(comparable_metrics(&run), rows);

    // With the retriever, the same run resumes and finishes.
    let config = world.config(&retriever.url(), "run", &[]);
    train(&config, &mut Vec::new()).unwrap();
    assert_eq!(metrics(&run).len(), 3);
}

/// If any number of failures is allowed, a step without a complete trajectory still changes nothing.
#[test]
fn a_step_without_trajectories_changes_no_weight() {
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
    let config = world.config(&unused_url(), "run", &settings);
    train(&config, &mut Vec::new()).unwrap();
    let run = world.run_dir("run");
    let rows = metrics(&run);
    let row = &rows[0];
    let trajectories = trajectories(&run, 1);
    let unanswered = trajectories.iter().all(|trajectory| trajectory.searches.is_empty());
    assert!(unanswered, "a failed search was recorded as an answered one");
    assert_eq!((row.dropped_trajectories, row.trajectories), (16, 16));
    assert!(row.reward_mean.is_nan(), "a dropped trajectory was rewarded");
    assert!(weights(&checkpoint(&run, 1)) == weights(&world.model()));
}

/// Returns a URL on which nobody listens.
fn unused_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// A training run on its own thread.
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

    /// Waits for the end.
    fn finish(self) -> Result<(), String> {
        self.ended.recv_timeout(2 * PATIENCE).unwrap()
    }
}
