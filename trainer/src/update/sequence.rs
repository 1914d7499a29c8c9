//! A training example: one trajectory with its advantages and recorded log-probs.

use crate::policy::MaskedTokens;
use crate::rollout::trajectory::Trajectory;

/// One trajectory as an update sees it.
#[derive(Clone, Debug)]
pub struct TrainSequence {
    pub token_ids: Vec<u32>,
    /// True where a token was sampled, as long as `token_ids`.
    pub mask: Vec<bool>,
    /// Advantage of each trained token; empty in supervised training.
    pub advantages: Vec<f32>,
    /// Weight of each trained token's loss in the update; unused in supervised training.
    pub weight: f64,
    /// Log-probs of the trained tokens under the policy in the denominator of the ratio; `None` if that
    /// is the current policy (one update per rollout).
    pub old_log_probs: Option<Vec<f32>>,
    /// Log-probs of the trained tokens under the frozen reference; `None` without a KL term.
    pub reference_log_probs: Option<Vec<f32>>,
    /// Log-probs as the sampler reported them.
    pub sampler_log_probs: Vec<f32>,
}

impl From<&Trajectory> for TrainSequence {
    /// Takes the tokens of `trajectory`, still without advantages and weight.
    fn from(trajectory: &Trajectory) -> Self {
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
}

impl TrainSequence {
    /// Counts the trained tokens: those sampled with a context, so never the very first token.
    pub fn trained_tokens(&self) -> usize {
        self.mask.iter().skip(1).filter(|&&sampled| sampled).count()
    }

    /// Returns a mask that is true at every token after the prompt, observations included.
    pub fn response_mask(&self) -> Vec<bool> {
        let first = self.mask.iter().position(|&sampled| sampled).unwrap_or(self.mask.len());
        (0..self.mask.len()).map(|position| position >= first).collect()
    }

    /// Counts the trained tokens of each action, a run of sampled tokens.
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

    /// Returns ids and mask, the input of a scoring pass.
    pub fn packed(&self) -> MaskedTokens<'_> {
        (&self.token_ids, &self.mask)
    }
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
}
