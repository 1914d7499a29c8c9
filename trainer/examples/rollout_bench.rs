//! Plays episodes with given tokens, so that every engine computes the same: the model computes and a token is
//! drawn as usual, then the given token replaces it.
//!
//! `rollout_bench play MODEL SCRIPTS URL RECORD` plays them with the scheduler and records the episodes.
//! `rollout_bench synchronous MODEL RECORD URL` plays a record again, batch by batch: every turn computes its whole
//! context, and all episodes wait for the slowest. `rollout_bench decode MODEL SEQUENCES` only decodes. Each prints a
//! line of JSON. `scripts/bench-rollout` runs them all.

#[path = "support/reading.rs"]
mod reading;

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::contract::client::ClientConfig;
use trainer::engine::{
    BuiltinEngine, BuiltinEngineConfig, Choice, Draw, Engine, EngineError, GenerateRequest, Pass,
    Runner, RunnerChoice, RunnerKind, Sampling, SamplingKey, StopRule, WeightFormat, runner,
};
use trainer::policy::{Compute, Decoder, Policy, Weights, select_compute, threads};
use trainer::rollout::episode::EpisodeJob;
use trainer::rollout::observation::ObservationBudget;
use trainer::rollout::scheduler::{RolloutSettings, default_stop_rule, roll_out};
use trainer::rollout::{SegmentKind, Trajectory};
use trainer::search::http::HttpSearcher;
use trainer::search::{SearchRequest, Searcher};
use trainer::stop::StopFlag;
use trainer::token::Tokenizer;

const CONTEXT_TOKENS: usize = 2560;
const SEQUENCES: usize = 64;
const PASSAGES: usize = 3;
const DECODE_PROMPT_TOKENS: usize = 128;
const DECODE_TOKENS: usize = 64;
const SAMPLING: Sampling = Sampling { temperature: 1.0, top_p: 1.0 };
const WAIT: Duration = Duration::from_mins(1);

/// An episode with given tokens.
#[derive(Deserialize)]
struct Script {
    prompt: usize,
    sample: usize,
    prompt_ids: Vec<u32>,
    turns: Vec<Vec<u32>>,
}

/// A played episode: for each turn the appended tokens, the sampled tokens and the query.
#[derive(Serialize, Deserialize)]
struct Recorded {
    prompt: usize,
    sample: usize,
    turns: Vec<RecordedTurn>,
}

#[derive(Serialize, Deserialize)]
struct RecordedTurn {
    append: Vec<u32>,
    sampled: Vec<u32>,
    query: Option<String>,
}

impl Recorded {
    fn of(trajectory: &Trajectory) -> Self {
        let mut turns = Vec::new();
        let mut append = Vec::new();
        let mut queries = trajectory.searches.iter().map(|search| search.query.clone());
        for segment in &trajectory.segments {
            if segment.kind == SegmentKind::Sampled {
                let (append, sampled) = (std::mem::take(&mut append), segment.token_ids.clone());
                turns.push(RecordedTurn { append, sampled, query: queries.next() });
            } else {
                append.extend(&segment.token_ids);
            }
        }
        Self { prompt: trajectory.prompt, sample: trajectory.sample, turns }
    }
}

/// A runner that replaces drawn tokens with given ones.
#[derive(Debug)]
struct Forced {
    inner: Box<dyn Runner>,
    tokens: BTreeMap<(u64, u64), VecDeque<u32>>,
}

impl Runner for Forced {
    fn run(&mut self, pass: &Pass<'_>, draws: &[Draw]) -> Result<Vec<Choice>, EngineError> {
        let mut choices = self.inner.run(pass, draws)?;
        for (choice, draw) in choices.iter_mut().zip(draws) {
            let given = self.tokens.get_mut(&(draw.key.prompt, draw.key.sample));
            if let Some(token) = given.and_then(VecDeque::pop_front) {
                choice.token = token;
            }
        }
        Ok(choices)
    }

    fn copy_block(&mut self, from: u32, to: u32) {
        self.inner.copy_block(from, to);
    }

    fn set_weights(&mut self, weights: Weights) {
        self.inner.set_weights(weights);
    }
}

/// Returns the runner that the variable BENCH_RUNNER names: auto (the default), native, fused, eager, or the native
/// runner's type of weights.
fn choice() -> Result<RunnerChoice> {
    let word = std::env::var("BENCH_RUNNER").unwrap_or_else(|_| "auto".to_owned());
    let of_kind = |kind| RunnerChoice { kind, format: None };
    let native = |format| RunnerChoice { kind: RunnerKind::Native, format: Some(format) };
    Ok(match word.as_str() {
        "auto" => of_kind(RunnerKind::Auto),
        "native" => of_kind(RunnerKind::Native),
        "fused" => of_kind(RunnerKind::Fused),
        "eager" => of_kind(RunnerKind::Eager),
        "f32" => native(WeightFormat::F32),
        "bf16" => native(WeightFormat::Bf16),
        "int8" => native(WeightFormat::Int8),
        other => {
            bail!(
                "BENCH_RUNNER is {other:?}, expected auto, native, fused, eager, f32, bf16 or int8"
            )
        }
    })
}

