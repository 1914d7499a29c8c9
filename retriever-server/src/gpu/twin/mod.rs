//! What the kernels do, on the processor and one lane after the other: the same tiles, stages,
//! fragments, thresholds, lists and sorting, for the tests and for checks of a device's results.
//! Far slower than [`crate::vector::top_k`].

mod lanes;

use std::ops::Range;

use lanes::{Bytes, Halves, Numbers, WARP_LANES, load_fragments};

use super::keys;
use super::pack::{DeviceFormat, Layout, PackedQueries};
use super::search::Machine;
use super::shape::{BLOCK_THREADS, Kernel, LIST_KEYS, SLAB_BYTES, STAGES, STREAM_ROWS, TILE_ROWS};

const CHUNK_BYTES: usize = 16;
const SLAB_CHUNKS: usize = SLAB_BYTES / CHUNK_BYTES;

/// A device without a device.
#[derive(Debug)]
pub struct Twin {
    layout: Layout,
    rows: Vec<u8>,
    scales: Vec<f32>,
    /// Blocks that a launch has; more than one, so that a block skips tiles of others.
    blocks: usize,
    /// Shared memory that a block may have.
    shared_bytes: usize,
    queries: PackedQueries,
    keep: usize,
    lists: Vec<u64>,
    counts: Vec<usize>,
    kept: Vec<usize>,
    thresholds: Vec<u64>,
    overflow: u32,
    results: Vec<u64>,
    /// Phases that were searched, those done again included.
    phases: usize,
}

/// What a launch of a kernel is told.
struct Launch {
    rows: Range<usize>,
    /// The queries of this launch, of all.
    queries: Range<usize>,
    number: u32,
}

impl Twin {
    /// A twin of a device that holds rows of `dimension` numbers.
    pub fn new(layout: Layout, numbers: &[f32], shared_bytes: usize) -> Self {
        let count = numbers.len() / layout.dimension;
        let mut rows = vec![0; count * layout.pitch()];
        let packed = rows.chunks_mut(layout.pitch());
        let scales = numbers
            .chunks_exact(layout.dimension)
            .zip(packed)
            .map(|(row, packed)| layout.pack(row, packed))
            .collect();
        Self::of_packed(layout, rows, scales, shared_bytes)
    }

    /// A twin of a device that holds these bytes.
    pub fn of_packed(layout: Layout, rows: Vec<u8>, scales: Vec<f32>, shared_bytes: usize) -> Self {
        Self {
            layout,
            rows,
            scales,
            blocks: 3,
            shared_bytes,
            queries: PackedQueries::pack(layout, &[]),
            keep: 0,
            lists: Vec::new(),
            counts: Vec::new(),
            kept: Vec::new(),
            thresholds: Vec::new(),
            overflow: 0,
            results: Vec::new(),
            phases: 0,
        }
    }

    /// Phases that were searched so far, those done again included.
    pub fn phases(&self) -> usize {
        self.phases
    }

    fn row(&self, row: usize) -> &[u8] {
        &self.rows[row * self.layout.pitch()..][..self.layout.pitch()]
    }

    /// A query of the launch; zeros past the last, as in the buffer of a device.
    fn query(&self, launch: &Launch, query: usize) -> Vec<u8> {
        let pitch = self.layout.pitch();
        let query = launch.queries.start + query;
        self.queries.bytes.get(query * pitch..(query + 1) * pitch).map_or(vec![0; pitch], Vec::from)
    }

    /// `offer` of the kernels.
    fn offer(&mut self, launch: &Launch, score: f32, row: usize, query: usize, threshold: u64) {
        if !score.is_finite() {
            return;
        }
        let key = keys::make(score, row as u32);
        if key <= threshold {
            return;
        }
        let query = launch.queries.start + query;
        let place = self.counts[query];
        self.counts[query] += 1;
        if place < LIST_KEYS {
            self.lists[query * LIST_KEYS + place] = key;
        } else {
            self.overflow = launch.number;
        }
    }

