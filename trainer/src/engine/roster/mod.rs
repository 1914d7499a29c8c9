//! Which sequences run, which wait, and what goes into the next pass: a state machine without tensors.
//!
//! A pass holds the last token of every running sequence, and beside them chunks of what others have
//! yet to see, up to a budget, so that a long prompt never holds up the rest. When the pool runs dry,
//! kept prompts go first, then the caches of sequences between turns, then the youngest running
//! sequence; nothing is lost by that but work, since every sequence keeps its tokens.

mod admission;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use super::blocks::{BlockCopy, BlockPool, PoolIsDry};
use super::builtin::{BuiltinEngineConfig, EngineCounters};
use super::prompts::Prompts;
use super::runner::Draw;
use super::sample::Choice;
use super::sequence::{Place, Sequence};
use super::turn::Turn;
use super::{EngineError, GenerateRequest, Generation, SequenceId};
use crate::token::Tokenizer;

/// Prompts that are kept at most: more than the questions of a step that run at one time.
const KEPT_PROMPTS_MOST: usize = 64;

/// The rows of one sequence in a planned pass.
#[derive(Clone, Debug)]
pub(super) struct PlannedSpan {
    pub(super) sequence: SequenceId,
    pub(super) rows: Range<usize>,
    pub(super) past: usize,
}

/// What the next pass holds.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// To be made before the pass, in this order.
    pub(super) copies: Vec<BlockCopy>,
    pub(super) ids: Vec<u32>,
    pub(super) positions: Vec<u32>,
    pub(super) spans: Vec<PlannedSpan>,
    /// In the order of `drawing`.
    pub(super) draws: Vec<Draw>,
    drawing: Vec<SequenceId>,
    /// Sequences whose prompt ends in this pass, and the row of its last token.
    completing: Vec<(SequenceId, usize)>,
    /// Samples that take their first token and their cache from another's prompt.
    joining: Vec<(SequenceId, SequenceId)>,
    /// Sequences whose blocks must stay as they are.
    planned: BTreeSet<SequenceId>,
}

/// Every sequence with its turn and its blocks.
#[derive(Debug)]
pub(super) struct Roster {
    config: BuiltinEngineConfig,
    pool: BlockPool,
    sequences: BTreeMap<SequenceId, Sequence>,
    /// Oldest first.
    running: Vec<SequenceId>,
    waiting: VecDeque<SequenceId>,
    prompts: Prompts,
    seated: usize,
    counters: EngineCounters,
}

impl Roster {
    /// `blocks` must hold at least one context of the longest length.
    pub(super) fn new(config: BuiltinEngineConfig, blocks: usize) -> Self {
        Self {
            config,
            pool: BlockPool::new(blocks),
            sequences: BTreeMap::new(),
            running: Vec::new(),
            waiting: VecDeque::new(),
            prompts: Prompts::new(if config.share_prompts { KEPT_PROMPTS_MOST } else { 0 }),
            seated: 0,
            counters: EngineCounters::default(),
        }
    }

    /// What was computed since the last call.
    pub(super) fn take_counters(&mut self) -> EngineCounters {
        EngineCounters {
            pool_blocks: self.pool.blocks() as u64,
            most_blocks: self.pool.take_used_most() as u64,
            ..std::mem::take(&mut self.counters)
        }
    }

    pub(super) fn get(&self, sequence: SequenceId) -> Option<&Sequence> {
        self.sequences.get(&sequence)
    }

