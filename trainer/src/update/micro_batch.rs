//! The split of an update's trajectories into passes that fit into memory.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::policy::{MaskedTokens, prompt_of};

/// Groups sequences, by index, into passes of at most `max_tokens` rows. A longer sequence gets its own pass.
///
/// Sequences with the same prompt are neighbours, so a pass holds the prompt's rows once. They share a pass if one
/// can hold them all. Otherwise sequences of similar length share a pass. The result depends on the order of the
/// input only among sequences of equal length.
pub fn micro_batches(sequences: &[MaskedTokens<'_>], max_tokens: usize) -> Vec<Vec<usize>> {
    let tokens = |index: usize| sequences[index].0.len();
    let mut groups: HashMap<&[u32], Vec<usize>> = HashMap::new();
    for (index, &sequence) in sequences.iter().enumerate() {
        groups.entry(prompt_of(sequence)).or_default().push(index);
    }
    let mut groups: Vec<(usize, Vec<usize>)> =
        groups.into_iter().map(|(prompt, members)| (prompt.len(), members)).collect();
    for (_, members) in &mut groups {
        members.sort_by_key(|&index| (Reverse(tokens(index)), index));
    }
    groups.sort_by_key(|(_, members)| (Reverse(tokens(members[0])), members[0]));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut free_rows = 0;
    for (prompt, members) in groups {
        let own_rows = members.iter().map(|&index| tokens(index) - prompt).sum::<usize>();
        let whole = prompt + own_rows;
        // A group that fits into one pass is not split to fill the rest of the last pass.
        let mut starts_pass = whole > free_rows && whole <= max_tokens;
        for (member, &index) in members.iter().enumerate() {
            let shared = if member == 0 || starts_pass { 0 } else { prompt };
            let rows = tokens(index) - shared;
            match batches.last_mut() {
                Some(batch) if rows <= free_rows && !starts_pass => {
                    free_rows -= rows;
                    batch.push(index);
                }
                _ => {
                    free_rows = max_tokens.saturating_sub(tokens(index));
                    batches.push(vec![index]);
                }
            }
            starts_pass = false;
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates sequences from (token id, tokens of the prompt, tokens in all). All tokens after the prompt are
    /// targets.
    fn sequences(parts: &[(u32, usize, usize)]) -> Vec<(Vec<u32>, Vec<bool>)> {
        let sequence = |&(id, prompt, tokens): &(u32, usize, usize)| {
            (vec![id; tokens], (0..tokens).map(|position| position >= prompt).collect())
        };
        parts.iter().map(sequence).collect()
    }

    fn batches(parts: &[(u32, usize, usize)], max_tokens: usize) -> Vec<Vec<usize>> {
        let sequences = sequences(parts);
        let packed: Vec<_> = sequences.iter().map(|(ids, mask)| (&ids[..], &mask[..])).collect();
        micro_batches(&packed, max_tokens)
    }

    #[test]
    fn every_sequence_is_in_one_pass_and_only_a_single_one_may_exceed_the_budget() {
        let lengths = [5, 100, 3, 40, 41, 7, 19];
        let parts: Vec<_> =
            lengths.iter().enumerate().map(|(id, &tokens)| (id as u32, 2, tokens)).collect();
        let batches = batches(&parts, 60);
        let mut seen: Vec<usize> = batches.iter().flatten().copied().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
        for batch in &batches {
            let tokens: usize = batch.iter().map(|&index| lengths[index]).sum();
            assert!(tokens <= 60 || batch.len() == 1, "{batches:?}");
        }
        assert!(micro_batches(&[], 60).is_empty());
    }

    #[test]
    fn a_prompt_counts_once_and_its_sequences_stay_together() {
        // Two groups of prompts of 20 tokens: 20 + 10 + 8 + 6 rows, and 20 + 9 + 7.
        let parts = [(1, 20, 30), (2, 20, 29), (1, 20, 28), (2, 20, 27), (1, 20, 26), (3, 4, 12)];
        assert_eq!(batches(&parts, 92), [vec![0, 2, 4, 1, 3, 5]]);
        // The first pass has space for one sequence of the second group, but the group is not split.
        assert_eq!(batches(&parts, 79), [vec![0, 2, 4], vec![1, 3, 5]]);
        // A group that exceeds one pass is split, and its prompt is then computed twice.
        assert_eq!(batches(&parts, 38), [vec![0, 2], vec![4], vec![1, 3], vec![5]]);
    }
}
