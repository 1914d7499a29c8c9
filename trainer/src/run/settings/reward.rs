//! The reward of a trajectory, and the penalty for its length.

use crate::algo::OverlongPenalty;
use crate::config::{Compat, Config};
use crate::reward::{RewardReading, RewardRules, StructuredScores};
use crate::run::training::score::Scoring;

/// Returns how `config` rewards a trajectory.
pub(crate) fn reward(config: &Config) -> RewardRules {
    RewardRules {
        kind: config.reward.kind,
        reading: match config.compat {
            Compat::None => RewardReading::Sampled,
            Compat::SearchR1 => RewardReading::Reference,
        },
        structured: StructuredScores {
            structure: config.reward.structure_format_score,
            final_answer: config.reward.final_format_score,
            retrieval: config.reward.retrieval_score,
        },
        ..RewardRules::default()
    }
}

/// Returns how `config` scores the trajectories of a training step.
pub(crate) fn scoring(config: &Config) -> Scoring {
    let buffer_tokens = config.algorithm.overlong_buffer_tokens;
    Scoring {
        reward: reward(config),
        overlong: (buffer_tokens > 0).then(|| OverlongPenalty {
            limit_tokens: config.overlong_limit_tokens(),
            buffer_tokens,
            most: config.algorithm.overlong_penalty,
        }),
    }
}
