//! The choice of instructions that compute the products. All of them find the same rows. Scores differ
//! in their last bits, because the order of summation differs.

#[cfg(target_arch = "x86_64")]
use super::bf16_x86::Screening;
use super::portable;
use super::rows::RowFormat;
#[cfg(target_arch = "x86_64")]
use super::x86::{Avx2, Avx512};

/// The most rows in one call of a kernel.
pub(super) const BLOCK_ROWS: usize = 8;

/// The most groups of queries in one call of a kernel. A group has one query for each lane of a
/// vector.
pub(super) const PANEL_GROUPS: usize = 3;

/// A product above its query's threshold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Survivor {
    /// The row's index in its block.
    pub(super) row: usize,
    /// The query's index in its panel.
    pub(super) query: usize,
    pub(super) score: f32,
}

/// A set of instructions that this processor has.
#[derive(Clone, Copy, Debug)]
pub enum Instructions {
    /// AVX-512F, after screening in bfloat16 if there are several queries.
    #[cfg(target_arch = "x86_64")]
    Screened(Avx512, Screening),
    /// AVX-512F: 16 numbers at a time.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// AVX2 with FMA and F16C: 8 numbers at a time.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// Plain loops, which the compiler vectorises: on aarch64 with NEON.
    Portable,
}

impl Instructions {
    /// Returns all sets that this processor has, fastest first. The last one is always `Portable`.
    pub fn available() -> Vec<Self> {
        let mut available = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            available.extend(Avx512::detect().into_iter().flat_map(|kernel| {
                let screened =
                    Screening::detect().map(move |screening| Self::Screened(kernel, screening));
                screened.chain([Self::Avx512(kernel)])
            }));
            available.extend(Avx2::detect().map(Self::Avx2));
        }
        available.push(Self::Portable);
        available
    }

    /// Returns the fastest set that this processor has.
    pub fn fastest() -> Self {
        Self::available()[0]
    }

    /// Returns the name of the instructions.
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Screened(_, screening) => screening.name(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "AVX-512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "AVX2",
            Self::Portable => "portable",
        }
    }

    /// Returns the number of queries in a group.
    pub(super) fn lanes(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Screened(..) | Self::Avx512(_) => Avx512::LANES,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => Avx2::LANES,
            Self::Portable => portable::LANES,
        }
    }

    /// Writes the numbers of a row as little-endian `f32`.
    pub(super) fn decode(self, row: &[u8], format: RowFormat, numbers: &mut [[u8; 4]]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Screened(kernel, _) | Self::Avx512(kernel) => kernel.decode(row, format, numbers),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(kernel) => kernel.decode(row, format, numbers),
            Self::Portable => portable::decode(row, format, numbers),
        }
    }

    /// Appends the products above their thresholds to `survivors`, with ascending rows for each query.
    /// `rows` holds up to [`BLOCK_ROWS`] rows of `dimension` little-endian `f32`. `panel` holds the
    /// first number of each query, then the second, and so on. There is one threshold for each query.
    pub(super) fn tile(
        self,
        rows: &[u8],
        dimension: usize,
        panel: &[f32],
        thresholds: &[f32],
        survivors: &mut Vec<Survivor>,
    ) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Screened(kernel, _) | Self::Avx512(kernel) => {
                kernel.tile(rows, dimension, panel, thresholds, survivors);
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(kernel) => kernel.tile(rows, dimension, panel, thresholds, survivors),
            Self::Portable => portable::tile(rows, dimension, panel, thresholds, survivors),
        }
    }

    /// Returns the products of up to [`BLOCK_ROWS`] rows in their stored format with one query. The
    /// query is padded with zeros to a multiple of [`Self::lanes`].
    pub(super) fn products(
        self,
        rows: &[u8],
        format: RowFormat,
        dimension: usize,
        query: &[f32],
    ) -> [f32; BLOCK_ROWS] {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Screened(kernel, _) | Self::Avx512(kernel) => {
                kernel.products(rows, format, dimension, query)
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(kernel) => kernel.products(rows, format, dimension, query),
            Self::Portable => portable::products(rows, format, dimension, query),
        }
    }
}
