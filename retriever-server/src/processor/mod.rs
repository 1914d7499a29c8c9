//! Services of the machine for every room: mapped files, work on several threads, and instructions that
//! more than one room uses. It knows nothing of search.
//!
//! - [`mapped`] is the one way to map a file.
//! - [`fork_join`] is the one way to split work over threads and wait for it.
//! - `bf16_x86` rounds to bfloat16 by the instructions of AVX-512 BF16.

pub(crate) mod mapped;
pub(crate) mod fork_join;
#[cfg(target_arch = "x86_64")]
pub(crate) mod bf16_x86;
