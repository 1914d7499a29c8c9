//! A device in the memory of the process, for the tests. It runs the text of the kernels, compiled as
//! C++ for the processor (`kernels/emulated.h`).

#![expect(unsafe_code, reason = "the kernels are C++")]

use std::ffi::{CString, c_char, c_int};
use std::ops::Range;
use std::sync::{LazyLock, Mutex, PoisonError};

use libloading::{Library, Symbol};

use super::cuda::PhaseArgument;
use super::pack::{DeviceFormat, Layout, PackedQueries};
use super::search::RowSearcher;
use super::shape::{LIST_KEYS, SearchKernel};
use super::{GpuError, compile};

type Launch = unsafe extern "C" fn(*const c_char, u32, *const PhaseArgument) -> c_int;
type CutLists =
    unsafe extern "C" fn(u32, *mut u64, *mut u32, *mut u32, *mut u64, *const u32, *mut u64, u32);

/// The shared memory of a block on a large device.
pub(super) const SHARED_BYTES: usize = 227 << 10;

/// The number of blocks of a launch: more than one, so that a block skips the tiles of others.
const BLOCKS: u32 = 3;

/// Serialises the launches, because the emulated device is global to its library.
static DEVICE: Mutex<()> = Mutex::new(());

fn compiled(format: DeviceFormat) -> Library {
    let folder = tempfile::tempdir().unwrap();
    let text = compile::SEARCH_SOURCE
        .replace("extern __shared__ __align__(128) unsigned char stages[];", "");
    let files = [
        ("search.cc", text.as_str()),
        ("emulated.h", include_str!("../kernels/emulated.h")),
        ("emulated.cc", include_str!("../kernels/emulated.cc")),
    ];
    let macros = [format!("FORMAT={}", format.name())];
    let library = shared::machine::cuda::emulated::build(folder.path(), &files, &macros).unwrap();
    // SAFETY: the library was just compiled from this text; loading it only initialises its globals.
    unsafe { Library::new(library) }.unwrap()
}

static HALVES: LazyLock<Library> = LazyLock::new(|| compiled(DeviceFormat::Halves));
static BYTES: LazyLock<Library> = LazyLock::new(|| compiled(DeviceFormat::Bytes));

/// An emulated device that holds rows.
pub(super) struct Emulated {
    layout: Layout,
    /// The packed rows as words, because the loads of the kernels need aligned memory.
    rows: Vec<u64>,
    scales: Vec<f32>,
    count: usize,
    shared_bytes: usize,
    queries: Vec<u64>,
    query_count: usize,
    keep: usize,
    lists: Vec<u64>,
    counts: Vec<u32>,
    kept: Vec<u32>,
    thresholds: Vec<u64>,
    overflow: u32,
    results: Vec<u64>,
    phases: usize,
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect()
}

impl Emulated {
    /// Makes a device that holds rows of `layout.dimension` numbers each, which it packs.
    pub(super) fn new(layout: Layout, numbers: &[f32]) -> Self {
        let mut rows = vec![0; numbers.len() / layout.dimension * layout.pitch()];
        let packed = rows.chunks_mut(layout.pitch());
        let scales = numbers
            .chunks_exact(layout.dimension)
            .zip(packed)
            .map(|(row, packed)| layout.pack(row, packed))
            .collect();
        Self::from_packed(layout, &rows, scales)
    }

