//! The engine inside the trainer: sequences join and leave a running batch.
//!
//! A turn is prefilled (samples of one prompt share its prefill), then decoded one token a step
//! beside all other running sequences. A sequence that waits for passages keeps its cache and
//! costs nothing. Numbers depend on batch composition by rounding only; draws never do.

use std::collections::{BTreeMap, VecDeque};

use tch::Tensor;

use super::kv_cache::{DecodeAttention, KvCache, PrefillAttention, PrefillRun};
use super::turn::{Turn, choose_rows, shares_prompt};
use super::{Engine, EngineError, GenerateRequest, Generation, SequenceId};
use crate::policy::{Decoder, Weights};
use crate::token::Tokenizer;

/// Bounds of the built-in engine.
#[derive(Clone, Copy, Debug)]
pub struct BuiltinEngineConfig {
    /// Sequences that hold a cache at one time.
    pub max_sequences: usize,
    /// Longest context, prompt and sampled tokens together.
    pub max_context_tokens: usize,
    /// New tokens of one prefill pass; a longer single turn still goes alone.
    pub max_prefill_tokens: usize,
}

/// A sequence known to the engine.
#[derive(Debug)]
struct Sequence {
    slot: usize,
    /// Tokens whose keys and values are cached.
    cached: usize,
    /// Sampled but not yet fed through the model.
    pending_token: Option<u32>,
    turn: Option<Turn>,
}

/// Continuous batching over one set of weights.
#[derive(Debug)]
pub struct BuiltinEngine {
    decoder: Decoder,
    weights: Weights,
    policy_version: u64,
    config: BuiltinEngineConfig,
    cache: KvCache,
    sequences: BTreeMap<SequenceId, Sequence>,
    /// Which sequence holds each slot.
    slots: Vec<Option<SequenceId>>,
    queue: VecDeque<GenerateRequest>,
    counters: EngineCounters,
}

/// What the engine has computed since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineCounters {
    pub prefill_tokens: u64,
    /// Prompt tokens that a sample took over from another sample of its prompt.
    pub shared_tokens: u64,
    pub decoded_tokens: u64,
}

impl BuiltinEngine {
    /// `decoder` must hold positions for `config.max_context_tokens`.
    pub fn new(decoder: Decoder, weights: Weights, config: BuiltinEngineConfig) -> Self {
        let (kind, device) = (weights.kind(), weights.device());
        let (slots, tokens) = (config.max_sequences, config.max_context_tokens);
        let cache = KvCache::new(&decoder.config, slots, tokens, kind, device);
        Self {
            decoder,
            weights,
            policy_version: 0,
            config,
            cache,
            sequences: BTreeMap::new(),
            slots: vec![None; slots],
            queue: VecDeque::new(),
            counters: EngineCounters::default(),
        }
    }

    /// Takes new weights between steps; cached keys and values of live sequences stay as they are.
    pub fn set_weights(&mut self, weights: Weights, policy_version: u64) {
        self.weights = weights;
        self.policy_version = policy_version;
    }

    /// What has been computed so far.
    pub fn counters(&self) -> EngineCounters {
        self.counters
    }

    /// Sequences whose turn is running, by slot.
    fn running(&self) -> Vec<(usize, SequenceId)> {
        let running = |(slot, id): (usize, &Option<SequenceId>)| {
            let id = (*id)?;
            self.sequences[&id].turn.is_some().then_some((slot, id))
        };
        self.slots.iter().enumerate().filter_map(running).collect()
    }

    /// Takes queued turns that have a slot or find a free one, up to the prefill budget.
    fn admit(&mut self) -> Vec<GenerateRequest> {
        let mut admitted: Vec<GenerateRequest> = Vec::new();
        let mut waiting = VecDeque::new();
        let mut tokens = 0;
        while let Some(request) = self.queue.pop_front() {
            let known = self.sequences.contains_key(&request.sequence);
            let free = self.slots.iter().position(Option::is_none);
            // A sample that shares its prompt with one already admitted costs no prefill.
            let shared = !known && admitted.iter().any(|other| self.is_same_start(other, &request));
            let cost = if shared { 0 } else { request.append.len() + 1 };
            let over_budget = tokens + cost > self.config.max_prefill_tokens && !shared;
            if (!known && free.is_none()) || (over_budget && !admitted.is_empty()) {
                waiting.push_back(request);
                continue;
            }
            if let (false, Some(slot)) = (known, free) {
                self.slots[slot] = Some(request.sequence);
                let sequence = Sequence { slot, cached: 0, pending_token: None, turn: None };
                self.sequences.insert(request.sequence, sequence);
            }
            tokens += cost;
            admitted.push(request);
        }
        self.queue = waiting;
        admitted
    }

