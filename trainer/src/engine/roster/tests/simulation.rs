//! An engine without a model around the roster. Its cache holds, for each token, a digest of the context up
//! to that token. A block that is lost, given to two writers or shared too far shows as a wrong digest.

use std::collections::{BTreeMap, BTreeSet};

use shared::contract::splitmix;

use super::super::super::blocks::BlockTable;
use super::super::super::sequence::SequenceState;
use super::super::{PassPlan, Roster};
use super::{CONTEXT, Job, VOCABULARY};
use crate::engine::config::BuiltinEngineConfig;
use crate::engine::runner::{BLOCK_TOKENS, Draw};
use crate::engine::sample::Choice;
use crate::engine::{
    GenerateRequest, Generation, Sampling, SamplingKey, SequenceId, StopReason, StopRule,
};
use crate::token::Tokenizer;

/// A token that ends a turn.
const STOP: char = '!';
/// A token after which a turn is cut once it has ended otherwise.
const CUT: char = '#';

/// A turn that was submitted and has not ended.
#[derive(Debug)]
struct OpenTurn {
    max_new_tokens: usize,
    drawn: Vec<u32>,
}

impl OpenTurn {
    /// Returns how many tokens are kept and why the turn ends, or `None` if it continues.
    fn ending(&self, context_is_full: bool) -> Option<(usize, StopReason)> {
        let drawn = &self.drawn;
        if *drawn.last()? == u32::from(STOP) {
            return Some((drawn.len(), StopReason::Tag(STOP.to_string())));
        }
        if !context_is_full && drawn.len() < self.max_new_tokens {
            return None;
        }
        let cut = drawn.iter().position(|&token| token == u32::from(CUT));
        let ending = cut.map(|index| (index + 1, StopReason::Tag(CUT.to_string())));
        Some(ending.unwrap_or((drawn.len(), StopReason::Length)))
    }
}

/// A sequence as the roster must know it.
#[derive(Debug)]
struct Model {
    context: Vec<u32>,
    turn: Option<OpenTurn>,
    turns_submitted: usize,
    /// The pass before which the next turn is submitted.
    next_turn_at: usize,
}

/// A roster with a shadow of its cache and of its sequences.
#[derive(Debug)]
pub(super) struct Simulation {
    roster: Roster,
    config: BuiltinEngineConfig,
    cache: Vec<u64>,
    models: BTreeMap<SequenceId, Model>,
    turns_ended: BTreeMap<SequenceId, usize>,
    turns_submitted: BTreeMap<SequenceId, usize>,
}

impl Simulation {
    pub(super) fn new(config: BuiltinEngineConfig, blocks: usize) -> Self {
        Self {
            roster: Roster::new(config, blocks),
            config,
            cache: vec![0; blocks * BLOCK_TOKENS],
            models: BTreeMap::new(),
            turns_ended: BTreeMap::new(),
            turns_submitted: BTreeMap::new(),
        }
    }

    /// Plays all jobs. Panics if an invariant is broken, or if a turn does not end within as many passes as
    /// computing every context several times takes.
    pub(super) fn run(&mut self, jobs: &[Job], weights_change_at: Option<usize>) {
        let turns: usize = jobs.iter().map(|job| job.turns.len()).sum();
        let pauses: usize =
            jobs.iter().map(|job| job.arrives_at + job.pause * job.turns.len()).sum();
        let passes_max = 4 * turns * CONTEXT + pauses;
        for pass in 0..passes_max {
            if weights_change_at == Some(pass) {
                self.roster.forget_prompts();
            }
            self.submit_and_cancel(jobs, pass);
            if self.models.is_empty() && jobs.iter().all(|job| job.arrives_at < pass) {
                return;
            }
            self.pass(jobs, pass);
            self.check_roster();
        }
        panic!("after {passes_max} passes, {} sequences have not ended", self.models.len());
    }

    fn submit_and_cancel(&mut self, jobs: &[Job], pass: usize) {
        for (id, job) in jobs.iter().enumerate() {
            let sequence = id as SequenceId;
            if job.arrives_at == pass {
                let model =
                    Model { context: vec![], turn: None, turns_submitted: 0, next_turn_at: pass };
                self.models.insert(sequence, model);
            }
            let Some(model) = self.models.get_mut(&sequence) else { continue };
            if job.cancelled_after == Some(pass - job.arrives_at) {
                self.roster.release(sequence);
                self.models.remove(&sequence);
                continue;
            }
            if model.turn.is_some() || model.next_turn_at != pass {
                continue;
            }
            let next = job.turns.get(model.turns_submitted);
            let next = next.filter(|turn| model.context.len() + turn.append.len() < CONTEXT);
            let Some(turn) = next else {
                self.roster.release(sequence);
                self.models.remove(&sequence);
                continue;
            };
            model.context.extend(&turn.append);
            model.turn = Some(OpenTurn { max_new_tokens: turn.max_new_tokens, drawn: Vec::new() });
            model.turns_submitted += 1;
            *self.turns_submitted.entry(sequence).or_default() += 1;
            self.roster.submit(GenerateRequest {
                sequence,
                append: turn.append.clone(),
                max_new_tokens: turn.max_new_tokens,
                stop: StopRule {
                    stop_at: vec![STOP.to_string()],
                    cut_after: vec![CUT.to_string()],
                },
                sampling: Sampling { temperature: 1.0, top_p: 1.0 },
                key: SamplingKey { seed: 0, step: 0, prompt: 0, sample: sequence },
            });
        }
    }

