//! Dimensions of a model as the kernels see them: filled up to whole panels.

use super::kernel::{PANEL, ROWS_UNIT};
use crate::policy::ModelConfig;

/// Dimensions; those called padded are multiples of [`PANEL`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) vocabulary: usize,
    pub(super) hidden: usize,
    pub(super) hidden_padded: usize,
    pub(super) intermediate: usize,
    pub(super) intermediate_padded: usize,
    pub(super) heads: usize,
    pub(super) key_value_heads: usize,
    /// Query heads of each key and value head.
    pub(super) group: usize,
    pub(super) head_dim: usize,
    pub(super) head_dim_padded: usize,
    pub(super) epsilon: f32,
}

impl Shape {
    pub(super) fn of(config: &ModelConfig) -> Self {
        let size = |value: i64| usize::try_from(value).unwrap_or(0);
        let padded = |value: i64| size(value).next_multiple_of(PANEL);
        Self {
            vocabulary: size(config.vocab_size),
            hidden: size(config.hidden_size),
            hidden_padded: padded(config.hidden_size),
            intermediate: size(config.intermediate_size),
            intermediate_padded: padded(config.intermediate_size),
            heads: size(config.heads),
            key_value_heads: size(config.key_value_heads),
            group: size(config.heads) / size(config.key_value_heads).max(1),
            head_dim: size(config.head_dim),
            head_dim_padded: padded(config.head_dim),
            epsilon: config.rms_norm_epsilon as f32,
        }
    }
}

/// Rows of a buffer that holds `rows`.
pub(super) fn padded_rows(rows: usize) -> usize {
    rows.next_multiple_of(ROWS_UNIT)
}
