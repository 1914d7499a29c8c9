//! Cutting an update's trajectories into passes that fit into memory.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::policy::{MaskedTokens, prompt_of};

/// Groups sequences (by index) into passes of at most `max_tokens` rows; a longer sequence goes alone.
/// Sequences with the same prompt follow each other, so that a pass has its rows once, and share a pass
/// where it holds all of them. Else sequences of similar length share one; the result does not depend
/// on input order but for equal lengths.
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
    let mut room = 0;
    for (prompt, members) in groups {
        let whole: usize = prompt + members.iter().map(|&one| tokens(one) - prompt).sum::<usize>();
        // A group that a pass of its own would hold is not cut for the room that another left.
        let mut fresh = whole > room && whole <= max_tokens;
        for (place, &index) in members.iter().enumerate() {
            let shared = if place == 0 || fresh { 0 } else { prompt };
            let rows = tokens(index) - shared;
            match batches.last_mut() {
                Some(batch) if rows <= room && !fresh => {
                    room -= rows;
                    batch.push(index);
                }
                _ => {
                    room = max_tokens.saturating_sub(tokens(index));
                    batches.push(vec![index]);
                }
            }
            fresh = false;
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sequences of a prompt of `prompt` tokens `id` and so many tokens in all, of which the rest are
    /// targets.
    fn sequences(parts: &[(u32, usize, usize)]) -> Vec<(Vec<u32>, Vec<bool>)> {
        let of = |&(id, prompt, tokens): &(u32, usize, usize)| {
            (vec![id; tokens], (0..tokens).map(|place| place >= prompt).collect())
        };
        parts.iter().map(of).collect()
    }

    fn batches(parts: &[(u32, usize, usize)], max_tokens: usize) -> Vec<Vec<usize>> {
        let sequences = sequences(parts);
        let packed: Vec<_> = sequences.iter().map(|(ids, mask)| (&ids[..], &mask[..])).collect();
        micro_batches(&packed, max_tokens)
    }

    #[test]
    fn every_sequence_once_and_none_over_the_budget_but_alone() {
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
        // What the first group leaves would hold one sequence of the second, which is not cut.
        assert_eq!(batches(&parts, 79), [vec![0, 2, 4], vec![1, 3, 5]]);
        // A group that no pass holds is cut where it has to be; its prompt is then there twice.
        assert_eq!(batches(&parts, 38), [vec![0, 2], vec![4], vec![1, 3], vec![5]]);
    }
}
