//! The sections about what a run keeps, and when it goes back to it: checkpoints, and the guard against collapse.

use super::choice::{CheckpointDtype, FailedWrite, GuardAction};
use super::section::section;
use super::value::Range;

section! {
    /// Checkpoints that training writes.
    pub struct CheckpointConfig in "checkpoint" {
        /// Number format of saved models. With "bf16", checkpoints of `trainer train` keep the f32 weights in
        /// a separate file, because a resumed run needs them.
        dtype: CheckpointDtype = CheckpointDtype::F32;
        /// Number of checkpoints to keep, counted from the newest; older ones are removed. 0 keeps all.
        keep_last: usize ["checkpoints"] = 0;
        /// Number of further checkpoints to keep: those with the highest exact match in the evaluations of
        /// `training.eval_every_steps`.
        keep_best: usize ["checkpoints"] = 0;
        /// Consequence of a checkpoint that cannot be written, such as on a full disk: "stop" ends the run with exit code 74,
        /// "continue" warns and goes on until the next one. The last good checkpoint stays in both cases.
        on_failed_write: FailedWrite = FailedWrite::Stop;
    }
}

section! {
    /// The guard against collapse, which watches the figures of each step. A limit of 0 is off; relative limits count
    /// from the mean of the first healthy steps.
    pub struct GuardConfig in "guard" {
        /// Consequence of an alarm: none (nothing is watched), a warning, or the return to the last healthy checkpoint.
        action: GuardAction = GuardAction::Warn;
        /// Number of steps with an alarm, one after the other, after which the run returns.
        patience_steps: u64 ["steps"] = 2, Range::at_least(1.0);
        /// Number of healthy steps at the beginning whose mean later steps are compared with.
        baseline_steps: u64 ["steps"] = 4, Range::at_least(1.0);
        /// Number of times that a run may return; at the next collapse it ends with exit code 75.
        max_rollbacks: u64 ["rollbacks"] = 3;
        /// Factor of the learning rates with each return.
        learning_rate_factor: f64 = 0.5, Range::above_up_to(0.0, 1.0);
        /// Factor of the weight of the KL divergence with each return; 1 leaves it.
        kl_factor: f64 = 1.0, Range::at_least(1.0);
        /// Smallest entropy, as a share of that of the first healthy steps.
        entropy_fall: f64 = 0.1, Range::between(0.0, 1.0);
        /// Largest entropy, in nats.
        max_entropy: f64 = 4.0, Range::at_least(0.0);
        /// Fall, in nats, of the log-prob of rewarded tokens below that of the first healthy steps.
        log_prob_drop: f64 = 2.0, Range::at_least(0.0);
        /// Largest divergence from the starting model, in nats per token.
        max_kl: f64 = 2.0, Range::at_least(0.0);
        /// Largest norm of the gradient, in multiples of that of the first healthy steps.
        grad_norm_rise: f64 = 20.0, Range::at_least(0.0);
        /// Largest share of groups whose trajectories all have one reward, while the mean reward is less than half of
        /// that of the first healthy steps.
        uniform_share: f64 = 0.9, Range::between(0.0, 1.0);
        /// Rise of the invalid actions per trajectory above those of the first healthy steps.
        invalid_rise: f64 = 0.75, Range::at_least(0.0);
        /// Smallest number of searches per question, as a share of that of the first healthy steps.
        searches_fall: f64 = 0.1, Range::between(0.0, 1.0);
        /// Largest number of searches per question, in multiples of that of the first healthy steps.
        searches_rise: f64 = 0.0, Range::at_least(0.0);
        /// Rise of the share of trajectories that are too long, out of turns or malformed.
        abnormal_rise: f64 = 0.5, Range::between(0.0, 1.0);
    }
}