    /// `stream` of the kernels: a warp takes some rows, each lane every 32nd chunk of them.
    fn stream<N: Numbers>(&mut self, launch: &Launch, queries: usize) {
        let count = launch.queries.len();
        for group in 0..launch.rows.len().div_ceil(STREAM_ROWS) {
            let row = launch.rows.start + group * STREAM_ROWS;
            let mut own = vec![N::Sum::default(); WARP_LANES];
            for r in 0..STREAM_ROWS {
                let stored = self.row((row + r).min(launch.rows.end - 1));
                for q in 0..queries {
                    let query = self.query(launch, q);
                    let mut sums = [N::Sum::default(); WARP_LANES];
                    let chunks = stored.chunks(CHUNK_BYTES).zip(query.chunks(CHUNK_BYTES));
                    for (chunk, (row, query)) in chunks.enumerate() {
                        let sum = &mut sums[chunk % WARP_LANES];
                        *sum = N::add(*sum, row, query);
                    }
                    let mut apart = WARP_LANES / 2;
                    while apart > 0 {
                        sums = std::array::from_fn(|lane| N::plus(sums[lane], sums[lane ^ apart]));
                        apart /= 2;
                    }
                    own[r * queries + q] = sums[r * queries + q];
                }
            }
            for (lane, sum) in own.into_iter().enumerate() {
                let (own_row, query) = (row + lane / queries, lane % queries);
                let owns = lane / queries < STREAM_ROWS && query < count;
                if owns && own_row < launch.rows.end {
                    let threshold = self.thresholds[launch.queries.start + query];
                    let score = N::score(sum, self.scales[own_row]);
                    self.offer(launch, score, own_row, query, threshold);
                }
            }
        }
    }

    /// `tiles` of the kernels, one block after the other.
    fn tiles<N: Numbers>(&mut self, launch: &Launch, kernel: Kernel) {
        let slabs = self.layout.pitch() / SLAB_BYTES;
        let tile_count = launch.rows.len().div_ceil(TILE_ROWS);
        for block in 0..self.blocks.min(tile_count) {
            let own_tiles = (tile_count - block - 1) / self.blocks + 1;
            let steps = own_tiles * slabs;
            let first_of =
                |step: usize| launch.rows.start + (block + step / slabs * self.blocks) * TILE_ROWS;
            let firsts: Vec<usize> = (0..steps).map(first_of).collect();
            let mut stages = vec![vec![0; kernel.shared_bytes() / STAGES]; STAGES];
            let mut sums = vec![Tile::new::<N>(kernel); BLOCK_THREADS / WARP_LANES];
            for step in 0..(STAGES - 1).min(steps) {
                self.fetch(launch, kernel, (step, firsts[step]), &mut stages[step % STAGES]);
            }
            for step in 0..steps {
                let ahead = step + STAGES - 1;
                if ahead < steps {
                    let stage = &mut stages[ahead % STAGES];
                    self.fetch(launch, kernel, (ahead, firsts[ahead]), stage);
                }
                for (warp, sums) in sums.iter_mut().enumerate() {
                    multiply::<N>(&stages[step % STAGES], kernel, warp, sums);
                }
                if step % slabs == slabs - 1 {
                    for (warp, sums) in sums.iter_mut().enumerate() {
                        self.look_at::<N>(launch, kernel, (warp, firsts[step]), sums);
                    }
                }
            }
        }
    }