/// Loads the model on the device that the variable BENCH_DEVICE names: cpu (the default) or cuda.
fn policy(model: &str) -> Result<Policy> {
    let device = std::env::var("BENCH_DEVICE").unwrap_or_else(|_| "cpu".to_owned());
    Ok(Policy::load(Path::new(model), select_compute(&device, "auto")?)?)
}

type Tokens = BTreeMap<(u64, u64), VecDeque<u32>>;

fn engine(
    policy: &Policy,
    sequences: usize,
    share_prompts: bool,
    tokens: Tokens,
) -> Result<BuiltinEngine> {
    let decoder = Decoder::new(&policy.config, CONTEXT_TOKENS, policy.compute.device);
    let config = BuiltinEngineConfig {
        max_sequences: sequences,
        max_context_tokens: CONTEXT_TOKENS,
        max_prefill_tokens: 512,
        cache_tokens: 0,
        share_prompts,
    };
    let vocabulary = policy.config.vocab_size as u64;
    let blocks = config.cache_blocks();
    let inner = runner(decoder, policy.detached_weights(), blocks, choice()?)?;
    let forced = Box::new(Forced { inner, tokens });
    Ok(BuiltinEngine::with_runner(forced, vocabulary, config))
}

fn searcher(url: &str) -> Result<HttpSearcher> {
    Ok(HttpSearcher::new(ClientConfig::new(url), SEQUENCES)?)
}

fn key(prompt: usize, sample: usize) -> SamplingKey {
    SamplingKey { seed: 0, step: 0, prompt: prompt as u64, sample: sample as u64 }
}

fn read<T: for<'d> Deserialize<'d>>(path: &str) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| path.to_owned())?;
    serde_json::from_str(&text).with_context(|| path.to_owned())
}

fn play(model: &str, scripts: &str, url: &str, record: &str) -> Result<serde_json::Value> {
    let scripts: Vec<Script> = read(scripts)?;
    let tokenizer = Tokenizer::from_folder(Path::new(model))?;
    let given = |script: &Script| {
        let key = key(script.prompt, script.sample);
        ((key.prompt, key.sample), script.turns.concat().into())
    };
    let mut engine = engine(&policy(model)?, SEQUENCES, true, scripts.iter().map(given).collect())?;
    let job = |script: Script| EpisodeJob {
        prompt: script.prompt,
        sample: script.sample,
        example_id: script.prompt.to_string(),
        prompt_text: String::new(),
        prompt_ids: script.prompt_ids,
        key: key(script.prompt, script.sample),
    };
    let jobs: Vec<EpisodeJob> = scripts.into_iter().map(job).collect();
    let config = RolloutSettings {
        max_turns: 4,
        top_k: PASSAGES,
        max_turn_tokens: 500,
        min_turn_tokens: 8,
        observation: ObservationBudget { max_tokens: 300, max_passage_tokens: 160 },
        max_context_tokens: usize::MAX,
        max_running_episodes: SEQUENCES,
        sampling: SAMPLING,
        stop: default_stop_rule(),
        search_batch: Duration::from_millis(5),
        deterministic: false,
        enough_prompts: None,
        stop_flag: StopFlag::never(),
    };
    let mut searcher = searcher(url)?;
    let started = Instant::now();
    let rollout = roll_out(&mut engine, &mut searcher, &tokenizer, jobs, &config, &mut ())?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!(rollout.failed_searches == 0, "{:?}", rollout.last_search_failure);
    let recorded: Vec<Recorded> = rollout.trajectories.iter().map(Recorded::of).collect();
    std::fs::write(record, serde_json::to_vec(&recorded)?)?;
    let sampled: usize = rollout.trajectories.iter().map(Trajectory::sampled_tokens).sum();
    let searches: usize =
        rollout.trajectories.iter().map(|trajectory| trajectory.searches.len()).sum();
    Ok(json!({
        "seconds": seconds,
        "trajectories": rollout.trajectories.len(),
        "sampled_tokens": sampled,
        "searches": searches,
        "search_only_s": rollout.times.search_only.as_secs_f64(),
        "counters": engine.take_counters(),
    }))
}