    /// Plans, computes and applies one pass.
    fn pass(&mut self, jobs: &[Job], pass: usize) {
        let decoding: Vec<SequenceId> = self
            .roster
            .running
            .iter()
            .copied()
            .filter(|&id| self.roster.known(id).is_decoding())
            .collect();
        let plan = self.roster.plan();
        self.check_plan(&plan, &decoding);
        let choices = self.compute(&plan);
        if plan.spans.is_empty() {
            return;
        }
        let drawing = plan.drawing.clone();
        assert_eq!(self.roster.apply(plan, &choices), drawing);
        for (id, choice) in drawing.iter().zip(&choices) {
            let model = self.models.get_mut(id).expect("only live sequences draw");
            model.context.push(choice.token);
            model.turn.as_mut().expect("only open turns draw").drawn.push(choice.token);
        }
        let ended = self.roster.collect(&drawing, &Tokenizer::characters(), 0).unwrap();
        for generation in ended {
            self.check_generation(&generation);
            let id = generation.sequence;
            let model = self.models.get_mut(&id).expect("checked before");
            model.next_turn_at = pass + 1 + jobs[id as usize].pause;
        }
        // Every turn that had to end has ended.
        for model in self.models.values() {
            let is_full = model.context.len() >= CONTEXT;
            let open = model.turn.as_ref().and_then(|turn| turn.ending(is_full));
            assert_eq!(open, None, "a turn continues after its end");
        }
    }

    /// Checks that the pass holds the next tokens of its sequences, within the budget.
    fn check_plan(&self, plan: &PassPlan, decoding: &[SequenceId]) {
        let mut planned = BTreeSet::new();
        let mut rows = 0;
        let mut prefill = 0;
        for span in &plan.spans {
            let id = span.sequence;
            assert!(planned.insert(id), "sequence {id} has two spans");
            assert_eq!(span.rows.start, rows, "spans follow each other");
            assert!(!span.rows.is_empty(), "a span has rows");
            let context = &self.models[&id].context;
            let tokens = span.past..span.past + span.rows.len();
            assert_eq!(span.past, self.roster.known(id).table.tokens(), "nothing is skipped");
            assert_eq!(plan.ids[span.rows.clone()], context[tokens.clone()], "no token is lost");
            assert!(
                tokens.map(|token| token as u32).eq(plan.positions[span.rows.clone()].to_vec())
            );
            if decoding.contains(&id) {
                assert_eq!(span.rows.len(), 1, "a decoding sequence has one row");
            } else {
                prefill += span.rows.len();
            }
            rows = span.rows.end;
        }
        assert_eq!((plan.ids.len(), plan.positions.len()), (rows, rows));
        assert!(prefill <= self.config.max_prefill_tokens.max(1), "the budget of a pass");
        // Nothing starves: the oldest decoding sequence always continues, and a pass is empty only while
        // sequences between turns hold all seats.
        assert!(decoding.first().is_none_or(|oldest| planned.contains(oldest)), "the oldest waits");
        if plan.spans.is_empty() {
            assert!(plan.draws.is_empty() && plan.copies.is_empty());
            assert!(self.roster.running.is_empty(), "running sequences are left out");
            let waits_for_seat =
                |&id: &SequenceId| !self.roster.known(id).seated && self.seats_are_taken();
            assert!(self.roster.waiting.iter().all(waits_for_seat), "a turn waits for nothing");
        }
    }

    fn seats_are_taken(&self) -> bool {
        self.roster.seated == self.config.max_sequences
    }

    /// Copies blocks, checks that each span reads its own context, writes its rows, and draws.
    fn compute(&mut self, plan: &PassPlan) -> Vec<Choice> {
        for copy in &plan.copies {
            let start = |block: u32| block as usize * BLOCK_TOKENS;
            let from = start(copy.from)..start(copy.from) + BLOCK_TOKENS;
            self.cache.copy_within(from, start(copy.to));
        }
        let mut row_digests = Vec::new();
        for span in &plan.spans {
            let blocks = self.roster.blocks(span.sequence);
            let context = &self.models[&span.sequence].context;
            let digests = digests(&context[..span.past + span.rows.len()]);
            for (token, &digest) in digests.iter().enumerate() {
                let block = blocks[token / BLOCK_TOKENS];
                let slot = block as usize * BLOCK_TOKENS + token % BLOCK_TOKENS;
                if token < span.past {
                    assert_eq!(self.cache[slot], digest, "a cached token is of another context");
                } else {
                    let holders = self.roster.allocator.holders()[block as usize];
                    assert_eq!(holders, 1, "a written block has one holder");
                    self.cache[slot] = digest;
                    row_digests.push(digest);
                }
            }
        }
        assert_eq!(plan.draws.len(), plan.drawing.len());
        let draw = |(draw, id): (&Draw, &SequenceId)| {
            let context = &self.models[id].context;
            assert_eq!((draw.position, draw.key.sample), (context.len() as u64, *id));
            let digest = row_digests[draw.row];
            assert_eq!(Some(&digest), digests(context).last(), "a draw is from its own context");
            let token = splitmix::finalise(digest ^ *id) % u64::from(VOCABULARY);
            Choice { token: token as u32, log_prob: -1.0 }
        };
        plan.draws.iter().zip(&plan.drawing).map(draw).collect()
    }