    /// Copies a slab of a tile's rows and of the queries into a stage.
    fn fetch(&self, launch: &Launch, kernel: Kernel, step: (usize, usize), stage: &mut [u8]) {
        let (step, first) = step;
        let offset = step % (self.layout.pitch() / SLAB_BYTES) * SLAB_BYTES;
        for index in 0..(TILE_ROWS + kernel.queries()) * SLAB_CHUNKS {
            let (line, chunk) = (index / SLAB_CHUNKS, index % SLAB_CHUNKS);
            let from = if line < TILE_ROWS {
                self.row((first + line).min(launch.rows.end - 1)).to_vec()
            } else {
                self.query(launch, line - TILE_ROWS)
            };
            let from = &from[offset + chunk * CHUNK_BYTES..][..CHUNK_BYTES];
            stage[place_of(line, chunk)..][..CHUNK_BYTES].copy_from_slice(from);
        }
    }

    /// Compares a warp's sums with the thresholds, and forgets them.
    fn look_at<N: Numbers>(
        &mut self,
        launch: &Launch,
        kernel: Kernel,
        place: (usize, usize),
        sums: &mut Tile<N::Sum>,
    ) {
        let (warp, first) = place;
        let (down, across) = corner(kernel, warp);
        for a in 0..sums.across {
            for (lane, column) in (0..WARP_LANES).flat_map(|lane| [(lane, 0), (lane, 1)]) {
                let query = across + a * 8 + lane % 4 * 2 + column;
                let asked = query < launch.queries.len();
                let threshold =
                    if asked { self.thresholds[launch.queries.start + query] } else { 0 };
                for d in 0..sums.down {
                    for half in 0..2 {
                        let row = first + down + lane / 4 + d * 16 + half * 8;
                        let sum = std::mem::take(&mut sums.at(d, a)[lane][half * 2 + column]);
                        if asked && row < launch.rows.end {
                            let score = N::score(sum, self.scales[row]);
                            if score >= keys::score(threshold) {
                                self.offer(launch, score, row, query, threshold);
                            }
                        }
                    }
                }
            }
        }
    }

    /// `cut_lists` of the kernels, for one query.
    fn cut_list(&mut self, query: usize) {
        let keep = self.keep;
        let list = &mut self.lists[query * LIST_KEYS..][..LIST_KEYS];
        let count = self.counts[query].min(LIST_KEYS);
        let mut sorted = vec![0; count.next_power_of_two()];
        sorted[..count].copy_from_slice(&list[..count]);
        sort_descending(&mut sorted);
        let full = count >= keep;
        let threshold = &mut self.thresholds[query];
        if self.overflow != 0 {
            self.counts[query] = self.kept[query];
            if full {
                *threshold = (*threshold).max(sorted[keep - 1] - 1);
            }
            return;
        }
        let remaining = count.min(keep);
        list[..remaining].copy_from_slice(&sorted[..remaining]);
        let results = &mut self.results[query * keep..][..keep];
        results.fill(0);
        results[..remaining].copy_from_slice(&sorted[..remaining]);
        self.counts[query] = remaining;
        self.kept[query] = remaining;
        if full {
            *threshold = (*threshold).max(sorted[keep - 1]);
        }
    }
}

impl Machine for Twin {
    type Fault = std::convert::Infallible;

    fn rows(&self) -> usize {
        self.rows.len() / self.layout.pitch()
    }

    fn begin(&mut self, queries: &PackedQueries, keep: usize) -> Result<(), Self::Fault> {
        let count = queries.count();
        self.queries = queries.clone();
        self.keep = keep;
        self.lists = vec![0; count * LIST_KEYS];
        self.counts = vec![0; count];
        self.kept = vec![0; count];
        self.thresholds = vec![0; count];
        self.results = vec![0; count * keep];
        self.overflow = 0;
        Ok(())
    }

