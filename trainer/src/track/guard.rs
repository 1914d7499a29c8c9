//! The part of a metrics row that the guard against collapse reads and writes.

use serde::{Deserialize, Serialize};

/// The figures and findings of the guard against collapse.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuardMetrics {
    /// Number of groups of trajectories.
    pub groups: u64,
    /// Number of trajectories that were too long, out of turns or malformed.
    pub abnormal_trajectories: u64,
    /// The figures outside of their limits, in words.
    pub alarms: Vec<String>,
    /// Number of times that the run has returned to a healthy checkpoint.
    pub rollbacks: u64,
}
