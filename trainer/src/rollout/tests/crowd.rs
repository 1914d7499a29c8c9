//! Two thousand concurrent episodes over the built-in engine. The retriever is late, sometimes fails, and
//! is cancelled once. No episode is lost or counted twice, and the block pool stays within its limit.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use shared::contract::client::Passage;
use shared::contract::splitmix;
use shared::machine::shutdown::Shutdown;

use super::scripted::settings;
use crate::engine::tests::recall::RecallRunner;
use crate::engine::{BuiltinEngine, BuiltinEngineConfig, SamplingKey};
use crate::rollout::{
    EndReason, EpisodeJob, Rollout, RolloutError, RolloutSettings, Segment, SegmentKind,
    Trajectory, roll_out,
};
use crate::search::{SearchOutcome, SearchRequest, Searcher, SearcherError};
use crate::stop::StopFlag;
use crate::token::Tokenizer;

const EPISODES: usize = 2_000;
const SAMPLES: usize = 4;
const MARK: &str = "</information>";

/// Returns the number of searches of an episode.
fn searches_of(prompt: u64, sample: u64) -> u64 {
    splitmix::finalise(prompt * 64 + sample + 1) % 4
}

fn turn_text(prompt: u64, sample: u64, turn: u64) -> String {
    if turn < searches_of(prompt, sample) {
        format!("<search>{prompt}/{sample}/{turn}</search>")
    } else {
        format!("<answer>{prompt}/{sample}</answer>")
    }
}

/// Returns the token that the scripted model samples after `context`: the next character of its turn.
fn next_character(context: &[u32], key: SamplingKey) -> u32 {
    let text = Tokenizer::characters().decode(context).unwrap();
    let turn = text.matches(MARK).count() as u64;
    let said = text.rsplit(['#', '\n']).next().unwrap_or_default().chars().count();
    let script = turn_text(key.prompt, key.sample, turn);
    let next = script.chars().nth(said);
    u32::from(next.unwrap_or_else(|| panic!("{script:?} has ended, but {text:?} continues")))
}

/// A searcher with a delay that depends on the query; one query in twenty fails.
struct LateSearcher {
    pending: Vec<(u64, SearchRequest)>,
    clock: u64,
    submitted: BTreeSet<String>,
    cancelled: usize,
    /// Number of searches so far, for a test that stops the rollout among them.
    seen: Arc<AtomicUsize>,
}

impl LateSearcher {
    fn new(seen: Arc<AtomicUsize>) -> Self {
        let (pending, submitted) = (Vec::new(), BTreeSet::new());
        Self { pending, clock: 0, submitted, cancelled: 0, seen }
    }

    fn number(query: &str) -> u64 {
        query.bytes().fold(7, |state, byte| splitmix::finalise(state ^ u64::from(byte)))
    }

    fn fails(query: &str) -> bool {
        Self::number(query).is_multiple_of(20)
    }
}

impl Searcher for LateSearcher {
    fn submit(&mut self, requests: Vec<SearchRequest>) -> Result<(), SearcherError> {
        for request in requests {
            self.seen.fetch_add(1, Ordering::Relaxed);
            assert!(self.submitted.insert(request.query.clone()), "{} again", request.query);
            let due = self.clock + 1 + Self::number(&request.query) / 20 % 40;
            self.pending.push((due, request));
        }
        Ok(())
    }

    fn poll(&mut self) -> Result<Vec<SearchOutcome>, SearcherError> {
        self.clock += 1;
        let clock = self.clock;
        let due = self.pending.extract_if(.., |(due, _)| *due <= clock).collect::<Vec<_>>();
        let outcome = |(_, request): (u64, SearchRequest)| {
            let SearchRequest { ticket, query, .. } = request;
            let result = if Self::fails(&query) {
                Err("scripted failure".to_owned())
            } else {
                Ok(vec![Passage::new(format!("id-{query}"), format!("t\nfound {query}"))])
            };
            SearchOutcome { ticket, result }
        };
        Ok(due.into_iter().map(outcome).collect())
    }

    fn wait(
        &mut self,
        _: Duration,
        _: &StopFlag,
    ) -> Result<Option<Vec<SearchOutcome>>, SearcherError> {
        let found = self.poll()?;
        Ok((!found.is_empty()).then_some(found))
    }

    fn cancel(&mut self) {
        self.cancelled += 1;
        self.pending.clear();
        self.submitted.clear();
    }
}

fn crowd() -> Vec<EpisodeJob> {
    let job = |index: usize| {
        let (prompt, sample) = (index / SAMPLES, index % SAMPLES);
        let prompt_text = format!("a template for all of the questions, question {prompt}#");
        EpisodeJob {
            prompt,
            sample,
            example_id: format!("example-{prompt}"),
            prompt_ids: Tokenizer::characters().encode(&prompt_text).unwrap(),
            prompt_text,
            key: SamplingKey { seed: 1, step: 1, prompt: prompt as u64, sample: sample as u64 },
        }
    };
    (0..EPISODES).map(job).collect()
}