    fn phase(&mut self, rows: Range<usize>, number: u32) -> Result<(), Self::Fault> {
        self.phases += 1;
        let count = self.queries.count();
        let kernel = Kernel::of(count, self.shared_bytes);
        for first in (0..count).step_by(kernel.queries()) {
            // A kernel looks at this before anything else.
            if self.overflow != 0 {
                break;
            }
            let queries = first..(first + kernel.queries()).min(count);
            let launch = Launch { rows: rows.clone(), queries, number };
            match (kernel, self.layout.format) {
                (Kernel::Stream(queries), DeviceFormat::Halves) => {
                    self.stream::<Halves>(&launch, queries);
                }
                (Kernel::Stream(queries), DeviceFormat::Bytes) => {
                    self.stream::<Bytes>(&launch, queries);
                }
                (Kernel::Tiles(_), DeviceFormat::Halves) => self.tiles::<Halves>(&launch, kernel),
                (Kernel::Tiles(_), DeviceFormat::Bytes) => self.tiles::<Bytes>(&launch, kernel),
            }
        }
        (0..count).for_each(|query| self.cut_list(query));
        Ok(())
    }

    fn overflow(&mut self) -> Result<u32, Self::Fault> {
        Ok(std::mem::take(&mut self.overflow))
    }

    fn results(&mut self) -> Result<Vec<u64>, Self::Fault> {
        Ok(self.results.clone())
    }
}

/// The sums of a warp: four a lane for each 16 rows and 8 queries.
#[derive(Clone)]
struct Tile<S> {
    down: usize,
    across: usize,
    sums: Vec<[[S; 4]; WARP_LANES]>,
}

impl<S: Copy + Default> Tile<S> {
    fn new<N: Numbers<Sum = S>>(kernel: Kernel) -> Self {
        let (warps_down, warps_across) = kernel.warps();
        let down = TILE_ROWS / warps_down / 16;
        let across = kernel.queries() / warps_across / 8;
        Self { down, across, sums: vec![[[S::default(); 4]; WARP_LANES]; down * across] }
    }

    fn at(&mut self, down: usize, across: usize) -> &mut [[S; 4]; WARP_LANES] {
        &mut self.sums[down * self.across + across]
    }
}

/// Where a warp's sums begin in the tile: row and query.
fn corner(kernel: Kernel, warp: usize) -> (usize, usize) {
    let (warps_down, warps_across) = kernel.warps();
    let down = warp / warps_across * (TILE_ROWS / warps_down);
    let across = warp % warps_across * (kernel.queries() / warps_across);
    (down, across)
}

/// Where a chunk of a line lies in a stage.
fn place_of(line: usize, chunk: usize) -> usize {
    line * SLAB_BYTES + (chunk ^ (line % SLAB_CHUNKS)) * CHUNK_BYTES
}

/// Adds the products of a stage to a warp's sums.
fn multiply<N: Numbers>(stage: &[u8], kernel: Kernel, warp: usize, sums: &mut Tile<N::Sum>) {
    let (down, across) = corner(kernel, warp);
    for chunk in (0..SLAB_CHUNKS).step_by(2) {
        for a in (0..sums.across).step_by(2) {
            let queries = load_fragments(stage, |lane| {
                let line = TILE_ROWS + across + a * 8 + lane % 8 + lane / 16 * 8;
                place_of(line, chunk + lane / 8 % 2)
            });
            for d in 0..sums.down {
                let rows = load_fragments(stage, |lane| {
                    place_of(down + d * 16 + lane % 16, chunk + lane / 16)
                });
                N::multiply(sums.at(d, a), &rows, &queries, 0);
                N::multiply(sums.at(d, a + 1), &rows, &queries, 2);
            }
        }
    }
}

/// The sorting network of `cut_lists`; the length is a power of two.
fn sort_descending(keys: &mut [u64]) {
    let size = keys.len();
    let mut run = 2;
    while run <= size {
        let mut apart = run / 2;
        while apart > 0 {
            for index in 0..size {
                let other = index ^ apart;
                if other > index {
                    let descending = index & run == 0;
                    let (one, two) = (keys[index], keys[other]);
                    if if descending { one < two } else { one > two } {
                        keys.swap(index, other);
                    }
                }
            }
            apart /= 2;
        }
        run *= 2;
    }
}

#[cfg(test)]
mod tests;