    pub(super) fn blocks(&self, sequence: SequenceId) -> &[u32] {
        self.sequences.get(&sequence).map_or(&[], |sequence| sequence.table.blocks())
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// Queues a turn of a sequence that is in none.
    pub(super) fn submit(&mut self, request: GenerateRequest) {
        let id = request.sequence;
        let prompt_tokens = request.append.len();
        let sequence = self.sequences.entry(id).or_insert_with(|| Sequence::new(prompt_tokens));
        sequence.tokens.extend(&request.append);
        self.counters.naive_prefill_tokens += sequence.tokens.len() as u64;
        self.counters.continued_tokens += sequence.reached as u64;
        sequence.turn = Some(Turn::new(request));
        sequence.place = Place::Waiting;
        self.waiting.push_back(id);
    }

    /// Forgets a sequence and takes its blocks back; the last one takes the kept prompts along.
    pub(super) fn release(&mut self, id: SequenceId) {
        let Some(mut sequence) = self.sequences.remove(&id) else { return };
        self.pool.release(&mut sequence.table);
        self.seated -= usize::from(sequence.seated);
        self.running.retain(|&other| other != id);
        self.waiting.retain(|&other| other != id);
        if self.sequences.is_empty() {
            self.forget_prompts();
        }
    }

    /// Drops the kept prompts, which belong to the weights that computed them.
    pub(super) fn forget_prompts(&mut self) {
        self.prompts.clear(&mut self.pool);
    }

    /// What the next pass holds; empty if nothing can run.
    pub(super) fn plan(&mut self) -> Plan {
        let mut plan = Plan::default();
        let running = self.running.clone();
        for &id in &running {
            if self.is_in(id, Place::Running) && self.sequences[&id].is_decoding() {
                self.plan_decoding(&mut plan, id);
            }
        }
        let mut budget = self.config.max_prefill_tokens.max(1);
        for &id in &running {
            if budget > 0 && self.is_in(id, Place::Running) && !plan.planned.contains(&id) {
                self.plan_chunk(&mut plan, id, &mut budget);
            }
        }
        self.admit(&mut plan, &mut budget);
        self.join(&mut plan);
        plan
    }

    fn is_in(&self, id: SequenceId, place: Place) -> bool {
        self.sequences.get(&id).is_some_and(|sequence| sequence.place == place)
    }

    /// The last token of a running sequence; it waits if there is no room even after all others gave
    /// theirs.
    fn plan_decoding(&mut self, plan: &mut Plan, id: SequenceId) {
        while self.reserve(plan, id, 1).is_err() {
            if !self.make_room(plan, id) {
                self.preempt(id);
                return;
            }
        }
        self.take_rows(plan, id, 1);
        self.counters.decoded_tokens += 1;
    }

    /// As much of what a running sequence has yet to see as the budget and the pool allow.
    fn plan_chunk(&mut self, plan: &mut Plan, id: SequenceId, budget: &mut usize) {
        let unseen = self.sequences[&id].unseen();
        let rows = unseen.min(*budget);
        while self.reserve(plan, id, rows).is_err() {
            if !self.make_room(plan, id) {
                return;
            }
        }
        *budget -= rows;
        let sequence = &self.sequences[&id];
        let past = sequence.table.tokens();
        // A token that a preempted turn had sampled last is computed here for the first time.
        let decoded = usize::from(rows == unseen && sequence.has_sampled());
        self.counters.decoded_tokens += decoded as u64;
        self.counters.prefill_tokens += (rows - decoded) as u64;
        self.counters.recomputed_tokens += sequence.reached.saturating_sub(past).min(rows) as u64;
        let ends_prompt = past + rows == sequence.prompt_tokens;
        self.take_rows(plan, id, rows);
        if ends_prompt && !self.sequences[&id].has_sampled() {
            plan.completing.push((id, plan.ids.len() - 1));
        }
    }

    fn reserve(&mut self, plan: &mut Plan, id: SequenceId, rows: usize) -> Result<(), PoolIsDry> {
        let Some(sequence) = self.sequences.get_mut(&id) else { return Err(PoolIsDry) };
        let tokens = sequence.table.tokens() + rows;
        plan.copies.extend(self.pool.reserve(&mut sequence.table, tokens)?);
        Ok(())
    }

    /// Appends the next `rows` tokens of a sequence to the pass, with a draw if they are its last.
    fn take_rows(&mut self, plan: &mut Plan, id: SequenceId, rows: usize) {
        let sequence = &self.sequences[&id];
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

    fn draw(&self, plan: &mut Plan, id: SequenceId, row: usize) {
        let sequence = &self.sequences[&id];
        let Some(Turn { request, .. }) = &sequence.turn else { return };
        let position = sequence.tokens.len() as u64;
        plan.draws.push(Draw { row, sampling: request.sampling, key: request.key, position });
        plan.drawing.push(id);
    }

    fn start(&mut self, id: SequenceId) {
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        self.seated += usize::from(!sequence.seated);
        sequence.seated = true;
        sequence.place = Place::Running;
        self.running.push(id);
    }

    /// Frees blocks for `id` by what is cheapest to lose; false if there is nothing left.
    fn make_room(&mut self, plan: &Plan, id: SequenceId) -> bool {
        if self.prompts.drop_oldest(&mut self.pool) {
            return true;
        }
        let holds = |other: &Sequence| !other.table.blocks().is_empty();
        let resting = self.sequences.iter().rev().find(|(other, sequence)| {
            **other != id && sequence.place != Place::Running && holds(sequence)
        });
        if let Some((&other, _)) = resting {
            self.drop_cache(other);
            return true;
        }
        let younger = self.running.iter().rev().take_while(|other| **other != id);
        let victim = younger
            .copied()
            .find(|other| !plan.planned.contains(other) && holds(&self.sequences[other]));
        let Some(victim) = victim else { return false };
        self.preempt(victim);
        true
    }

    /// Takes a running sequence's cache; its turn goes on when there is room again.
    fn preempt(&mut self, id: SequenceId) {
        self.drop_cache(id);
        self.running.retain(|&other| other != id);
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.place = Place::Waiting;
            self.waiting.push_front(id);
        }
    }

    fn drop_cache(&mut self, id: SequenceId) {
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        if !sequence.table.blocks().is_empty() {
            self.pool.release(&mut sequence.table);
            self.counters.preemptions += 1;
        }
    }

    /// Notes down what a pass has computed and drawn; returns whose turns got a token.
    pub(super) fn apply(&mut self, plan: Plan, choices: &[Choice]) -> Vec<SequenceId> {
        for span in &plan.spans {
            let Some(sequence) = self.sequences.get_mut(&span.sequence) else { continue };
            sequence.table.filled(span.rows.len());
            let cached = sequence.table.tokens();
            sequence.reached = sequence.reached.max(cached);
            if cached == sequence.prompt_tokens {
                let prompt = &sequence.tokens[..cached];
                self.prompts.keep(&mut self.pool, prompt, &sequence.table);
            }
        }
        for (id, leader) in plan.joining {
            let Some(leader) = self.sequences.get(&leader) else { continue };
            let table = self.pool.fork(&leader.table, leader.prompt_tokens);
            if let Some(sequence) = self.sequences.get_mut(&id) {
                sequence.reached = table.tokens();
                sequence.table = table;
                self.counters.shared_tokens += sequence.reached as u64;
            }
        }
        for (id, &choice) in plan.drawing.iter().zip(choices) {
            let Some(sequence) = self.sequences.get_mut(id) else { continue };
            if let Some(turn) = &mut sequence.turn {
                sequence.tokens.push(turn.push(choice));
            }
        }
        plan.drawing
    }

    /// Ends those of the given turns that their last token completed.
    pub(super) fn collect(
        &mut self,
        drawn: &[SequenceId],
        tokenizer: &Tokenizer,
        policy_version: u64,
    ) -> Result<Vec<Generation>, EngineError> {
        let mut ended = Vec::new();
        for &id in drawn {
            let Some(sequence) = self.sequences.get_mut(&id) else { continue };
            let Some(turn) = &sequence.turn else { continue };
            let context_is_full = sequence.tokens.len() >= self.config.max_context_tokens;
            let Some(stop) = turn.stop_reason(tokenizer, context_is_full)? else { continue };
            let Some(mut turn) = sequence.turn.take() else { continue };
            let (stop, dropped) = turn.finish(tokenizer, stop)?;
            sequence.tokens.truncate(sequence.tokens.len() - dropped);
            // The last token is seen with what is appended next: its logits are wanted then.
            let cached = sequence.tokens.len() - 1;
            self.pool.truncate(&mut sequence.table, cached);
            sequence.reached = sequence.reached.min(cached);
            sequence.place = Place::Idle;
            self.running.retain(|&other| other != id);
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
