//! The constants that the kernels are compiled for.

use tch::Kind;

use super::arguments::{BLOCK_WARPS, VOCABULARY_MAX};
use crate::policy::ModelConfig;

/// Shared memory that every block may use without a special request, in f32 numbers.
const SHARED_NUMBERS_MAX: i64 = 48 * 1024 / 4;

/// The constants of a model's kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KernelShape {
    bf16: bool,
    head_dim: i64,
    /// Query heads that share a key/value head.
    group: i64,
}

impl KernelShape {
    /// Returns the constants of a model that computes in `kind`.
    ///
    /// # Errors
    /// The kernels do not support the model; the text names the value and the limit.
    pub(super) fn new(config: &ModelConfig, kind: Kind) -> Result<Self, String> {
        let bf16 = match kind {
            Kind::BFloat16 => true,
            Kind::Float => false,
            other => return Err(format!("the kernels compute in bf16 and f32, not in {other:?}")),
        };
        let (head_dim, group) = (config.head_dim, config.heads / config.key_value_heads);
        if head_dim % 2 != 0 {
            return Err(format!("heads of {head_dim} numbers, expected an even number"));
        }
        // Queries, weights of a block of the cache, and the results of each warp.
        let warps = i64::from(BLOCK_WARPS);
        let shared = group * (head_dim + warps * 32 + warps * (head_dim + 2));
        if shared > SHARED_NUMBERS_MAX {
            return Err(format!(
                "{group} query heads of {head_dim} numbers share a key/value head, which needs {shared} \
                 numbers of shared memory, expected at most {SHARED_NUMBERS_MAX}"
            ));
        }
        if config.vocab_size > VOCABULARY_MAX {
            return Err(format!(
                "a vocabulary of {} tokens, expected at most {VOCABULARY_MAX}",
                config.vocab_size
            ));
        }
        Ok(Self { bf16, head_dim, group })
    }

    /// Returns the constants as macro definitions for the kernels' text.
    pub(super) fn macros(self) -> Vec<String> {
        vec![
            format!("NUMBER_IS_BF16={}", i32::from(self.bf16)),
            format!("HEAD_DIM={}", self.head_dim),
            format!("GROUP={}", self.group),
        ]
    }
}
