//! Metrics of rewards from outside.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::metrics::nan_if_null;

/// The use of services that score trajectories; without one, zeros and no numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RewardMetrics {
    /// Number of trajectories dropped because a service gave no score.
    pub failed: u64,
    /// Mean score of users' own code.
    #[serde(deserialize_with = "nan_if_null")]
    pub service_mean: f64,
    /// Means of its named parts.
    pub parts: BTreeMap<String, f64>,
    /// Mean verdict of the judge.
    #[serde(deserialize_with = "nan_if_null")]
    pub judge_mean: f64,
    /// Share of trajectories on which judge and exact match decide alike.
    #[serde(deserialize_with = "nan_if_null")]
    pub judge_agreement: f64,
    /// Cohen's kappa of these decisions.
    #[serde(deserialize_with = "nan_if_null")]
    pub judge_kappa: f64,
    /// Number of verdicts that were known before.
    pub known_verdicts: u64,
}

impl Default for RewardMetrics {
    /// Returns zeros, which equal themselves as NaN would not.
    fn default() -> Self {
        Self {
            failed: 0,
            service_mean: 0.0,
            parts: BTreeMap::new(),
            judge_mean: 0.0,
            judge_agreement: 0.0,
            judge_kappa: 0.0,
            known_verdicts: 0,
        }
    }
}
