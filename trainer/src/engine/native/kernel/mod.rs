//! Matrix products and element-wise loops in the instructions of this processor.
//!
//! An [`Instructions`] exists only for instructions that the processor supports, so calling them is safe.
//! Every kernel checks the lengths of its slices once. The order of a sum depends on its length and on the
//! instructions, never on the number of rows that are computed together.

#![expect(
    clippy::inline_always,
    reason = "a body is compiled with the instructions of the function that it is inlined into"
)]

pub(super) mod lanes;
mod portable;
#[cfg(target_arch = "x86_64")]
mod tiles_x86;
#[cfg(target_arch = "x86_64")]
mod vectors_x86;

use std::fmt;
use std::marker::PhantomData;

/// Columns of a panel, which a product computes for some rows at a time.
pub(super) const PANEL: usize = 32;

/// Numbers of each row that one step of a product multiplies.
pub(super) const STEP: usize = 32;

/// The most rows that a product computes at a time.
pub(super) const ROWS_MAX: usize = 32;

/// The multiple of rows that must be readable and writable, since a tile has as many.
pub(super) const ROWS_UNIT: usize = 16;

/// A 16-bit brain float: the upper half of an `f32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct Bf16(pub(super) u16);

impl Bf16 {
    /// Rounds to the nearest, ties to even; NaN stays NaN.
    #[inline(always)]
    pub(super) fn round(number: f32) -> Self {
        let bits = number.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        Self(if number.is_nan() { 0x7fc0 } else { rounded as u16 })
    }

    #[inline(always)]
    pub(super) fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
}

/// The type in which activations, keys, values and weights are multiplied.
pub(super) trait Number: Copy + Default + Send + Sync + fmt::Debug + 'static {
    /// Consecutive numbers of a column that lie next to each other in a right-hand matrix.
    const PAIR: usize;

    fn round(number: f32) -> Self;
    /// Converts an integer exactly.
    fn from_byte(byte: i8) -> Self;
    fn widen(self) -> f32;
    fn multiply(engaged: &EngagedThread, product: &mut Product<'_, Self>);
}

impl Number for f32 {
    const PAIR: usize = 1;

    #[inline(always)]
    fn round(number: f32) -> Self {
        number
    }

    #[inline(always)]
    fn from_byte(byte: i8) -> Self {
        f32::from(byte)
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    fn multiply(engaged: &EngagedThread, product: &mut Product<'_, Self>) {
        product.check();
        match engaged.level {
            #[cfg(target_arch = "x86_64")]
            Level::Amx | Level::Avx512Bf16 | Level::Avx512 => vectors_x86::multiply_f32(product),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => vectors_x86::multiply_f32_avx2(product),
            Level::Portable => portable::multiply(product),
        }
    }
}

impl Number for Bf16 {
    const PAIR: usize = 2;

    #[inline(always)]
    fn round(number: f32) -> Self {
        Self::round(number)
    }

    #[inline(always)]
    fn from_byte(byte: i8) -> Self {
        // Seven bits and a sign fit into the upper half.
        Self((f32::from(byte).to_bits() >> 16) as u16)
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self.widen()
    }

    fn multiply(engaged: &EngagedThread, product: &mut Product<'_, Self>) {
        product.check();
        match engaged.level {
            #[cfg(target_arch = "x86_64")]
            Level::Amx => tiles_x86::multiply(product),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Bf16 => vectors_x86::multiply_bf16(product),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 | Level::Avx2 => vectors_x86::multiply_bf16_avx2(product),
            Level::Portable => portable::multiply(product),
        }
    }
}

/// Returns the offset of row `depth` and column `column` in a right-hand matrix with `columns` columns. The
/// matrix is stored in rows of `PAIR` depths, in which the depths of a column lie next to each other.
#[inline(always)]
pub(super) fn right_offset<T: Number>(depth: usize, column: usize, columns: usize) -> usize {
    (depth / T::PAIR * columns + column) * T::PAIR + depth % T::PAIR
}

/// The offsets at which the numbers of one step begin.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Step {
    pub(super) left: usize,
    pub(super) right: usize,
}

/// The product of some rows with a panel of [`PANEL`] columns:
/// `sums[r][c] = sum over steps and d < STEP of left[r][d] * right[d][c]`.
#[derive(Debug)]
pub(super) struct Product<'a, T> {
    pub(super) steps: &'a [Step],
    /// Row `r` of a step is at `step.left + r * left_stride`.
    pub(super) left: &'a [T],
    pub(super) left_stride: usize,
    /// Laid out by [`right_offset`], with `right_columns` columns.
    pub(super) right: &'a [T],
    pub(super) right_columns: usize,
    pub(super) rows: usize,
    /// Row `r` is at `r * sums_stride`.
    pub(super) sums: &'a mut [f32],
    pub(super) sums_stride: usize,
    /// `true` if the products are added to the contents of `sums`.
    pub(super) adds: bool,
}

impl<T: Number> Product<'_, T> {
    /// Checks that the slices hold everything that is read and written, up to whole units of rows.
    fn check(&self) {
        assert!(self.rows <= ROWS_MAX, "rows of a product");
        let rows = self.rows.next_multiple_of(ROWS_UNIT).max(ROWS_UNIT);
        let (mut left, mut right) = (0, 0);
        for step in self.steps {
            left = left.max(step.left);
            right = right.max(step.right);
        }
        let left_end = left.checked_add((rows - 1) * self.left_stride + STEP);
        assert!(left_end.is_some_and(|end| end <= self.left.len()), "numbers on the left");
        let last = right_offset::<T>(STEP - 1, PANEL - 1, self.right_columns);
        let right_end = right.checked_add(last + 1);
        assert!(right_end.is_some_and(|end| end <= self.right.len()), "numbers on the right");
        let end = (rows - 1) * self.sums_stride + PANEL;
        assert!(end <= self.sums.len(), "sums of a product");
    }
}

/// The instructions of a processor, fewest first; each level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
    #[cfg(target_arch = "x86_64")]
    Amx,
}

/// Proof that the processor supports these instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instructions(Level);

impl Instructions {
    /// Returns the fastest instructions of this processor.
    pub fn detect() -> Self {
        Self::available()[0]
    }

    /// Returns all instructions of this processor, fastest first; the last are the portable ones.
    pub fn available() -> Vec<Self> {
        let mut available = Vec::new();
        #[cfg(target_arch = "x86_64")]
        available.extend(vectors_x86::levels().into_iter().map(Self));
        available.push(Self(Level::Portable));
        available
    }

    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Level::Amx => "AMX and AVX-512",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Bf16 => "AVX-512 BF16",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "AVX-512",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "AVX2",
            Level::Portable => "portable",
        }
    }

    /// Prepares the calling thread to compute.
    pub(super) fn engage(self) -> EngagedThread {
        #[cfg(target_arch = "x86_64")]
        if self.0 == Level::Amx {
            shared::machine::tiles_x86::configure();
        }
        EngagedThread { level: self.0, on_this_thread: PhantomData }
    }
}

/// Proof that the calling thread is ready to compute: its tiles are configured if the processor has any.
#[derive(Debug)]
pub(super) struct EngagedThread {
    level: Level,
    /// Keeps the proof on its thread, since the configuration is the thread's.
    on_this_thread: PhantomData<*const ()>,
}

impl Drop for EngagedThread {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        if self.level == Level::Amx {
            shared::machine::tiles_x86::release();
        }
    }
}
