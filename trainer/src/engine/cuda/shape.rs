//! What the kernels are compiled for.

use tch::Kind;

use super::arguments::{BLOCK_WARPS, VOCABULARY_MAX};
use crate::policy::ModelConfig;

/// Shared memory that a block may have without being asked for, in f32.
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
    /// Of a model that computes in `kind`.
    ///
    /// # Errors
    /// What of the model the kernels cannot do.
    pub(super) fn of(config: &ModelConfig, kind: Kind) -> Result<Self, String> {
        let bf16 = match kind {
            Kind::BFloat16 => true,
            Kind::Float => false,
            other => return Err(format!("the kernels compute in bf16 and f32, not in {other:?}")),
        };
        let (head_dim, group) = (config.head_dim, config.heads / config.key_value_heads);
        if head_dim % 2 != 0 {
            return Err(format!("heads of {head_dim} numbers, expected an even number"));
        }
        // Queries, weights of a block of the cache, and what each warp found.
        let warps = i64::from(BLOCK_WARPS);
        let shared = group * (head_dim + warps * 32 + warps * (head_dim + 2));
        if shared > SHARED_NUMBERS_MAX {
            return Err(format!(
                "{group} query heads of {head_dim} numbers share a key/value head, which takes {shared} \
                 numbers of shared memory, and there are {SHARED_NUMBERS_MAX}"
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

    /// As the kernels' text names them.
    pub(super) fn macros(self) -> Vec<String> {
        vec![
            format!("NUMBER_IS_BF16={}", i32::from(self.bf16)),
            format!("HEAD_DIM={}", self.head_dim),
            format!("GROUP={}", self.group),
        ]
    }
}
