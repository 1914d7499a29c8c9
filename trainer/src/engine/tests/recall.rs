//! A model without weights. Its cache holds token ids, and its next token is a function of the context that it
//! reads back from there. A block that is lost, shared for writing or filled twice changes the token.

use std::collections::BTreeSet;
use std::fmt;

use shared::contract::splitmix;

use crate::engine::{BLOCK_TOKENS, Choice, Draw, EngineError, Pass, Runner, SamplingKey, Span};
use crate::policy::Weights;

/// A runner whose next token is `next(context, key)`.
pub(crate) struct RecallRunner<F> {
    slots: Vec<u32>,
    next: F,
}

impl<F> fmt::Debug for RecallRunner<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RecallRunner")
            .field("slots", &self.slots.len())
            .finish_non_exhaustive()
    }
}

impl<F: Fn(&[u32], SamplingKey) -> u32> RecallRunner<F> {
    pub(crate) fn new(blocks: usize, next: F) -> Self {
        Self { slots: vec![u32::MAX; blocks * BLOCK_TOKENS], next }
    }
}

/// Returns the index of a token in the cache.
fn slot(span: &Span<'_>, token: usize) -> usize {
    span.blocks[token / BLOCK_TOKENS] as usize * BLOCK_TOKENS + token % BLOCK_TOKENS
}

impl<F: Fn(&[u32], SamplingKey) -> u32 + Send> Runner for RecallRunner<F> {
    fn run(&mut self, pass: &Pass<'_>, draws: &[Draw]) -> Result<Vec<Choice>, EngineError> {
        let mut written = BTreeSet::new();
        let mut rows = 0;
        for span in pass.spans {
            assert_eq!(span.rows.start, rows, "spans follow each other");
            assert!(!span.rows.is_empty());
            rows = span.rows.end;
            for (index, row) in span.rows.clone().enumerate() {
                let token = span.past + index;
                assert_eq!(pass.positions[row] as usize, token);
                let slot = slot(span, token);
                assert!(written.insert(slot), "two rows are written to one slot");
                self.slots[slot] = pass.ids[row];
            }
        }
        assert_eq!((rows, rows), (pass.ids.len(), pass.positions.len()));
        let choose = |draw: &Draw| {
            let span = pass.spans.iter().find(|span| span.rows.contains(&draw.row)).unwrap();
            let tokens = span.past + draw.row - span.rows.start + 1;
            assert_eq!(draw.position as usize, tokens);
            let context: Vec<u32> =
                (0..tokens).map(|token| self.slots[slot(span, token)]).collect();
            Choice { token: (self.next)(&context, draw.key), log_prob: -(tokens as f32) / 1024.0 }
        };
        Ok(draws.iter().map(choose).collect())
    }

    fn copy_block(&mut self, from: u32, to: u32) {
        let start = |block: u32| block as usize * BLOCK_TOKENS;
        self.slots.copy_within(start(from)..start(from) + BLOCK_TOKENS, start(to));
    }

    fn set_weights(&mut self, _: Weights) {}
}

/// Returns a token below 64 that depends on every token before it and on the sample.
pub(crate) fn mixed(context: &[u32], key: SamplingKey) -> u32 {
    let mut state = key.sample;
    for &token in context {
        state = splitmix::finalise(state.wrapping_add(splitmix::INCREMENT) ^ u64::from(token));
    }
    (state % 64) as u32
}
