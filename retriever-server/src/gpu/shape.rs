//! Sizes that the kernels, their twin and the host agree on, and which kernel takes a batch.

/// Keys of a query's list. As many rows as are free in it always fit, whatever they score.
pub(super) const LIST_KEYS: usize = 4096;
/// Most hits that a search keeps for a query.
pub const KEEP_MAX: usize = LIST_KEYS / 2;
/// Most queries of a search on a device.
pub const BATCH_QUERIES_MAX: usize = 256;
/// Rows that a warp streams at a time.
pub(super) const STREAM_ROWS: usize = 4;
/// Rows of a tile.
pub(super) const TILE_ROWS: usize = 128;
/// Bytes of a row or query in a stage of shared memory.
pub(super) const SLAB_BYTES: usize = 128;
/// Stages of shared memory, one of which is multiplied while the others are filled.
pub(super) const STAGES: usize = 3;
/// Threads of a block that multiplies.
pub(super) const BLOCK_THREADS: usize = 256;
/// Threads of a block that sorts.
pub(super) const CUT_THREADS: usize = 1024;

/// A kernel and the queries that one launch of it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    /// Reads each row once, straight into registers.
    Stream(usize),
    /// Multiplies tiles by tensor cores.
    Tiles(usize),
}

impl Kernel {
    /// All of them, smallest first.
    pub(super) const ALL: [Self; 8] = [
        Self::Stream(1),
        Self::Stream(2),
        Self::Stream(4),
        Self::Stream(8),
        Self::Tiles(32),
        Self::Tiles(64),
        Self::Tiles(128),
        Self::Tiles(256),
    ];

    /// The smallest that takes `queries` at once and fits `shared_bytes` of shared memory a block,
    /// else the largest that fits, which then takes them in several launches.
    pub(super) fn of(queries: usize, shared_bytes: usize) -> Self {
        let fits = |kernel: &&Self| kernel.shared_bytes() <= shared_bytes;
        let mut fitting = Self::ALL.iter().filter(fits);
        let largest = fitting.clone().next_back();
        let chosen = fitting.find(|kernel| kernel.queries() >= queries).or(largest);
        chosen.copied().unwrap_or(Self::Stream(8))
    }

    /// Queries of a launch.
    pub(super) fn queries(self) -> usize {
        match self {
            Self::Stream(queries) | Self::Tiles(queries) => queries,
        }
    }

    /// Name in the compiled module.
    pub(super) fn name(self) -> String {
        match self {
            Self::Stream(queries) => format!("stream_{queries}"),
            Self::Tiles(queries) => format!("tiles_{queries}"),
        }
    }

    /// Bytes of shared memory of a block.
    pub(super) fn shared_bytes(self) -> usize {
        match self {
            Self::Stream(_) => 0,
            Self::Tiles(queries) => STAGES * (TILE_ROWS + queries) * SLAB_BYTES,
        }
    }

    /// Warps along the rows and along the queries of a tile.
    pub(super) fn warps(self) -> (usize, usize) {
        if self.queries() <= 64 { (4, 2) } else { (2, 4) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::compile::SEARCH_SOURCE;

    #[test]
    fn the_kernels_have_the_same_sizes() {
        for (name, value) in [
            ("LIST_KEYS", LIST_KEYS),
            ("STREAM_ROWS", STREAM_ROWS),
            ("TILE_ROWS", TILE_ROWS),
            ("SLAB_BYTES", SLAB_BYTES),
            ("STAGES", STAGES),
            ("BLOCK_THREADS", BLOCK_THREADS),
            ("CUT_THREADS", CUT_THREADS),
        ] {
            let line = format!("\n#define {name} {value}\n");
            assert!(SEARCH_SOURCE.contains(&line), "expected {line:?} in search.cu");
        }
        for kernel in Kernel::ALL {
            let line = match kernel {
                Kernel::Stream(queries) => format!("\nSTREAM({queries})\n"),
                Kernel::Tiles(queries) => {
                    let (down, across) = kernel.warps();
                    format!("\nTILES({queries}, {down}, {across})\n")
                }
            };
            assert!(SEARCH_SOURCE.contains(&line), "expected {line:?} in search.cu");
        }
    }

    #[test]
    fn the_smallest_kernel_that_takes_the_batch_and_fits_is_chosen() {
        let large = 227 << 10;
        let chosen = |queries| Kernel::of(queries, large).queries();
        let found: Vec<usize> =
            [1, 2, 3, 8, 9, 32, 33, 128, 129, 256].into_iter().map(chosen).collect();
        assert_eq!(found, [1, 2, 4, 8, 32, 32, 64, 128, 256, 256]);
        assert_eq!(Kernel::of(256, 99 << 10), Kernel::Tiles(128), "on a smaller device");
        assert_eq!(Kernel::of(256, 0), Kernel::Stream(8));
    }
}
