//! The assignment of tokens to blocks of the KV cache: counts alone, without tensors.
//!
//! Invariants: a block's holders are the tables that name it, and a block without holders is free. A
//! block that a sequence writes into has one holder. Full blocks are shared freely; the last, partly
//! filled block of a fork is copied before either side writes into it.

use super::runner::BLOCK_TOKENS;

/// The blocks of one sequence, in the order of its tokens. [`BlockAllocator::release`] must return them to
/// their allocator.
#[derive(Debug, Default)]
pub(super) struct BlockTable {
    blocks: Vec<u32>,
    /// Tokens whose keys and values are cached.
    tokens: usize,
}

impl BlockTable {
    /// Returns the blocks in order; there may be more than the tokens fill.
    pub(super) fn blocks(&self) -> &[u32] {
        &self.blocks
    }

    /// Returns the number of cached tokens.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Records that a pass has written `tokens` more tokens into reserved blocks.
    pub(super) fn record_written(&mut self, tokens: usize) {
        self.tokens += tokens;
        debug_assert!(self.tokens <= self.blocks.len() * BLOCK_TOKENS);
    }
}

/// A copy of one block's contents that must be made before anything is written to the other block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockCopy {
    pub(super) from: u32,
    pub(super) to: u32,
}

/// The error of a reservation that needs more blocks than are free; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutOfBlocks;

/// The free blocks of a cache of fixed size, and the number of tables that name each block.
#[derive(Debug)]
pub(super) struct BlockAllocator {
    holders: Vec<u32>,
    free: Vec<u32>,
    most_used: usize,
}

impl BlockAllocator {
    /// Creates an allocator whose blocks are all free.
    pub(super) fn new(blocks: usize) -> Self {
        // The lowest numbers are allocated first, so that a small run touches little memory.
        let free = (0..blocks as u32).rev().collect();
        Self { holders: vec![0; blocks], free, most_used: 0 }
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

    /// Returns the most blocks that were in use at one time since the last call.
    pub(super) fn take_most_used(&mut self) -> usize {
        let used = self.used();
        std::mem::replace(&mut self.most_used, used)
    }

    /// Returns the number of free blocks that [`reserve`](Self::reserve) would use.
    pub(super) fn missing(&self, table: &BlockTable, tokens: usize) -> usize {
        let new = tokens.div_ceil(BLOCK_TOKENS).saturating_sub(table.blocks.len());
        new + usize::from(tokens > table.tokens && self.next_write_is_shared(table))
    }

    /// Reserves blocks for the first `tokens` of a sequence, so that those that are not cached can be
    /// written. Returns the copy that must be made before.
    pub(super) fn reserve(
        &mut self,
        table: &mut BlockTable,
        tokens: usize,
    ) -> Result<Option<BlockCopy>, OutOfBlocks> {
        if self.missing(table, tokens) > self.free.len() {
            return Err(OutOfBlocks);
        }
        let mut copy = None;
        if tokens > table.tokens && self.next_write_is_shared(table) {
            let index = table.tokens / BLOCK_TOKENS;
            let (from, to) = (table.blocks[index], self.allocate()?);
            table.blocks[index] = to;
            self.release_block(from);
            copy = Some(BlockCopy { from, to });
        }
        while table.blocks.len() * BLOCK_TOKENS < tokens {
            let block = self.allocate()?;
            table.blocks.push(block);
        }
        Ok(copy)
    }

    /// Returns a table that shares the first `tokens` of another, or all of its tokens if it has fewer.
    pub(super) fn fork(&mut self, table: &BlockTable, tokens: usize) -> BlockTable {
        let tokens = tokens.min(table.tokens);
        let blocks = table.blocks[..tokens.div_ceil(BLOCK_TOKENS)].to_vec();
        for &block in &blocks {
            self.holders[block as usize] += 1;
        }
        BlockTable { blocks, tokens }
    }

    /// Forgets all tokens after the first `tokens`, and releases the blocks that were reserved for more.
    pub(super) fn truncate(&mut self, table: &mut BlockTable, tokens: usize) {
        table.tokens = table.tokens.min(tokens);
        for block in table.blocks.split_off(table.tokens.div_ceil(BLOCK_TOKENS)) {
            self.release_block(block);
        }
    }

    /// Releases all blocks of a table.
    pub(super) fn release(&mut self, table: &mut BlockTable) {
        self.truncate(table, 0);
    }

    /// Returns `true` if the next token goes into a block that other tables hold too. Only a partly
    /// filled block can be shared: the blocks reserved after it are new.
    fn next_write_is_shared(&self, table: &BlockTable) -> bool {
        !table.tokens.is_multiple_of(BLOCK_TOKENS)
            && self.holders[table.blocks[table.tokens / BLOCK_TOKENS] as usize] > 1
    }

    /// Returns how many tables hold each block, for tests that check the counts.
    #[cfg(test)]
    pub(super) fn holders(&self) -> &[u32] {
        &self.holders
    }

    fn allocate(&mut self) -> Result<u32, OutOfBlocks> {
        let block = self.free.pop().ok_or(OutOfBlocks)?;
        self.holders[block as usize] = 1;
        self.most_used = self.most_used.max(self.used());
        Ok(block)
    }

    fn release_block(&mut self, block: u32) {
        let holders = &mut self.holders[block as usize];
        *holders -= 1;
        if *holders == 0 {
            self.free.push(block);
        }
    }
}

#[cfg(test)]
mod tests;
