//! Prompts whose keys and values are kept, so that later samples and prompts with a common prefix do not
//! compute them again.

use super::blocks::{BlockAllocator, BlockTable};
use super::runner::BLOCK_TOKENS;

/// Prompts of live sequences, oldest first. Each holds its blocks until it is dropped:
/// [`drop_oldest`](Self::drop_oldest) drops one when blocks run out, and [`clear`](Self::clear) drops all
/// when the weights change or no sequence is left.
#[derive(Debug)]
pub(super) struct KeptPrompts {
    kept: Vec<(Vec<u32>, BlockTable)>,
    capacity: usize,
}

impl KeptPrompts {
    /// Creates an empty store for at most `capacity` prompts.
    pub(super) fn new(capacity: usize) -> Self {
        Self { kept: Vec::new(), capacity }
    }

    /// Keeps a prompt whose tokens are the first of `table`.
    pub(super) fn keep(
        &mut self,
        allocator: &mut BlockAllocator,
        prompt: &[u32],
        table: &BlockTable,
    ) {
        if self.capacity == 0 || self.kept.iter().any(|(kept, _)| kept == prompt) {
            return;
        }
        if self.kept.len() >= self.capacity {
            self.drop_oldest(allocator);
        }
        self.kept.push((prompt.to_vec(), allocator.fork(table, prompt.len())));
    }

    /// Returns the kept prompt that shares the longest usable prefix with `tokens`, and that prefix's
    /// length.
    pub(super) fn longest(&self, tokens: &[u32]) -> (Option<&BlockTable>, usize) {
        let mut longest = (None, 0);
        for (prompt, table) in &self.kept {
            let common = usable_prefix(prompt, tokens);
            if common > longest.1 {
                longest = (Some(table), common);
            }
        }
        longest
    }

    /// Drops the oldest prompt; returns `false` if there was none.
    pub(super) fn drop_oldest(&mut self, allocator: &mut BlockAllocator) -> bool {
        if self.kept.is_empty() {
            return false;
        }
        let (_, mut table) = self.kept.remove(0);
        allocator.release(&mut table);
        true
    }

    /// Returns the tables of all kept prompts, for tests that count the holders of blocks.
    #[cfg(test)]
    pub(super) fn tables(&self) -> impl Iterator<Item = &BlockTable> {
        self.kept.iter().map(|(_, table)| table)
    }

    /// Drops all prompts.
    pub(super) fn clear(&mut self, allocator: &mut BlockAllocator) {
        while self.drop_oldest(allocator) {}
    }
}

/// Returns the length of the common prefix that the second sequence can take over from the first. It
/// never includes the second's last token, whose logits are needed. A prefix shorter than a block would have
/// to be copied and counts as 0, unless only the last token is missing.
pub(super) fn usable_prefix(first: &[u32], second: &[u32]) -> usize {
    let equal = first.iter().zip(second).take_while(|(left, right)| left == right).count();
    let common = equal.min(second.len().saturating_sub(1));
    if common >= BLOCK_TOKENS || common + 1 == second.len() { common } else { 0 }
}