    /// Whether `first`, which is not a later turn, fills a cache that `other` may begin with.
    fn is_same_start(&self, first: &GenerateRequest, other: &GenerateRequest) -> bool {
        self.sequences[&first.sequence].cached == 0 && shares_prompt(first, other)
    }

    /// Feeds the appended tokens of the admitted turns and samples the first token of each.
    fn prefill(&mut self, admitted: Vec<GenerateRequest>) {
        let mut runs = Vec::new();
        let mut leaders: Vec<usize> = Vec::new();
        let (mut ids, mut positions, mut last) = (Vec::new(), Vec::new(), Vec::new());
        // Which pass row each admitted turn reads its logits from.
        let mut rows = Vec::with_capacity(admitted.len());
        for (index, request) in admitted.iter().enumerate() {
            let sequence = &self.sequences[&request.sequence];
            let leader = leaders.iter().position(|&leader| {
                sequence.cached == 0 && self.is_same_start(&admitted[leader], request)
            });
            if let Some(row) = leader {
                rows.push(row);
                self.counters.shared_tokens += request.append.len() as u64;
                continue;
            }
            let new: Vec<u32> =
                sequence.pending_token.iter().chain(&request.append).copied().collect();
            runs.push(PrefillRun { slot: sequence.slot, past: sequence.cached, tokens: new.len() });
            positions.extend((sequence.cached..sequence.cached + new.len()).map(|p| p as i64));
            ids.extend(new.iter().map(|&token| i64::from(token)));
            last.push(ids.len() as i64 - 1);
            rows.push(leaders.len());
            leaders.push(index);
        }
        self.counters.prefill_tokens += ids.len() as u64;
        let logits = self.last_logits(&ids, &positions, &last, runs.clone());
        for (request, row) in admitted.into_iter().zip(rows) {
            let run = runs[row];
            let sequence = self.sequences.get_mut(&request.sequence);
            let Some(sequence) = sequence else { continue };
            sequence.cached = run.past + run.tokens;
            sequence.pending_token = None;
            if sequence.slot != run.slot {
                self.cache.copy_slot(run.slot, sequence.slot, sequence.cached);
            }
            let mut turn = Turn::new(request);
            let row_logits = logits.get(row as i64).unsqueeze(0);
            let choice = choose_rows(&row_logits, &[(&turn, sequence.cached as u64)]);
            sequence.pending_token = Some(turn.push(choice[0]));
            sequence.turn = Some(turn);
        }
    }

    fn last_logits(
        &self,
        ids: &[i64],
        positions: &[i64],
        last: &[i64],
        runs: Vec<PrefillRun>,
    ) -> Tensor {
        let device = self.weights.device();
        let tensor = |values: &[i64]| Tensor::from_slice(values).to_device(device);
        let mut attention = PrefillAttention { cache: &self.cache, runs };
        let (ids, positions) = (tensor(ids), tensor(positions));
        let hidden = self.decoder.hidden_states(&self.weights, &ids, &positions, &mut attention);
        Decoder::logits(&self.weights, &hidden.index_select(0, &tensor(last)))
    }

    /// Keeps the running sequences in the leading slots once half of those slots are idle, since a
    /// decode step computes every leading slot.
    fn compact(&mut self) {
        let running = self.running();
        let leading = running.last().map_or(0, |&(slot, _)| slot + 1);
        if running.len() * 2 > leading {
            return;
        }
        for &(slot, id) in running.iter().rev() {
            let idle = (0..slot).find(|&slot| match self.slots[slot] {
                None => true,
                Some(other) => self.sequences[&other].turn.is_none(),
            });
            let Some(target) = idle else { break };
            let moved = self.sequences[&id].cached;
            match self.slots[target] {
                None => self.cache.copy_slot(slot, target, moved),
                Some(other) => {
                    let tokens = moved.max(self.sequences[&other].cached);
                    self.cache.swap_slots(slot, target, tokens);
                    if let Some(sequence) = self.sequences.get_mut(&other) {
                        sequence.slot = slot;
                    }
                }
            }
            self.slots.swap(slot, target);
            if let Some(sequence) = self.sequences.get_mut(&id) {
                sequence.slot = target;
            }
        }
    }

