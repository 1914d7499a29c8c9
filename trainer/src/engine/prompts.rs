//! Prompts whose keys and values are kept, so that later samples and prompts that begin alike need not
//! compute them again.

use super::blocks::{BlockPool, BlockTable};
use super::runner::BLOCK_TOKENS;

/// Prompts of live sequences, oldest first. Each holds its blocks until it is dropped: by
/// [`drop_oldest`](Self::drop_oldest) when the pool is dry, or all together when the weights change or
/// no sequence is left.
#[derive(Debug)]
pub(super) struct Prompts {
    kept: Vec<(Vec<u32>, BlockTable)>,
    most: usize,
}

impl Prompts {
    /// Keeps at most `most` prompts.
    pub(super) fn new(most: usize) -> Self {
        Self { kept: Vec::new(), most }
    }

    /// Keeps a prompt whose tokens are the first of `table`.
    pub(super) fn keep(&mut self, pool: &mut BlockPool, prompt: &[u32], table: &BlockTable) {
        if self.most == 0 || self.kept.iter().any(|(kept, _)| kept == prompt) {
            return;
        }
        if self.kept.len() >= self.most {
            self.drop_oldest(pool);
        }
        self.kept.push((prompt.to_vec(), pool.fork(table, prompt.len())));
    }

    /// The prompt with which `tokens` have most in common, and how many tokens that is.
    pub(super) fn longest(&self, tokens: &[u32]) -> (Option<&BlockTable>, usize) {
        let mut longest = (None, 0);
        for (prompt, table) in &self.kept {
            let common = usable(prompt, tokens);
            if common > longest.1 {
                longest = (Some(table), common);
            }
        }
        longest
    }

    /// Drops one prompt; false if there was none.
    pub(super) fn drop_oldest(&mut self, pool: &mut BlockPool) -> bool {
        if self.kept.is_empty() {
            return false;
        }
        let (_, mut table) = self.kept.remove(0);
        pool.release(&mut table);
        true
    }

    /// Drops all.
    pub(super) fn clear(&mut self, pool: &mut BlockPool) {
        while self.drop_oldest(pool) {}
    }
}

/// Tokens that two sequences begin with alike and that the second one can take over: never its last,
/// whose logits are wanted, and nothing that is less than a block, which would have to be copied.
pub(super) fn usable(first: &[u32], second: &[u32]) -> usize {
    let alike = first.iter().zip(second).take_while(|(one, other)| one == other).count();
    let common = alike.min(second.len().saturating_sub(1));
    if common >= BLOCK_TOKENS || common + 1 == second.len() { common } else { 0 }
}
