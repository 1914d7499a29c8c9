//! Admission of waiting turns, and the prefixes that they take over instead of computing them.

use super::super::SequenceId;
use super::super::prompts::usable_prefix;
use super::super::runner::BLOCK_TOKENS;
use super::{Joining, PassPlan, Roster};

impl Roster {
    /// Admits waiting turns in their order while budget and free blocks last.
    pub(super) fn admit(&mut self, plan: &mut PassPlan, budget: &mut usize) {
        let mut index = 0;
        while *budget > 0 && index < self.waiting.len() {
            let id = self.waiting[index];
            if !self.can_be_seated(id) || self.waits_for_prefix(id) {
                index += 1;
                continue;
            }
            if !self.prepare(plan, id) {
                return;
            }
            self.waiting.remove(index);
            self.start(id);
            self.plan_chunk(plan, id, budget);
        }
    }

    /// Lets waiting samples of the prompts that end in this pass draw from the last rows of these prompts.
    pub(super) fn join(&mut self, plan: &mut PassPlan) {
        if plan.completing.is_empty() || !self.config.share_prompts {
            return;
        }
        for id in std::mem::take(&mut self.waiting) {
            let sequence = self.known(id);
            let completing = plan.completing.iter().find(|(leader, _)| {
                sequence.is_fresh() && sequence.tokens == self.known(*leader).tokens
            });
            match completing {
                Some(&(leader, row)) if self.can_be_seated(id) => {
                    self.start(id);
                    plan.joining.push(Joining { sequence: id, leader });
                    self.draw(plan, id, row);
                }
                _ => self.waiting.push_back(id),
            }
        }
    }

    fn can_be_seated(&self, id: SequenceId) -> bool {
        self.known(id).seated || self.seated < self.config.max_sequences
    }

    /// Returns `true` if a running sequence is still computing a prefix that this one can take over later.
    fn waits_for_prefix(&self, id: SequenceId) -> bool {
        let sequence = self.known(id);
        if sequence.table.tokens() > 0 || !self.config.share_prompts {
            return false;
        }
        let (_, kept) = self.prompts.longest(&sequence.tokens);
        self.running.iter().any(|&other| {
            let other = self.known(other);
            let Some(prompt) = other.prompt_in_progress() else { return false };
            let common = usable_prefix(prompt, &sequence.tokens);
            let is_same = sequence.is_fresh() && sequence.tokens == prompt;
            let full = common - common % BLOCK_TOKENS;
            is_same || (common > kept && full > other.table.tokens())
        })
    }

    /// Gives a waiting sequence the prefix that others have computed and reserves blocks for the rest;
    /// returns `false` if there are too few. One block is left free for each running sequence, so that it
    /// can continue. If none runs, resting sequences release their blocks.
    fn prepare(&mut self, plan: &mut PassPlan, id: SequenceId) -> bool {
        let had_cache = self.known(id).table.tokens() > 0;
        self.take_over_prefix(id);
        let running = self.running.len();
        loop {
            let sequence = self.known(id);
            // One more for the first token that is sampled.
            let tokens = (sequence.tokens.len() + 1).min(self.config.max_context_tokens);
            let missing = self.allocator.missing(&sequence.table, tokens);
            let unseen = sequence.unseen();
            let fits = missing + running <= self.allocator.free_blocks();
            if fits && self.reserve(plan, id, unseen).is_ok() {
                return true;
            }
            let freed = self.prompts.drop_oldest(&mut self.allocator)
                || (running == 0 && self.free_blocks_for(plan, id));
            if freed {
                continue;
            }
            // The running sequences may need the blocks of the prefix that was taken over.
            if !had_cache {
                let Self { sequences, allocator, .. } = self;
                let sequence = sequences.get_mut(&id).expect("a waiting sequence is known");
                allocator.release(&mut sequence.table);
            }
            return false;
        }
    }

    /// Shares the longest computed prefix with a sequence that has nothing cached. The prefix comes from a
    /// kept prompt, or from full blocks of a prompt that is being computed.
    fn take_over_prefix(&mut self, id: SequenceId) {
        let sequence = &self.sequences[&id];
        if sequence.table.tokens() > 0 || !self.config.share_prompts {
            return;
        }
        let (mut source, mut common) = self.prompts.longest(&sequence.tokens);
        for other in &self.running {
            let other = &self.sequences[other];
            let Some(prompt) = other.prompt_in_progress() else { continue };
            let computed = usable_prefix(prompt, &sequence.tokens).min(other.table.tokens());
            let full = computed - computed % BLOCK_TOKENS;
            if full > common {
                (source, common) = (Some(&other.table), full);
            }
        }
        let Some(source) = source else { return };
        let table = self.allocator.fork(source, common);
        let Self { sequences, counters, .. } = self;
        let sequence = sequences.get_mut(&id).expect("a waiting sequence is known");
        sequence.table = table;
        // Counts the work that is saved. Tokens that the sequence had itself computed and lost are not.
        counters.shared_tokens += common.saturating_sub(sequence.reached) as u64;
        sequence.reached = sequence.reached.max(common);
    }
}
