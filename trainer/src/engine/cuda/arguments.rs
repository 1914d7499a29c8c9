//! The kernels of `kernels/rollout.cu` and their arguments. The structures equal those of that file, field by
//! field. Addresses are numbers of 64 bits on both sides.

#![expect(unsafe_code, reason = "arguments cross to C")]

use cudarc::driver::DeviceRepr;

/// Threads of a block of most kernels.
pub(super) const BLOCK_THREADS: u32 = 128;
/// Threads of a block that draws a token.
pub(super) const DRAW_THREADS: u32 = 256;
/// The largest vocabulary that a kernel draws from.
pub(super) const VOCABULARY_MAX: i64 = 512 * 1024;
/// Warps of a block.
pub(super) const BLOCK_WARPS: u32 = BLOCK_THREADS / 32;

/// Arguments of `add_norm`: the residual stream plus the output of one part of a layer, normalised.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct AddNorm {
    pub(super) residual: u64,
    pub(super) delta: u64,
    pub(super) weight: u64,
    pub(super) normed: u64,
    pub(super) width: u32,
    pub(super) epsilon: f32,
}

/// Arguments of `rotate_and_store`: query, key and value heads before attention.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct RotateAndStore {
    pub(super) joined: u64,
    pub(super) norm: u64,
    pub(super) cosines: u64,
    pub(super) sines: u64,
    pub(super) positions: u64,
    pub(super) slots: u64,
    pub(super) query: u64,
    pub(super) keys: u64,
    pub(super) values: u64,
    pub(super) heads: u32,
    pub(super) key_value_heads: u32,
    pub(super) epsilon: f32,
    pub(super) unused: u32,
}

/// Arguments of `attend` and `join_parts`: attention of single rows over the cache.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Attend {
    pub(super) query: u64,
    pub(super) keys: u64,
    pub(super) values: u64,
    pub(super) rows: u64,
    pub(super) lengths: u64,
    pub(super) tables: u64,
    pub(super) mixed: u64,
    pub(super) partials: u64,
    pub(super) table_blocks: u32,
    pub(super) key_value_heads: u32,
    pub(super) parts: u32,
    pub(super) window: u32,
    pub(super) scale: f32,
    pub(super) unused: u32,
}

/// Arguments of `gate`: the gated activation of a feed-forward block.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Gate {
    pub(super) joined: u64,
    pub(super) active: u64,
    pub(super) width: u32,
    pub(super) unused: u32,
}

/// Arguments of `draw_tokens`: a token for each draw.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct DrawTokens {
    pub(super) logits: u64,
    pub(super) rows: u64,
    pub(super) temperatures: u64,
    pub(super) uniforms: u64,
    pub(super) tokens: u64,
    pub(super) log_probs: u64,
    pub(super) vocabulary: u32,
    pub(super) unused: u32,
}

// SAFETY: all of these are plain numbers in C's layout, without padding.
unsafe impl DeviceRepr for AddNorm {}
// SAFETY: as for `AddNorm`.
unsafe impl DeviceRepr for RotateAndStore {}
// SAFETY: as for `AddNorm`.
unsafe impl DeviceRepr for Attend {}
// SAFETY: as for `AddNorm`.
unsafe impl DeviceRepr for Gate {}
// SAFETY: as for `AddNorm`.
unsafe impl DeviceRepr for DrawTokens {}

/// A kernel with its arguments.
#[derive(Clone, Copy, Debug)]
pub(super) enum Launch {
    AddNorm(AddNorm),
    RotateAndStore(RotateAndStore),
    Attend(Attend),
    JoinParts(Attend),
    Gate(Gate),
    DrawTokens(DrawTokens),
}

impl Launch {
    /// The kernels' names in the order of [`Launch::number`].
    pub(super) const NAMES: [&str; 6] =
        ["add_norm", "rotate_and_store", "attend", "join_parts", "gate", "draw_tokens"];

    /// Returns the index of the kernel in [`Launch::NAMES`].
    pub(super) fn number(&self) -> usize {
        match self {
            Self::AddNorm(_) => 0,
            Self::RotateAndStore(_) => 1,
            Self::Attend(_) => 2,
            Self::JoinParts(_) => 3,
            Self::Gate(_) => 4,
            Self::DrawTokens(_) => 5,
        }
    }

    /// Returns the threads of each block.
    pub(super) fn threads(&self) -> u32 {
        if let Self::DrawTokens(_) = self { DRAW_THREADS } else { BLOCK_THREADS }
    }
}

/// A device, or an emulation, that runs kernels in the order of their launches.
pub(super) trait Launcher: std::fmt::Debug + Send {
    /// The error of a launch.
    type Fault: std::fmt::Display;

    /// Launches `blocks` blocks of a kernel; may return before the kernel has run.
    ///
    /// # Errors
    /// The error that the driver reports.
    ///
    /// # Safety
    /// Every address must point to memory that the launcher's device can reach. The memory must have the size
    /// and type that the kernel's text states, and must be freed only in the order of the launches.
    unsafe fn launch(&self, launch: &Launch, blocks: u32) -> Result<(), Self::Fault>;

    /// Returns the number of multiprocessors.
    fn multiprocessors(&self) -> u32;
}
