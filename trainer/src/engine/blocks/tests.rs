use proptest::prelude::*;

use super::*;

/// One operation on a table. Table numbers are taken modulo the number of tables.
#[derive(Clone, Debug)]
enum Step {
    Open,
    Extend { table: usize, tokens: usize },
    Fork { table: usize, tokens: usize },
    Truncate { table: usize, tokens: usize },
    Release { table: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let (table, tokens) = (0_usize..64, 0_usize..60);
    prop_oneof![
        Just(Step::Open),
        (table.clone(), tokens.clone()).prop_map(|(table, tokens)| Step::Extend { table, tokens }),
        (table.clone(), tokens.clone()).prop_map(|(table, tokens)| Step::Extend { table, tokens }),
        (table.clone(), tokens.clone()).prop_map(|(table, tokens)| Step::Fork { table, tokens }),
        (table.clone(), tokens).prop_map(|(table, tokens)| Step::Truncate { table, tokens }),
        table.prop_map(|table| Step::Release { table }),
    ]
}

/// The contents of each slot of the cache, and the contents that each table should read.
struct Contents {
    slots: Vec<u32>,
    tables: Vec<(BlockTable, Vec<u32>)>,
    written: u32,
}

impl Contents {
    fn extend(&mut self, allocator: &mut BlockAllocator, table: usize, tokens: usize) {
        let (table, expected) = &mut self.tables[table];
        let (before, free) = (table.tokens(), allocator.free_blocks());
        let missing = allocator.missing(table, before + tokens);
        match allocator.reserve(table, before + tokens) {
            Err(OutOfBlocks) => {
                assert!(missing > free);
                assert_eq!((allocator.free_blocks(), table.tokens()), (free, before));
                return;
            }
            Ok(copy) => {
                assert_eq!(free - allocator.free_blocks(), missing);
                if let Some(BlockCopy { from, to }) = copy {
                    let (from, to) = (from as usize * BLOCK_TOKENS, to as usize * BLOCK_TOKENS);
                    self.slots.copy_within(from..from + BLOCK_TOKENS, to);
                }
            }
        }
        for token in before..before + tokens {
            self.written += 1;
            let block = table.blocks()[token / BLOCK_TOKENS] as usize;
            assert_eq!(allocator.holders[block], 1, "a shared block is written to");
            self.slots[block * BLOCK_TOKENS + token % BLOCK_TOKENS] = self.written;
            expected.push(self.written);
        }
        table.record_written(tokens);
    }

    /// Checks that no block is lost or free twice, that holders are counted, and that every token is where
    /// it was written.
    fn check(&self, allocator: &BlockAllocator) {
        let mut holders = vec![0; allocator.blocks()];
        for (table, expected) in &self.tables {
            assert_eq!(table.tokens(), expected.len());
            for &block in table.blocks() {
                holders[block as usize] += 1;
            }
            let read = |token: usize| {
                let block = table.blocks()[token / BLOCK_TOKENS] as usize;
                self.slots[block * BLOCK_TOKENS + token % BLOCK_TOKENS]
            };
            assert!((0..expected.len()).map(read).eq(expected.iter().copied()));
        }
        assert_eq!(allocator.holders, holders);
        let mut free = allocator.free.clone();
        free.sort_unstable();
        let unheld = (0..holders.len() as u32).filter(|&block| holders[block as usize] == 0);
        assert!(free.into_iter().eq(unheld));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn blocks_are_held_as_often_as_they_are_named(
        blocks in 1_usize..24,
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut allocator = BlockAllocator::new(blocks);
        let slots = vec![0; blocks * BLOCK_TOKENS];
        let mut contents = Contents { slots, tables: Vec::new(), written: 0 };
        for step in steps {
            let count = contents.tables.len();
            match step {
                Step::Open => contents.tables.push((BlockTable::default(), Vec::new())),
                _ if count == 0 => {}
                Step::Extend { table, tokens } => {
                    contents.extend(&mut allocator, table % count, tokens);
                }
                Step::Fork { table, tokens } => {
                    let (source, held) = &contents.tables[table % count];
                    let tokens = tokens.min(held.len());
                    let fork = (allocator.fork(source, tokens), held[..tokens].to_vec());
                    contents.tables.push(fork);
                }
                Step::Truncate { table, tokens } => {
                    let (table, held) = &mut contents.tables[table % count];
                    allocator.truncate(table, tokens);
                    held.truncate(tokens);
                }
                Step::Release { table } => {
                    let (mut table, _) = contents.tables.swap_remove(table % count);
                    allocator.release(&mut table);
                    prop_assert!(table.blocks().is_empty());
                }
            }
            contents.check(&allocator);
        }
        for (mut table, _) in contents.tables.drain(..) {
            allocator.release(&mut table);
        }
        prop_assert_eq!(allocator.free_blocks(), blocks);
    }
}

#[test]
fn a_fork_shares_all_blocks_and_copies_the_last_when_it_is_written_to() {
    let mut allocator = BlockAllocator::new(4);
    let mut first = BlockTable::default();
    assert_eq!(allocator.reserve(&mut first, BLOCK_TOKENS + 3), Ok(None));
    first.record_written(BLOCK_TOKENS + 3);
    let mut second = allocator.fork(&first, BLOCK_TOKENS + 3);
    assert_eq!((first.blocks(), allocator.free_blocks()), (second.blocks(), 2));
    let shared = first.blocks()[1];
    let copy = allocator.reserve(&mut second, BLOCK_TOKENS + 4).unwrap().unwrap();
    assert_eq!((copy.from, copy.to), (shared, second.blocks()[1]));
    assert_ne!(copy.to, shared);
    assert_eq!(first.blocks()[0], second.blocks()[0]);
    // The first table now holds the block alone.
    assert_eq!(allocator.reserve(&mut first, BLOCK_TOKENS + 4), Ok(None));
    // A whole block is never copied.
    let mut third = allocator.fork(&first, BLOCK_TOKENS);
    assert_eq!(allocator.reserve(&mut third, BLOCK_TOKENS + 1), Ok(None));
    assert_eq!(allocator.free_blocks(), 0);
    let mut fourth = BlockTable::default();
    assert_eq!(allocator.reserve(&mut fourth, 1), Err(OutOfBlocks));
    assert_eq!((allocator.take_most_used(), allocator.missing(&fourth, 1)), (4, 1));
}
