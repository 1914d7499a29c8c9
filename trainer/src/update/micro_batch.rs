//! Cutting an update's trajectories into passes that fit into memory.

use crate::rollout::trajectory::Trajectory;

/// One trajectory as the update sees it.
#[derive(Clone, Debug)]
pub struct TrainSequence {
    pub token_ids: Vec<u32>,
    /// True where a token was sampled, as long as `token_ids`.
    pub mask: Vec<bool>,
    /// Advantage of each trained token; empty in supervised training.
    pub advantages: Vec<f32>,
    /// Weight of each trained token's loss in the update; unused in supervised training.
    pub weight: f64,
    /// Log-probs of the trained tokens under the policy that the ratio is taken against; `None` if
    /// that is the policy as it stands (one update per rollout).
    pub old_log_probs: Option<Vec<f32>>,
    /// Log-probs of the trained tokens under the frozen reference; `None` without a KL term.
    pub reference_log_probs: Option<Vec<f32>>,
    /// Log-probs as the sampler reported them.
    pub sampler_log_probs: Vec<f32>,
}

impl TrainSequence {
    /// What a trajectory gives to train on, still without advantages and weight.
    pub fn of(trajectory: &Trajectory) -> Self {
        Self {
            token_ids: trajectory.token_ids(),
            mask: trajectory.sampled_mask(),
            advantages: Vec::new(),
            weight: 0.0,
            old_log_probs: None,
            reference_log_probs: None,
            sampler_log_probs: trajectory.sampled_log_probs(),
        }
    }

    /// Tokens that are trained: sampled, and with a context (never the very first token).
    pub fn trained_tokens(&self) -> usize {
        self.mask.iter().skip(1).filter(|&&sampled| sampled).count()
    }

    /// True at every token after the prompt, observations included.
    pub fn response_mask(&self) -> Vec<bool> {
        let first = self.mask.iter().position(|&sampled| sampled).unwrap_or(self.mask.len());
        (0..self.mask.len()).map(|position| position >= first).collect()
    }

    /// Trained tokens of each action, which is what was sampled between two tokens that were not.
    pub fn action_tokens(&self) -> Vec<usize> {
        let mut actions = Vec::new();
        let mut before = false;
        for &sampled in self.mask.iter().skip(1) {
            match actions.last_mut() {
                Some(count) if sampled && before => *count += 1,
                _ if sampled => actions.push(1),
                _ => {}
            }
            before = sampled;
        }
        actions
    }

    /// Ids and mask, as log-probs are computed from them.
    pub fn packed(&self) -> (&[u32], &[bool]) {
        (&self.token_ids, &self.mask)
    }
}

/// Groups sequences (by index) into passes of at most `max_tokens` tokens; a longer sequence goes
/// alone. Sequences of similar length share a pass; the result does not depend on input order but
/// for equal lengths.
pub fn micro_batches(lengths: &[usize], max_tokens: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&index| (std::cmp::Reverse(lengths[index]), index));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut room = 0;
    for index in order {
        match batches.last_mut() {
            Some(batch) if lengths[index] <= room => {
                room -= lengths[index];
                batch.push(index);
            }
            _ => {
                room = max_tokens.saturating_sub(lengths[index]);
                batches.push(vec![index]);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_runs_of_trained_tokens() {
        let mut sequence = TrainSequence {
            token_ids: vec![7; 8],
            mask: vec![true, true, true, false, true, false, false, true],
            advantages: Vec::new(),
            weight: 0.0,
            old_log_probs: None,
            reference_log_probs: None,
            sampler_log_probs: Vec::new(),
        };
        assert_eq!(sequence.action_tokens(), [2, 1, 1]);
        assert_eq!(sequence.action_tokens().iter().sum::<usize>(), sequence.trained_tokens());
        sequence.mask.fill(false);
        assert!(sequence.action_tokens().is_empty());
    }

    #[test]
    fn every_sequence_once_and_none_over_the_budget_but_alone() {
        let lengths = [5, 100, 3, 40, 41, 7, 19];
        let batches = micro_batches(&lengths, 60);
        let mut seen: Vec<usize> = batches.iter().flatten().copied().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
        for batch in &batches {
            let tokens: usize = batch.iter().map(|&index| lengths[index]).sum();
            assert!(tokens <= 60 || batch.len() == 1, "{batches:?}");
        }
        assert!(micro_batches(&[], 60).is_empty());
    }
}