/// Creates an engine whose pool holds a sixteenth of the tokens that all episodes together can need.
fn crowded_engine() -> BuiltinEngine {
    let settings = BuiltinEngineConfig {
        max_sequences: EPISODES,
        max_context_tokens: 400,
        max_prefill_tokens: 4096,
        cache_tokens: EPISODES * 24,
        share_prompts: true,
    };
    let runner = RecallRunner::new(settings.cache_blocks(), next_character);
    BuiltinEngine::with_runner(Box::new(runner), 0x11_0001, settings)
}

fn play(
    engine: &mut BuiltinEngine,
    searcher: &mut LateSearcher,
    stop_flag: StopFlag,
) -> Result<Rollout, RolloutError> {
    let settings = RolloutSettings {
        max_running_episodes: EPISODES,
        max_turn_tokens: 60,
        stop_flag,
        ..settings(false)
    };
    roll_out(engine, searcher, &Tokenizer::characters(), crowd(), &settings, &mut ())
}

#[test]
fn two_thousand_episodes_lose_nothing_and_count_nothing_twice() {
    let mut engine = crowded_engine();
    let seen = Arc::new(AtomicUsize::new(0));

    // The first rollout is stopped while searches are pending and turns are running.
    let (watched, asked) = (Arc::clone(&seen), AtomicU8::new(0));
    let enough = StopFlag::asking(move || {
        asked.fetch_or(u8::from(watched.load(Ordering::Relaxed) > 700), Ordering::Relaxed);
        (asked.load(Ordering::Relaxed) > 0).then_some(Shutdown::Terminate)
    });
    let mut searcher = LateSearcher::new(Arc::clone(&seen));
    let error = play(&mut engine, &mut searcher, enough).unwrap_err();
    assert!(matches!(error, RolloutError::Stopped(_)), "{error}");
    assert_eq!(searcher.cancelled, 1);
    assert!(engine.take_counters().most_blocks > 0);
    assert_eq!(engine.take_counters().most_blocks, 0, "blocks outlived the cancelled rollout");

    let rollout = play(&mut engine, &mut searcher, StopFlag::never()).unwrap();
    assert_eq!(rollout.trajectories.len(), EPISODES);
    let mut failed = 0;
    for (index, trajectory) in rollout.trajectories.iter().enumerate() {
        let (prompt, sample) = ((index / SAMPLES) as u64, (index % SAMPLES) as u64);
        assert_eq!((trajectory.prompt as u64, trajectory.sample as u64), (prompt, sample));
        let sent = 0..searches_of(prompt, sample);
        let query = |turn: u64| format!("{prompt}/{sample}/{turn}");
        let failing = sent.clone().find(|turn| LateSearcher::fails(&query(*turn)));
        let turns = failing.map_or(searches_of(prompt, sample) + 1, |turn| turn + 1);
        let is_turn = |segment: &&Segment| segment.kind == SegmentKind::Sampled;
        let written = trajectory.segments.iter().filter(is_turn);
        let expected: Vec<String> =
            (0..turns).map(|turn| turn_text(prompt, sample, turn)).collect();
        assert!(written.map(|turn| &turn.text).eq(&expected), "{trajectory:?}");
        let passage_ids = trajectory.searches.iter().map(|search| search.passage_ids[0].clone());
        let answered = failing.unwrap_or(searches_of(prompt, sample));
        assert!(passage_ids.eq((0..answered).map(|turn| format!("id-{}", query(turn)))));
        let end = if failing.is_some() { EndReason::SearchFailed } else { EndReason::Answered };
        assert_eq!(trajectory.end, end);
        failed += usize::from(failing.is_some());
    }
    assert!((50..400).contains(&failed), "{failed}");
    assert_eq!(rollout.failed_searches, failed);
    let counters = engine.take_counters();
    assert!(counters.most_blocks <= counters.pool_blocks);
    assert!(counters.preemptions > 0, "the pool never ran dry: {counters:?}");
    // The pass that reads the context also yields the first token of a turn; every other token needs a pass.
    let sampled: usize = rollout.trajectories.iter().map(Trajectory::sampled_tokens).sum();
    let is_sampled = |segment: &&Segment| segment.kind == SegmentKind::Sampled;
    let turns_of = |trajectory: &Trajectory| trajectory.segments.iter().filter(is_sampled).count();
    let turns: usize = rollout.trajectories.iter().map(turns_of).sum();
    assert_eq!(counters.decoded_tokens, (sampled - turns) as u64);
    assert_eq!(engine.take_counters().most_blocks, 0, "blocks outlived the rollout");
}
