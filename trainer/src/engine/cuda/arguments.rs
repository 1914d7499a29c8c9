//! The kernels of `kernels/rollout.cu` and what each is given. The structures are those of that file,
//! field by field; addresses are numbers of 64 bits on both sides.

#![expect(unsafe_code, reason = "arguments cross to C")]

use cudarc::driver::DeviceRepr;

/// Threads of a block of most kernels.
pub(super) const BLOCK_THREADS: u32 = 128;
/// Threads of a block that draws a token.
pub(super) const DRAW_THREADS: u32 = 256;
/// The largest vocabulary that a token is drawn from.
pub(super) const VOCABULARY_MAX: i64 = 512 * 1024;
/// Warps of a block.
pub(super) const BLOCK_WARPS: u32 = BLOCK_THREADS / 32;

/// Residual stream plus what a part of a layer gave, normed.
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

/// Query, key and value heads on their way to attention and into the cache.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct TurnAndStore {
    pub(super) joined: u64,
    pub(super) norm: u64,
    pub(super) cosines: u64,
    pub(super) sines: u64,
    pub(super) positions: u64,
    pub(super) places: u64,
    pub(super) query: u64,
    pub(super) keys: u64,
    pub(super) values: u64,
    pub(super) heads: u32,
    pub(super) key_value_heads: u32,
    pub(super) epsilon: f32,
    pub(super) unused: u32,
}

/// Attention of single rows over the cache.
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
    pub(super) found: u64,
    pub(super) table_blocks: u32,
    pub(super) key_value_heads: u32,
    pub(super) parts: u32,
    pub(super) window: u32,
    pub(super) scale: f32,
    pub(super) unused: u32,
}

/// The gated activation of a feed-forward block.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Gate {
    pub(super) joined: u64,
    pub(super) active: u64,
    pub(super) width: u32,
    pub(super) unused: u32,
}

/// A token for each draw.
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

// SAFETY: plain numbers in C's layout, without padding.
unsafe impl DeviceRepr for AddNorm {}
// SAFETY: as above.
unsafe impl DeviceRepr for TurnAndStore {}
// SAFETY: as above.
unsafe impl DeviceRepr for Attend {}
// SAFETY: as above.
unsafe impl DeviceRepr for Gate {}
// SAFETY: as above.
unsafe impl DeviceRepr for DrawTokens {}

/// A kernel with its arguments.
#[derive(Clone, Copy, Debug)]
pub(super) enum Launch {
    AddNorm(AddNorm),
    TurnAndStore(TurnAndStore),
    Attend(Attend),
    JoinParts(Attend),
    Gate(Gate),
    DrawTokens(DrawTokens),
}

impl Launch {
    /// The kernels' names in the order of [`Launch::number`].
    pub(super) const NAMES: [&str; 6] =
        ["add_norm", "turn_and_store", "attend", "join_parts", "gate", "draw_tokens"];

    /// Which of [`Launch::NAMES`] it is.
    pub(super) fn number(&self) -> usize {
        match self {
            Self::AddNorm(_) => 0,
            Self::TurnAndStore(_) => 1,
            Self::Attend(_) => 2,
            Self::JoinParts(_) => 3,
            Self::Gate(_) => 4,
            Self::DrawTokens(_) => 5,
        }
    }

    /// Threads of each of its blocks.
    pub(super) fn threads(&self) -> u32 {
        if let Self::DrawTokens(_) = self { DRAW_THREADS } else { BLOCK_THREADS }
    }
}

/// What runs kernels, in the order in which they are launched.
pub(super) trait Launcher: std::fmt::Debug + Send {
    /// Why a kernel could not be launched.
    type Fault: std::fmt::Display;

    /// Launches `blocks` blocks of a kernel; returns before it has run.
    ///
    /// # Errors
    /// What the driver said.
    ///
    /// # Safety
    /// Every address is that of memory which the launcher's device can reach, of the size and type that
    /// the kernel's text states, and which is freed only in the order of the launches.
    unsafe fn launch(&self, launch: &Launch, blocks: u32) -> Result<(), Self::Fault>;

    /// How many multiprocessors there are to keep busy.
    fn multiprocessors(&self) -> u32;
}
