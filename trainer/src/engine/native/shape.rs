//! Dimensions of a model as the kernels see them: padded to whole panels.

use super::kernel::{PANEL, ROWS_UNIT};
use crate::policy::ModelConfig;

/// Dimensions of a model; those named `padded` are multiples of [`PANEL`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) vocabulary: usize,
    pub(super) hidden: usize,
    pub(super) hidden_padded: usize,
    pub(super) intermediate: usize,
    pub(super) intermediate_padded: usize,
    pub(super) heads: usize,
    pub(super) key_value_heads: usize,
    /// Query heads that share a key and value head.
    pub(super) group: usize,
    pub(super) head_dim: usize,
    pub(super) head_dim_padded: usize,
    pub(super) epsilon: f32,
}

impl Shape {
    pub(super) fn new(config: &ModelConfig) -> Self {
        let size = |value: i64| {
            usize::try_from(value)
                .expect("the sizes of a checked model configuration are at least 1")
        };
        let padded = |value: i64| size(value).next_multiple_of(PANEL);
        Self {
            vocabulary: size(config.vocab_size),
            hidden: size(config.hidden_size),
            hidden_padded: padded(config.hidden_size),
            intermediate: size(config.intermediate_size),
            intermediate_padded: padded(config.intermediate_size),
            heads: size(config.heads),
            key_value_heads: size(config.key_value_heads),
            group: size(config.heads) / size(config.key_value_heads),
            head_dim: size(config.head_dim),
            head_dim_padded: padded(config.head_dim),
            epsilon: config.rms_norm_epsilon as f32,
        }
    }
}

/// Returns the rows of a buffer that holds `rows` rows, padded to what a kernel reads together.
pub(super) fn padded_rows(rows: usize) -> usize {
    rows.next_multiple_of(ROWS_UNIT)
}