    /// Checks that a turn ended once, where its rule says, with the tokens that were drawn.
    fn check_generation(&mut self, generation: &Generation) {
        let id = generation.sequence;
        let model = self.models.get_mut(&id).expect("a released sequence ends no turn");
        let turn = model.turn.take().expect("a turn ends once");
        let ending = turn.ending(model.context.len() >= CONTEXT);
        let (kept, reason) = ending.expect("a turn ends only where its rule says");
        assert_eq!(generation.stop, reason);
        assert_eq!(generation.token_ids, turn.drawn[..kept]);
        assert_eq!(generation.log_probs.len(), kept);
        model.context.truncate(model.context.len() - (turn.drawn.len() - kept));
        *self.turns_ended.entry(id).or_default() += 1;
    }

    /// Checks the lists, the seats and the blocks between two passes.
    fn check_roster(&self) {
        let Roster { allocator, sequences, running, waiting, prompts, seated, .. } = &self.roster;
        let mut scheduled = BTreeSet::new();
        let listed = running.iter().map(|id| (id, SequenceState::Running));
        for (id, state) in listed.chain(waiting.iter().map(|id| (id, SequenceState::Waiting))) {
            assert!(scheduled.insert(*id), "sequence {id} is listed twice");
            assert_eq!(sequences[id].state, state);
        }
        let mut holders = vec![0; allocator.blocks()];
        for (id, sequence) in sequences {
            let model = &self.models[id];
            assert_eq!(sequence.tokens, model.context, "sequence {id} lost or gained a token");
            assert_eq!(sequence.turn.is_some(), model.turn.is_some());
            assert_eq!(sequence.state == SequenceState::Idle, !scheduled.contains(id));
            assert_eq!(
                sequence.turn.is_some(),
                scheduled.contains(id),
                "sequence {id} is forgotten"
            );
            assert!(sequence.table.tokens() <= sequence.tokens.len());
            assert!(sequence.seated || !sequence.holds_blocks(), "a cache without a seat");
            for &block in sequence.table.blocks() {
                holders[block as usize] += 1;
            }
        }
        for block in prompts.tables().flat_map(BlockTable::blocks) {
            holders[*block as usize] += 1;
        }
        assert_eq!(allocator.holders(), holders, "holders of blocks");
        let free = holders.iter().filter(|&&holders| holders == 0).count();
        assert_eq!(allocator.free_blocks(), free, "free blocks");
        let with_seat = sequences.values().filter(|sequence| sequence.seated).count();
        assert_eq!(*seated, with_seat);
        assert!(with_seat <= self.config.max_sequences, "more sequences than seats");
    }

    /// Checks that every job played all its turns and nothing is left.
    pub(super) fn check_end(&mut self, jobs: &[Job], cancelled: bool) {
        assert!(self.roster.is_idle() && self.roster.sequences.is_empty());
        let allocator = &self.roster.allocator;
        assert_eq!(allocator.free_blocks(), allocator.blocks(), "blocks outlived their sequences");
        for (id, job) in jobs.iter().enumerate() {
            let count = |turns: &BTreeMap<SequenceId, usize>| {
                turns.get(&(id as SequenceId)).copied().unwrap_or(0)
            };
            let (submitted, ended) = (count(&self.turns_submitted), count(&self.turns_ended));
            if job.cancelled_after.is_none() {
                assert!(submitted > 0 && ended == submitted, "job {id}: {ended} of {submitted}");
            } else {
                assert!(ended <= submitted);
            }
        }
        if !cancelled {
            let counters = self.roster.take_counters();
            assert_eq!(
                counters.prefill_tokens + counters.shared_tokens + counters.continued_tokens,
                counters.naive_prefill_tokens + counters.recomputed_tokens,
                "{counters:?}"
            );
        }
    }
}

/// Returns a digest of the context up to each of its tokens.
fn digests(context: &[u32]) -> Vec<u64> {
    let mut state = 0_u64;
    let digest = |&token: &u32| {
        state = splitmix::finalise(state.wrapping_add(splitmix::INCREMENT) ^ u64::from(token));
        state
    };
    context.iter().map(digest).collect()
}