    /// Makes a device that holds rows that are already packed.
    pub(super) fn from_packed(layout: Layout, rows: &[u8], scales: Vec<f32>) -> Self {
        Self {
            layout,
            rows: words(rows),
            scales,
            count: rows.len() / layout.pitch(),
            shared_bytes: SHARED_BYTES,
            queries: Vec::new(),
            query_count: 0,
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

    /// Limits the shared memory of a block.
    pub(super) fn with_shared_bytes(self, shared_bytes: usize) -> Self {
        Self { shared_bytes, ..self }
    }

    /// Returns the number of phases so far, repeated ones included.
    pub(super) fn phases(&self) -> usize {
        self.phases
    }

    fn library(&self) -> &'static Library {
        match self.layout.format {
            DeviceFormat::Halves => &HALVES,
            DeviceFormat::Bytes => &BYTES,
        }
    }

    fn describe(
        &mut self,
        rows: &Range<usize>,
        queries: &Range<usize>,
        number: u32,
    ) -> PhaseArgument {
        let first = queries.start;
        let address = |pointer: *const u64| pointer.addr() as u64;
        PhaseArgument {
            rows: address(self.rows.as_ptr()),
            scales: address(self.scales.as_ptr().cast()),
            queries: address(self.queries[first * self.layout.pitch() / 8..].as_ptr()),
            lists: address(self.lists[first * LIST_KEYS..].as_mut_ptr()),
            counts: address(self.counts[first..].as_mut_ptr().cast()),
            thresholds: address(self.thresholds[first..].as_ptr()),
            overflow: address((&raw mut self.overflow).cast()),
            pitch: self.layout.pitch() as u32,
            first: rows.start as u32,
            end: rows.end as u32,
            query_count: queries.len() as u32,
            number,
        }
    }

    /// Runs `cut_lists` of the kernels on the lists of all queries.
    pub(super) fn cut_lists(&mut self) {
        let _alone = DEVICE.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: this function of `emulated.cc` has this type.
        let cut: Symbol<'_, CutLists> =
            unsafe { self.library().get(b"emulate_cut_lists").unwrap() };
        // SAFETY: the buffers are as large as those of a device.
        unsafe {
            cut(
                self.query_count as u32,
                self.lists.as_mut_ptr(),
                self.counts.as_mut_ptr(),
                self.kept.as_mut_ptr(),
                self.thresholds.as_mut_ptr(),
                &raw const self.overflow,
                self.results.as_mut_ptr(),
                self.keep as u32,
            );
        }
    }
}

impl RowSearcher for Emulated {
    fn rows(&self) -> usize {
        self.count
    }

    fn begin(&mut self, queries: &PackedQueries, keep: usize) -> Result<(), GpuError> {
        let count = queries.count();
        self.query_count = count;
        self.keep = keep;
        self.queries = words(&queries.bytes);
        // A kernel reads as many queries as it can take.
        self.queries.resize((count + 256) * self.layout.pitch() / 8, 0);
        self.lists = vec![u64::MAX; count * LIST_KEYS];
        self.counts = vec![0; count];
        self.kept = vec![0; count];
        self.thresholds = vec![0; count];
        self.results = vec![u64::MAX; count * keep];
        self.overflow = 0;
        Ok(())
    }

    fn phase(&mut self, rows: Range<usize>, number: u32) -> Result<(), GpuError> {
        self.phases += 1;
        let kernel = SearchKernel::choose(self.query_count, self.shared_bytes);
        let name = CString::new(kernel.name()).unwrap();
        // SAFETY: this function of `emulated.cc` has this type.
        let launch: Symbol<'_, Launch> = unsafe { self.library().get(b"emulate").unwrap() };
        for first in (0..self.query_count).step_by(kernel.queries()) {
            let queries = first..(first + kernel.queries()).min(self.query_count);
            let phase = self.describe(&rows, &queries, number);
            let _alone = DEVICE.lock().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: the buffers are as large as those of a device.
            let unknown = unsafe { launch(name.as_ptr(), BLOCKS, &raw const phase) };
            assert_eq!(unknown, 0, "{name:?}");
        }
        self.cut_lists();
        Ok(())
    }

    fn overflow(&mut self) -> Result<u32, GpuError> {
        Ok(std::mem::take(&mut self.overflow))
    }

    fn results(&mut self) -> Result<Vec<u64>, GpuError> {
        Ok(self.results.clone())
    }
}

mod tests;
