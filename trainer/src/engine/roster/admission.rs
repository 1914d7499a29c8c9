//! Which waiting turns are taken up, and what they need not compute themselves.

use super::super::SequenceId;
use super::super::prompts::usable;
use super::super::runner::BLOCK_TOKENS;
use super::{Plan, Roster};

impl Roster {
    /// Takes up waiting turns in their order while budget and free blocks last.
    pub(super) fn admit(&mut self, plan: &mut Plan, budget: &mut usize) {
        let mut place = 0;
        while *budget > 0 && place < self.waiting.len() {
            let id = self.waiting[place];
            if !self.has_seat(id) || self.waits_for_another(id) {
                place += 1;
                continue;
            }
            if !self.make_ready(plan, id) {
                return;
            }
            self.waiting.remove(place);
            self.start(id);
            self.plan_chunk(plan, id, budget);
        }
    }

    /// Lets waiting samples of the prompts that end in this pass draw from their last rows.
    pub(super) fn join(&mut self, plan: &mut Plan) {
        if plan.completing.is_empty() || !self.config.share_prompts {
            return;
        }
        for id in std::mem::take(&mut self.waiting) {
            let sequence = &self.sequences[&id];
            let prompt_of = |leader: SequenceId| &self.sequences[&leader].tokens;
            let leader = plan
                .completing
                .iter()
                .find(|(leader, _)| sequence.is_fresh() && sequence.tokens == *prompt_of(*leader));
            match leader {
                Some(&(leader, row)) if self.has_seat(id) => {
                    self.start(id);
                    plan.joining.push((id, leader));
                    self.draw(plan, id, row);
                }
                _ => self.waiting.push_back(id),
            }
        }
    }

    fn has_seat(&self, id: SequenceId) -> bool {
        self.sequences[&id].seated || self.seated < self.config.max_sequences
    }

    /// Whether a prompt begins as one that is being computed and has not come so far.
    fn waits_for_another(&self, id: SequenceId) -> bool {
        let sequence = &self.sequences[&id];
        if sequence.table.tokens() > 0 || !self.config.share_prompts {
            return false;
        }
        let (_, kept) = self.prompts.longest(&sequence.tokens);
        self.running.iter().any(|other| {
            let other = &self.sequences[other];
            let Some(prompt) = other.prompt_in_progress() else { return false };
            let common = usable(prompt, &sequence.tokens);
            let is_same = sequence.is_fresh() && sequence.tokens == prompt;
            let full = common - common % BLOCK_TOKENS;
            is_same || (common > kept && full > other.table.tokens())
        })
    }

    /// Gives a waiting sequence what others have computed of its tokens, and room for the rest. Those
    /// that run keep a block each to go on with; if none does, all that rests makes room.
    fn make_ready(&mut self, plan: &mut Plan, id: SequenceId) -> bool {
        let had_cache = self.sequences[&id].table.tokens() > 0;
        self.take_over_prefix(id);
        let going_on = self.running.len();
        loop {
            let sequence = &self.sequences[&id];
            // One more for the first token that is sampled.
            let tokens = (sequence.tokens.len() + 1).min(self.config.max_context_tokens);
            let missing = self.pool.missing(&sequence.table, tokens);
            let unseen = sequence.unseen();
            let fits = missing + going_on <= self.pool.free_blocks();
            if fits && self.reserve(plan, id, unseen).is_ok() {
                return true;
            }
            let freed = self.prompts.drop_oldest(&mut self.pool)
                || (going_on == 0 && self.make_room(plan, id));
            if freed {
                continue;
            }
            // What was taken over would be missing to those that run.
            if let (false, Some(sequence)) = (had_cache, self.sequences.get_mut(&id)) {
                self.pool.release(&mut sequence.table);
            }
            return false;
        }
    }

    /// Shares what a kept prompt, or full blocks of one that is being computed, have in common with a
    /// sequence that has nothing cached.
    fn take_over_prefix(&mut self, id: SequenceId) {
        let sequence = &self.sequences[&id];
        if sequence.table.tokens() > 0 || !self.config.share_prompts {
            return;
        }
        let (mut source, mut common) = self.prompts.longest(&sequence.tokens);
        for other in &self.running {
            let other = &self.sequences[other];
            let Some(prompt) = other.prompt_in_progress() else { continue };
            let alike = usable(prompt, &sequence.tokens).min(other.table.tokens());
            let full = alike - alike % BLOCK_TOKENS;
            if full > common {
                (source, common) = (Some(&other.table), full);
            }
        }
        let Some(source) = source else { return };
        let table = self.pool.fork(source, common);
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.table = table;
            // Work that is saved, unless it is the sequence's own that was lost.
            self.counters.shared_tokens += common.saturating_sub(sequence.reached) as u64;
            sequence.reached = sequence.reached.max(common);
        }
    }
}