    /// Feeds each running sequence its last token and samples the next.
    fn decode(&mut self) {
        self.compact();
        let running = self.running();
        let leading = running.last().map_or(0, |&(slot, _)| slot + 1);
        if leading == 0 {
            return;
        }
        // An idle slot computes a token that nobody reads; it is written past the slot's own
        // tokens, where the sequence's next prefill overwrites it.
        let mut ids = vec![0_i64; leading];
        let mut lengths = vec![0_i64; leading];
        for (slot, holder) in self.slots.iter().take(leading).enumerate() {
            if let Some(id) = holder {
                let sequence = &self.sequences[id];
                ids[slot] = sequence.pending_token.map_or(0, i64::from);
                let limit = self.config.max_context_tokens - 1;
                lengths[slot] = sequence.cached.min(limit) as i64;
            }
        }
        let device = self.weights.device();
        let tensor = |values: &[i64]| Tensor::from_slice(values).to_device(device);
        let mut attention = DecodeAttention::new(&self.cache, &lengths);
        let (ids, positions) = (tensor(&ids), tensor(&lengths));
        let hidden = self.decoder.hidden_states(&self.weights, &ids, &positions, &mut attention);
        let rows: Vec<i64> = running.iter().map(|&(slot, _)| slot as i64).collect();
        let logits = Decoder::logits(&self.weights, &hidden.index_select(0, &tensor(&rows)));
        let turns: Vec<(&Turn, u64)> = running
            .iter()
            .filter_map(|(_, id)| {
                let sequence = &self.sequences[id];
                sequence.turn.as_ref().map(|turn| (turn, sequence.cached as u64 + 1))
            })
            .collect();
        let choices = choose_rows(&logits, &turns);
        self.counters.decoded_tokens += choices.len() as u64;
        for ((_, id), choice) in running.iter().zip(choices) {
            if let Some(sequence) = self.sequences.get_mut(id) {
                sequence.cached += 1;
                if let Some(turn) = &mut sequence.turn {
                    sequence.pending_token = Some(turn.push(choice));
                }
            }
        }
    }

    /// Ends the turns whose last token completed them.
    fn collect(&mut self, tokenizer: &Tokenizer) -> Result<Vec<Generation>, EngineError> {
        let mut ended = Vec::new();
        for (&id, sequence) in &mut self.sequences {
            let Some(turn) = &sequence.turn else { continue };
            let context_is_full = sequence.cached + 2 > self.config.max_context_tokens;
            let Some(stop) = turn.stop_reason(tokenizer, context_is_full)? else { continue };
            let Some(mut turn) = sequence.turn.take() else { continue };
            let (stop, dropped) = turn.finish(tokenizer, stop)?;
            // The cache holds every token but the last; a cut drops cached tokens as well.
            sequence.cached -= dropped;
            sequence.pending_token = turn.token_ids.last().copied();
            ended.push(Generation {
                sequence: id,
                token_ids: turn.token_ids,
                log_probs: turn.log_probs,
                stop,
                policy_version: self.policy_version,
            });
        }
        Ok(ended)
    }
}

impl Engine for BuiltinEngine {
    fn submit(&mut self, request: GenerateRequest) -> Result<(), EngineError> {
        let id = request.sequence;
        let held = self.sequences.get(&id);
        let queued = self.queue.iter().any(|other| other.sequence == id);
        if queued || held.is_some_and(|sequence| sequence.turn.is_some()) {
            return Err(EngineError::Busy(id));
        }
        let past = held
            .map_or(0, |sequence| sequence.cached + usize::from(sequence.pending_token.is_some()));
        let needed = past + request.append.len() + 1;
        let limit = self.config.max_context_tokens;
        if needed > limit {
            return Err(EngineError::ContextTooLong { sequence: id, needed, limit });
        }
        if past + request.append.len() == 0 {
            return Err(EngineError::Other(format!("sequence {id} has an empty prompt")));
        }
        let vocabulary = self.decoder.config.vocab_size;
        if let Some(token) = request.append.iter().find(|&&token| i64::from(token) >= vocabulary) {
            return Err(EngineError::Other(format!(
                "sequence {id}: token {token} is not among the model's {vocabulary} tokens; the \
                 tokenizer and the model do not belong together"
            )));
        }
        self.queue.push_back(request);
        Ok(())
    }

    fn step(&mut self, tokenizer: &Tokenizer) -> Result<Vec<Generation>, EngineError> {
        tch::no_grad(|| {
            let admitted = self.admit();
            if !admitted.is_empty() {
                self.prefill(admitted);
                let ended = self.collect(tokenizer)?;
                if !ended.is_empty() {
                    return Ok(ended);
                }
            }
            self.decode();
            self.collect(tokenizer)
        })
    }

    fn partial_tokens(&self, sequence: SequenceId) -> &[u32] {
        let turn = self.sequences.get(&sequence).and_then(|sequence| sequence.turn.as_ref());
        turn.map_or(&[], |turn| &turn.token_ids)
    }

    fn release(&mut self, sequence: SequenceId) {
        if let Some(sequence) = self.sequences.remove(&sequence) {
            self.slots[sequence.slot] = None;
        }
        self.queue.retain(|request| request.sequence != sequence);
    }

    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.sequences.values().all(|sequence| sequence.turn.is_none())
    }

    fn max_context_tokens(&self) -> usize {
        self.config.max_context_tokens
    }
}