/// Plays a record in lockstep: all turns over their whole contexts, then all searches, and so on.
fn synchronous(model: &str, record: &str, url: &str) -> Result<serde_json::Value> {
    let recorded: Vec<Recorded> = read(record)?;
    let tokenizer = Tokenizer::from_folder(Path::new(model))?;
    let sampled = |episode: &Recorded| {
        let tokens = episode.turns.iter().flat_map(|turn| turn.sampled.iter().copied()).collect();
        ((episode.prompt as u64, episode.sample as u64), tokens)
    };
    let mut engine =
        engine(&policy(model)?, SEQUENCES, false, recorded.iter().map(sampled).collect())?;
    let mut searcher = searcher(url)?;
    let mut contexts: Vec<Vec<u32>> = recorded.iter().map(|_| Vec::new()).collect();
    let started = Instant::now();
    for turn in 0.. {
        let mut queries = Vec::new();
        let mut active = 0;
        for (index, episode) in recorded.iter().enumerate() {
            let Some(RecordedTurn { append, sampled, query }) = episode.turns.get(turn) else {
                continue;
            };
            active += 1;
            contexts[index].extend(append);
            engine.submit(GenerateRequest {
                sequence: index as u64,
                append: contexts[index].clone(),
                max_new_tokens: sampled.len(),
                stop: StopRule { stop_at: Vec::new(), cut_after: Vec::new() },
                sampling: SAMPLING,
                key: key(episode.prompt, episode.sample),
            })?;
            contexts[index].extend(sampled);
            let ticket = index as u64;
            queries.extend(query.iter().map(|query| SearchRequest {
                ticket,
                query: query.clone(),
                top_k: PASSAGES,
            }));
        }
        if active == 0 {
            break;
        }
        while !engine.is_idle() {
            engine.step(&tokenizer)?;
        }
        for index in 0..recorded.len() {
            engine.release(index as u64);
        }
        let mut pending = queries.len();
        if pending > 0 {
            searcher.submit(queries)?;
        }
        while pending > 0 {
            pending -=
                searcher.wait(WAIT, &StopFlag::never())?.context("a search got no answer")?.len();
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let counters = engine.take_counters();
    Ok(json!({ "seconds": seconds, "trajectories": recorded.len(), "counters": counters }))
}

/// Measures the tokens per second while all sequences decode.
fn decode(model: &str, sequences: usize) -> Result<serde_json::Value> {
    let tokenizer = Tokenizer::from_folder(Path::new(model))?;
    let token = |sequence: usize, position: usize| {
        ((sequence * 7919 + position * 104_729) % 40_000 + 100) as u32
    };
    let tokens =
        |sequence| ((0..DECODE_TOKENS).map(|position| token(sequence, position + 1))).collect();
    let given = (0..sequences).map(|sequence| ((sequence as u64, 0), tokens(sequence))).collect();
    let policy = policy(model)?;
    let mut engine = engine(&policy, sequences, true, given)?;
    for sequence in 0..sequences {
        engine.submit(GenerateRequest {
            sequence: sequence as u64,
            append: (0..DECODE_PROMPT_TOKENS)
                .map(|position| token(sequence + 1, position))
                .collect(),
            max_new_tokens: DECODE_TOKENS,
            stop: StopRule { stop_at: Vec::new(), cut_after: Vec::new() },
            sampling: SAMPLING,
            key: key(sequence, 0),
        })?;
    }
    let started = Instant::now();
    let sampled_tokens = |engine: &BuiltinEngine| -> usize {
        (0..sequences as u64).map(|id| engine.partial_tokens(id).len()).sum()
    };
    while (0..sequences as u64).any(|id| engine.partial_tokens(id).is_empty()) {
        ensure!(
            engine.step(&tokenizer)?.is_empty(),
            "a sequence ended while other prompts were being read"
        );
    }
    let prefill = started.elapsed().as_secs_f64();
    let before = sampled_tokens(&engine);
    let started = Instant::now();
    while !engine.is_idle() {
        engine.step(&tokenizer)?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let decoded = sequences * DECODE_TOKENS - before;
    let Compute { device, kind } = policy.compute;
    let number_bytes = match choice()?.native_format(device, kind)? {
        Some(WeightFormat::F32) => 4,
        Some(WeightFormat::Bf16) => 2,
        Some(WeightFormat::Int8) => 1,
        None => kind.elt_size_in_bytes(),
    };
    Ok(json!({
        "tokens_per_s": decoded as f64 / seconds,
        "pass_bytes": reading::numbers_of_a_pass(&policy) * number_bytes,
        "memory_bytes_per_s": reading::bytes_per_second(device, threads()),
        "prefill_tokens_per_s": (sequences * DECODE_PROMPT_TOKENS) as f64 / prefill,
    }))
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let figures = match words[..] {
        ["play", model, scripts, url, record] => play(model, scripts, url, record)?,
        ["synchronous", model, record, url] => synchronous(model, record, url)?,
        ["decode", model, sequences] => {
            decode(model, sequences.parse().context("SEQUENCES is not a number")?)?
        }
        _ => bail!(
            "expected play MODEL SCRIPTS URL RECORD, synchronous MODEL RECORD URL or decode MODEL SEQUENCES"
        ),
    };
    Ok(writeln!(std::io::stdout(), "{figures}")?)
}
