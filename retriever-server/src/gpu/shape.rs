//! Sizes that the kernels and the host agree on, and the choice of the kernel for a batch.

/// The number of keys in a query's list. A phase of as many rows as there are free slots cannot
/// overflow it, whatever the scores.
pub(super) const LIST_KEYS: usize = 4096;
/// The most hits that a search keeps for a query.
pub const KEEP_MAX: usize = LIST_KEYS / 2;
/// The most queries of one search on a device.
pub const BATCH_QUERIES_MAX: usize = 256;
/// The number of rows in a tile.
pub(super) const TILE_ROWS: usize = 128;
/// The bytes of each row or query in a stage of shared memory.
pub(super) const SLAB_BYTES: usize = 128;
/// The number of stages in shared memory: one is multiplied while the others are filled.
pub(super) const STAGES: usize = 3;
/// The number of threads in a block that multiplies.
pub(super) const BLOCK_THREADS: usize = 256;
/// The number of threads in a block that sorts.
pub(super) const CUT_THREADS: usize = 1024;

/// A kernel, with the number of queries of one launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SearchKernel {
    /// A kernel that reads each row once, directly into registers.
    Stream(usize),
    /// A kernel that multiplies tiles on tensor cores.
    Tiles(usize),
}

impl SearchKernel {
    /// All kernels, smallest first.
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

    /// Returns the smallest kernel that takes `queries` in one launch and needs at most
    /// `shared_bytes` of shared memory a block. If there is none, returns the largest that fits,
    /// which then takes them in several launches.
    pub(super) fn choose(queries: usize, shared_bytes: usize) -> Self {
        let fits = |kernel: &&Self| kernel.shared_bytes() <= shared_bytes;
        let mut fitting = Self::ALL.iter().filter(fits);
        let largest = fitting.clone().next_back();
        let chosen = fitting.find(|kernel| kernel.queries() >= queries).or(largest);
        *chosen.expect("kernels that stream need no shared memory, so they always fit")
    }

    /// Returns the number of queries of a launch.
    pub(super) fn queries(self) -> usize {
        match self {
            Self::Stream(queries) | Self::Tiles(queries) => queries,
        }
    }

    /// Returns the kernel's name in the compiled module.
    pub(super) fn name(self) -> String {
        match self {
            Self::Stream(queries) => format!("stream_{queries}"),
            Self::Tiles(queries) => format!("tiles_{queries}"),
        }
    }

    /// Returns the bytes of shared memory of a block.
    pub(super) fn shared_bytes(self) -> usize {
        match self {
            Self::Stream(_) => 0,
            Self::Tiles(queries) => STAGES * (TILE_ROWS + queries) * SLAB_BYTES,
        }
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
            ("TILE_ROWS", TILE_ROWS),
            ("SLAB_BYTES", SLAB_BYTES),
            ("STAGES", STAGES),
            ("BLOCK_THREADS", BLOCK_THREADS),
            ("CUT_THREADS", CUT_THREADS),
        ] {
            let line = format!("\n#define {name} {value}\n");
            assert!(SEARCH_SOURCE.contains(&line), "expected {line:?} in search.cu");
        }
        for kernel in SearchKernel::ALL {
            let line = match kernel {
                SearchKernel::Stream(queries) => format!("\nSTREAM({queries})\n"),
                SearchKernel::Tiles(queries) => format!("\nTILES({queries}, "),
            };
            assert!(SEARCH_SOURCE.contains(&line), "expected {line:?} in search.cu");
        }
    }

    #[test]
    fn the_smallest_kernel_that_takes_the_batch_and_fits_is_chosen() {
        let large = 227 << 10;
        let chosen = |queries| SearchKernel::choose(queries, large).queries();
        let sizes: Vec<usize> =
            [1, 2, 3, 8, 9, 32, 33, 128, 129, 256].into_iter().map(chosen).collect();
        assert_eq!(sizes, [1, 2, 4, 8, 32, 32, 64, 128, 256, 256]);
        assert_eq!(
            SearchKernel::choose(256, 99 << 10),
            SearchKernel::Tiles(128),
            "on a smaller device"
        );
        assert_eq!(SearchKernel::choose(256, 0), SearchKernel::Stream(8));
    }
}
