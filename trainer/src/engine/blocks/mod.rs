//! Which blocks of the pool hold which tokens: counting alone, without tensors.
//!
//! Invariants: a block is free or has as many holders as tables name it; a block into which a
//! sequence writes has one holder. Blocks of full tokens are shared freely; the last, partly filled
//! block of a fork is copied before either side writes into it.

use super::runner::BLOCK_TOKENS;

/// The blocks of one sequence, in the order of its tokens. It must be given back to its pool by
/// [`BlockPool::release`].
#[derive(Debug, Default)]
pub(super) struct BlockTable {
    blocks: Vec<u32>,
    /// Tokens whose keys and values are there.
    tokens: usize,
}

impl BlockTable {
    /// In order; there may be more than the tokens fill.
    pub(super) fn blocks(&self) -> &[u32] {
        &self.blocks
    }

    /// Tokens that are cached.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Notes down that a pass has written `tokens` more, for which there was room.
    pub(super) fn filled(&mut self, tokens: usize) {
        self.tokens += tokens;
        debug_assert!(self.tokens <= self.blocks.len() * BLOCK_TOKENS);
    }
}

/// A block whose contents another one must have before anything is written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockCopy {
    pub(super) from: u32,
    pub(super) to: u32,
}

/// The pool has too few free blocks; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PoolIsDry;

/// The blocks of a pool that was allocated once, and how many tables name each.
#[derive(Debug)]
pub(super) struct BlockPool {
    holders: Vec<u32>,
    free: Vec<u32>,
    used_most: usize,
}

impl BlockPool {
    /// All blocks are free.
    pub(super) fn new(blocks: usize) -> Self {
        // The lowest numbers are taken first, so that a small run touches little memory.
        let free = (0..blocks as u32).rev().collect();
        Self { holders: vec![0; blocks], free, used_most: 0 }
    }

    pub(super) fn blocks(&self) -> usize {
        self.holders.len()
    }

    pub(super) fn free_blocks(&self) -> usize {
        self.free.len()
    }

    fn used(&self) -> usize {
        self.holders.len() - self.free.len()
    }

    /// Most blocks that were in use at one time since the last call.
    pub(super) fn take_used_most(&mut self) -> usize {
        let used = self.used();
        std::mem::replace(&mut self.used_most, used)
    }

    /// Free blocks that [`reserve`](Self::reserve) would take.
    pub(super) fn missing(&self, table: &BlockTable, tokens: usize) -> usize {
        let new = tokens.div_ceil(BLOCK_TOKENS).saturating_sub(table.blocks.len());
        new + usize::from(tokens > table.tokens && self.next_write_is_shared(table))
    }

    /// Makes room for the first `tokens` of a sequence, of which those that are not cached will be
    /// written; returns the copy that must be made before.
    pub(super) fn reserve(
        &mut self,
        table: &mut BlockTable,
        tokens: usize,
    ) -> Result<Option<BlockCopy>, PoolIsDry> {
        if self.missing(table, tokens) > self.free.len() {
            return Err(PoolIsDry);
        }
        let mut copy = None;
        if tokens > table.tokens && self.next_write_is_shared(table) {
            let place = table.tokens / BLOCK_TOKENS;
            let (from, to) = (table.blocks[place], self.take()?);
            table.blocks[place] = to;
            self.give_up(from);
            copy = Some(BlockCopy { from, to });
        }
        while table.blocks.len() * BLOCK_TOKENS < tokens {
            let block = self.take()?;
            table.blocks.push(block);
        }
        Ok(copy)
    }

    /// A table that shares the first `tokens` of another, which must have them.
    pub(super) fn fork(&mut self, table: &BlockTable, tokens: usize) -> BlockTable {
        let tokens = tokens.min(table.tokens);
        let blocks = table.blocks[..tokens.div_ceil(BLOCK_TOKENS)].to_vec();
        for &block in &blocks {
            self.holders[block as usize] += 1;
        }
        BlockTable { blocks, tokens }
    }

    /// Forgets all tokens behind the first `tokens`, and the room that was reserved for more.
    pub(super) fn truncate(&mut self, table: &mut BlockTable, tokens: usize) {
        table.tokens = table.tokens.min(tokens);
        for block in table.blocks.split_off(table.tokens.div_ceil(BLOCK_TOKENS)) {
            self.give_up(block);
        }
    }

    /// Takes all blocks of a table back.
    pub(super) fn release(&mut self, table: &mut BlockTable) {
        self.truncate(table, 0);
    }

    /// Whether the next token goes into a block that others hold too. Only a partly filled one can be:
    /// what is reserved behind it is new.
    fn next_write_is_shared(&self, table: &BlockTable) -> bool {
        !table.tokens.is_multiple_of(BLOCK_TOKENS)
            && self.holders[table.blocks[table.tokens / BLOCK_TOKENS] as usize] > 1
    }

    fn take(&mut self) -> Result<u32, PoolIsDry> {
        let block = self.free.pop().ok_or(PoolIsDry)?;
        self.holders[block as usize] = 1;
        self.used_most = self.used_most.max(self.used());
        Ok(block)
    }

    fn give_up(&mut self, block: u32) {
        let holders = &mut self.holders[block as usize];
        *holders -= 1;
        if *holders == 0 {
            self.free.push(block);
        }
    }
}

#[cfg(test)]
mod tests;
