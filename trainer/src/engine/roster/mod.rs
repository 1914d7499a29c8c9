//! The scheduler of the built-in engine: a state machine without tensors that decides which sequences
//! run, which wait, and which tokens the next pass holds.
//!
//! A pass holds the last token of every running sequence. Up to a budget it also holds chunks of tokens
//! that the other sequences have yet to compute, so that a long prompt never delays the rest. When no
//! block is free, kept prompts are dropped first, then the caches of sequences between turns, then the
//! cache of the youngest running sequence. Only work is lost by that: every sequence keeps its tokens.

mod admission;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use super::blocks::{BlockAllocator, BlockCopy, OutOfBlocks};
use super::config::BuiltinEngineConfig;
use super::counters::EngineCounters;
use super::prompts::KeptPrompts;
use super::runner::Draw;
use super::sample::Choice;
use super::sequence::{Sequence, SequenceState};
use super::turn::Turn;
use super::{EngineError, GenerateRequest, Generation, SequenceId};
use crate::token::Tokenizer;

/// The most prompts that are kept: more than the questions of a step that run concurrently.
const KEPT_PROMPTS_MAX: usize = 64;

/// The rows of one sequence in a planned pass.
#[derive(Clone, Debug)]
pub(super) struct PlannedSpan {
    pub(super) sequence: SequenceId,
    pub(super) rows: Range<usize>,
    /// Tokens of the sequence that are cached before the pass.
    pub(super) past: usize,
}

/// The contents of the next pass.
#[derive(Debug, Default)]
pub(super) struct PassPlan {
    /// Copies to make before the pass, in this order.
    pub(super) copies: Vec<BlockCopy>,
    pub(super) ids: Vec<u32>,
    pub(super) positions: Vec<u32>,
    pub(super) spans: Vec<PlannedSpan>,
    /// One draw for each sequence of `drawing`, in the same order.
    pub(super) draws: Vec<Draw>,
    drawing: Vec<SequenceId>,
    /// Sequences whose prompt ends in this pass, each with the row of its last token.
    completing: Vec<(SequenceId, usize)>,
    joining: Vec<Joining>,
    /// Sequences with rows in the pass, whose blocks must stay as they are.
    planned: BTreeSet<SequenceId>,
}

/// A sample that takes its first token and its cache from the prompt of another sequence.
#[derive(Clone, Copy, Debug)]
struct Joining {
    sequence: SequenceId,
    /// The sequence that computes the prompt.
    leader: SequenceId,
}

/// Every sequence with its turn and its blocks.
#[derive(Debug)]
pub(super) struct Roster {
    config: BuiltinEngineConfig,
    allocator: BlockAllocator,
    sequences: BTreeMap<SequenceId, Sequence>,
    /// Oldest first.
    running: Vec<SequenceId>,
    waiting: VecDeque<SequenceId>,
    prompts: KeptPrompts,
    /// Sequences that count among the `max_sequences` that may hold a cache.
    seated: usize,
    counters: EngineCounters,
}

impl Roster {
    /// Creates a roster over `blocks` blocks, which must hold at least one context of the longest length.
    pub(super) fn new(config: BuiltinEngineConfig, blocks: usize) -> Self {
        Self {
            config,
            allocator: BlockAllocator::new(blocks),
            sequences: BTreeMap::new(),
            running: Vec::new(),
            waiting: VecDeque::new(),
            prompts: KeptPrompts::new(if config.share_prompts { KEPT_PROMPTS_MAX } else { 0 }),
            seated: 0,
            counters: EngineCounters::default(),
        }
    }

    /// Returns the counters since the last call and resets them.
    pub(super) fn take_counters(&mut self) -> EngineCounters {
        EngineCounters {
            pool_blocks: self.allocator.blocks() as u64,
            most_blocks: self.allocator.take_most_used() as u64,
            ..std::mem::take(&mut self.counters)
        }
    }

    /// Returns a sequence that a caller asks for, if the engine knows it.
    pub(super) fn get(&self, sequence: SequenceId) -> Option<&Sequence> {
        self.sequences.get(&sequence)
    }

    /// Returns a sequence of `running`, of `waiting` or of a plan: [`release`](Self::release) removes a
    /// sequence from both lists, and a plan is applied before the next release.
    fn known(&self, id: SequenceId) -> &Sequence {
        self.sequences.get(&id).expect("a scheduled sequence is known until it is released")
    }

    /// Returns a sequence as [`known`](Self::known) does, to change it.
    fn known_mut(&mut self, id: SequenceId) -> &mut Sequence {
        self.sequences.get_mut(&id).expect("a scheduled sequence is known until it is released")
    }

