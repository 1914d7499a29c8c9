//! Packing of sequences into one row dimension, with each shared prompt packed once.

use super::attention::{PackedCausalAttention, PromptGroup};

/// The ids of a sequence, and a mask of the same length that is true at targets. The first token has no context
/// and is never a target, whatever the mask.
pub type MaskedTokens<'a> = (&'a [u32], &'a [bool]);

/// Returns the tokens before the first target.
pub(crate) fn prompt_of((ids, mask): MaskedTokens<'_>) -> &[u32] {
    let first = mask.iter().skip(1).position(|&target| target);
    &ids[..first.map_or(ids.len(), |skipped| skipped + 1)]
}

/// The rows of packed sequences. Neighbours with the same prompt share its rows, because a token's hidden state
/// depends only on the tokens before it.
pub(super) struct Packing {
    /// Id of each row.
    pub(super) ids: Vec<i64>,
    /// Position of each row in its own sequence.
    pub(super) positions: Vec<i64>,
    /// Index of the row before each target, in the order of the sequences.
    pub(super) predictors: Vec<i64>,
    /// Id of each target.
    pub(super) targets: Vec<i64>,
    pub(super) attention: PackedCausalAttention,
}

impl Packing {
    pub(super) fn new(sequences: &[MaskedTokens<'_>]) -> Self {
        let attention = PackedCausalAttention { groups: Vec::new() };
        let (ids, positions) = (Vec::new(), Vec::new());
        let (predictors, targets) = (Vec::new(), Vec::new());
        let mut packing = Self { ids, positions, predictors, targets, attention };
        for group in sequences.chunk_by(|left, right| prompt_of(*left) == prompt_of(*right)) {
            packing.add_group(group);
        }
        packing
    }

    /// Adds sequences that have the same prompt.
    fn add_group(&mut self, group: &[MaskedTokens<'_>]) {
        // A single sequence shares nothing, so its prompt is part of its own rows.
        let shared = if group.len() > 1 { prompt_of(group[0]).len() } else { 0 };
        let prompt_start = self.ids.len() as i64;
        self.add_rows(group[0].0, 0..shared);
        let mut own = Vec::with_capacity(group.len());
        for (ids, mask) in group {
            let own_start = self.ids.len() as i64;
            self.add_rows(ids, shared..ids.len());
            own.push((ids.len() - shared) as i64);
            for position in (1..ids.len()).filter(|&position| mask[position]) {
                let before = position - 1;
                self.predictors.push(if before < shared {
                    prompt_start + before as i64
                } else {
                    own_start + (before - shared) as i64
                });
                self.targets.push(i64::from(ids[position]));
            }
        }
        self.attention.groups.push(PromptGroup { prompt: shared as i64, own });
    }

    fn add_rows(&mut self, ids: &[u32], positions: std::ops::Range<usize>) {
        self.ids.extend(ids[positions.clone()].iter().map(|&id| i64::from(id)));
        self.positions.extend(positions.map(|position| position as i64));
    }
}