    pub(super) fn blocks(&self, sequence: SequenceId) -> &[u32] {
        self.known(sequence).table.blocks()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// Queues a turn of a sequence that has no turn.
    pub(super) fn submit(&mut self, request: GenerateRequest) {
        let id = request.sequence;
        let prompt_tokens = request.append.len();
        let sequence = self.sequences.entry(id).or_insert_with(|| Sequence::new(prompt_tokens));
        sequence.tokens.extend(&request.append);
        self.counters.naive_prefill_tokens += sequence.tokens.len() as u64;
        self.counters.continued_tokens += sequence.reached as u64;
        sequence.turn = Some(Turn::new(request));
        sequence.state = SequenceState::Waiting;
        self.waiting.push_back(id);
    }

    /// Forgets a sequence, if it is known, and frees its blocks. The last sequence takes the kept prompts
    /// with it.
    pub(super) fn release(&mut self, id: SequenceId) {
        let Some(mut sequence) = self.sequences.remove(&id) else { return };
        self.allocator.release(&mut sequence.table);
        self.seated -= usize::from(sequence.seated);
        self.running.retain(|&other| other != id);
        self.waiting.retain(|&other| other != id);
        if self.sequences.is_empty() {
            self.forget_prompts();
        }
    }

    /// Drops the kept prompts, which belong to the weights that computed them.
    pub(super) fn forget_prompts(&mut self) {
        self.prompts.clear(&mut self.allocator);
    }

    /// Plans the next pass; it is empty if nothing can run.
    ///
    /// Decoding sequences come first, because each costs one row and keeps its turn moving. Then running
    /// sequences continue their prompts and observations, oldest first. The rest of the budget admits waiting
    /// sequences.
    pub(super) fn plan(&mut self) -> PassPlan {
        let mut plan = PassPlan::default();
        let running = self.running.clone();
        // A sequence that was planned earlier in this loop may have preempted a later one.
        for &id in &running {
            if self.is_running(id) && self.known(id).is_decoding() {
                self.plan_decoding(&mut plan, id);
            }
        }
        let mut budget = self.config.max_prefill_tokens.max(1);
        for &id in &running {
            if budget > 0 && self.is_running(id) && !plan.planned.contains(&id) {
                self.plan_chunk(&mut plan, id, &mut budget);
            }
        }
        self.admit(&mut plan, &mut budget);
        self.join(&mut plan);
        plan
    }

    fn is_running(&self, id: SequenceId) -> bool {
        self.known(id).state == SequenceState::Running
    }

    /// Plans the last token of a running sequence. If no block is free even after all others have released
    /// theirs, the sequence itself is preempted.
    fn plan_decoding(&mut self, plan: &mut PassPlan, id: SequenceId) {
        while self.reserve(plan, id, 1).is_err() {
            if !self.free_blocks_for(plan, id) {
                self.preempt(id);
                return;
            }
        }
        self.take_rows(plan, id, 1);
        self.counters.decoded_tokens += 1;
    }

    /// Plans as many uncomputed tokens of a running sequence as budget and blocks allow.
    fn plan_chunk(&mut self, plan: &mut PassPlan, id: SequenceId, budget: &mut usize) {
        let unseen = self.known(id).unseen();
        let rows = unseen.min(*budget);
        while self.reserve(plan, id, rows).is_err() {
            if !self.free_blocks_for(plan, id) {
                return;
            }
        }
        *budget -= rows;
        let sequence = self.known(id);
        let past = sequence.table.tokens();
        let has_sampled = sequence.has_sampled();
        let ends_prompt = past + rows == sequence.prompt_tokens;
        let recomputed = sequence.reached.saturating_sub(past).min(rows);
        // The last token that a preempted turn had sampled is computed here for the first time.
        let decoded = usize::from(rows == unseen && has_sampled);
        self.counters.decoded_tokens += decoded as u64;
        self.counters.prefill_tokens += (rows - decoded) as u64;
        self.counters.recomputed_tokens += recomputed as u64;
        self.take_rows(plan, id, rows);
        if ends_prompt && !has_sampled {
            plan.completing.push((id, plan.ids.len() - 1));
        }
    }

    fn reserve(
        &mut self,
        plan: &mut PassPlan,
        id: SequenceId,
        rows: usize,
    ) -> Result<(), OutOfBlocks> {
        let Self { sequences, allocator, .. } = self;
        let sequence = sequences.get_mut(&id).expect("a planned sequence is known");
        let tokens = sequence.table.tokens() + rows;
        plan.copies.extend(allocator.reserve(&mut sequence.table, tokens)?);
        Ok(())
    }

    /// Appends the next `rows` tokens of a sequence to the pass, with a draw if they are its last.
    fn take_rows(&self, plan: &mut PassPlan, id: SequenceId, rows: usize) {
        let sequence = self.known(id);
        let past = sequence.table.tokens();
        let start = plan.ids.len();
        plan.ids.extend(&sequence.tokens[past..past + rows]);
        plan.positions.extend((past..past + rows).map(|position| position as u32));
        plan.spans.push(PlannedSpan { sequence: id, rows: start..start + rows, past });
        plan.planned.insert(id);
        if past + rows == sequence.tokens.len() {
            self.draw(plan, id, start + rows - 1);
        }
    }

    fn draw(&self, plan: &mut PassPlan, id: SequenceId, row: usize) {
        let sequence = self.known(id);
        let turn = sequence.turn.as_ref().expect("a running sequence has a turn");
        let Turn { request, .. } = turn;
        let position = sequence.tokens.len() as u64;
        plan.draws.push(Draw { row, sampling: request.sampling, key: request.key, position });
        plan.drawing.push(id);
    }

    fn start(&mut self, id: SequenceId) {
        let sequence = self.known_mut(id);
        let was_seated = std::mem::replace(&mut sequence.seated, true);
        sequence.state = SequenceState::Running;
        self.seated += usize::from(!was_seated);
        self.running.push(id);
    }

    /// Frees blocks for `id` by releasing the cache that is cheapest to lose; returns `false` if none can
    /// be released.
    fn free_blocks_for(&mut self, plan: &PassPlan, id: SequenceId) -> bool {
        if self.prompts.drop_oldest(&mut self.allocator) {
            return true;
        }
        let resting = self.sequences.iter().rev().find(|(other, sequence)| {
            **other != id && sequence.state != SequenceState::Running && sequence.holds_blocks()
        });
        if let Some((&resting, _)) = resting {
            self.drop_cache(resting);
            return true;
        }
        let mut younger = self.running.iter().rev().take_while(|other| **other != id).copied();
        let victim = younger
            .find(|other| !plan.planned.contains(other) && self.known(*other).holds_blocks());
        let Some(victim) = victim else { return false };
        self.preempt(victim);
        true
    }

    /// Releases a running sequence's cache; its turn resumes when blocks are free again.
    fn preempt(&mut self, id: SequenceId) {
        self.drop_cache(id);
        self.running.retain(|&other| other != id);
        self.known_mut(id).state = SequenceState::Waiting;
        self.waiting.push_front(id);
    }

    fn drop_cache(&mut self, id: SequenceId) {
        let Self { sequences, allocator, counters, .. } = self;
        let sequence = sequences.get_mut(&id).expect("a sequence with a cache is known");
        if sequence.holds_blocks() {
            allocator.release(&mut sequence.table);
            counters.preemptions += 1;
        }
    }

    /// Records the tokens that a pass computed and drew; returns the sequences whose turns got a token.
    pub(super) fn apply(&mut self, plan: PassPlan, choices: &[Choice]) -> Vec<SequenceId> {
        let Self { sequences, allocator, prompts, counters, .. } = self;
        for span in &plan.spans {
            let sequence = sequences.get_mut(&span.sequence).expect("a planned sequence is known");
            sequence.table.record_written(span.rows.len());
            let cached = sequence.table.tokens();
            sequence.reached = sequence.reached.max(cached);
            if cached == sequence.prompt_tokens {
                prompts.keep(allocator, &sequence.tokens[..cached], &sequence.table);
            }
        }
        for Joining { sequence, leader } in plan.joining {
            let leader = sequences.get(&leader).expect("a leader is in the plan");
            let table = allocator.fork(&leader.table, leader.prompt_tokens);
            let sequence = sequences.get_mut(&sequence).expect("a planned sequence is known");
            sequence.reached = table.tokens();
            sequence.table = table;
            counters.shared_tokens += sequence.reached as u64;
        }
        for (id, &choice) in plan.drawing.iter().zip(choices) {
            let sequence = sequences.get_mut(id).expect("a drawing sequence is known");
            let turn = sequence.turn.as_mut().expect("a drawing sequence has a turn");
            sequence.tokens.push(turn.push(choice));
        }
        plan.drawing
    }

    /// Ends those of the given turns that are complete with their last token.
    pub(super) fn collect(
        &mut self,
        drawn: &[SequenceId],
        tokenizer: &Tokenizer,
        policy_version: u64,
    ) -> Result<Vec<Generation>, EngineError> {
        let Self { sequences, allocator, running, config, .. } = self;
        let mut ended = Vec::new();
        for &id in drawn {
            let sequence = sequences.get_mut(&id).expect("a drawing sequence is known");
            let turn = sequence.turn.as_mut().expect("a drawing sequence has a turn");
            let context_is_full = sequence.tokens.len() >= config.max_context_tokens;
            let Some(stop) = turn.stop_reason(tokenizer, context_is_full)? else { continue };
            let (stop, dropped) = turn.finish(tokenizer, stop)?;
            let turn = sequence.turn.take().expect("a drawing sequence has a turn");
            sequence.tokens.truncate(sequence.tokens.len() - dropped);
            // The last token is computed together with what is appended next, when its logits are needed.
            let cached = sequence.tokens.len() - 1;
            allocator.truncate(&mut sequence.table, cached);
            sequence.reached = sequence.reached.min(cached);
            sequence.state = SequenceState::Idle;
            running.retain(|&other| other != id);
            ended.push(Generation {
                sequence: id,
                token_ids: turn.token_ids,
                log_probs: turn.log_probs,
                stop,
                policy_version,
            });
        }
        ended.sort_by_key(|generation| generation.sequence);
        Ok(ended)
    }
}
