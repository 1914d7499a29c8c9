//! The kernels' own text, compiled as C++ for the processor (`kernels/emulated.h`), under the loop
//! of phases: against the twin, which was written apart from it.

#![expect(unsafe_code, reason = "the kernels are C++")]

use std::ffi::{CString, c_char, c_int};
use std::ops::Range;
use std::sync::{LazyLock, Mutex, PoisonError};

use libloading::{Library, Symbol};

use super::cuda::Phase;
use super::pack::{DeviceFormat, Layout, PackedQueries};
use super::search::{Machine, search};
use super::shape::{Kernel, LIST_KEYS};
use super::twin::Twin;
use super::{compile, synthetic};

type Launch = unsafe extern "C" fn(*const c_char, u32, *const Phase) -> c_int;
type CutLists =
    unsafe extern "C" fn(u32, *mut u64, *mut u32, *mut u32, *mut u64, *const u32, *mut u64, u32);

/// A launch after the other: the emulated device is global to its library.
static DEVICE: Mutex<()> = Mutex::new(());

fn compiled(format: DeviceFormat) -> Library {
    let folder = tempfile::tempdir().unwrap();
    let text = compile::SEARCH_SOURCE
        .replace("extern __shared__ __align__(128) unsigned char stages[];", "");
    let files = [
        ("search.cc", text.as_str()),
        ("emulated.h", include_str!("kernels/emulated.h")),
        ("emulated.cc", include_str!("kernels/emulated.cc")),
    ];
    let macros = [format!("FORMAT={}", format.name())];
    let library = shared::cuda::emulated::build(folder.path(), &files, &macros).unwrap();
    // SAFETY: it was made just now, and runs nothing when it is loaded.
    unsafe { Library::new(library) }.unwrap()
}

static HALVES: LazyLock<Library> = LazyLock::new(|| compiled(DeviceFormat::Halves));
static BYTES: LazyLock<Library> = LazyLock::new(|| compiled(DeviceFormat::Bytes));

/// A device in the memory of the process.
struct Emulated {
    layout: Layout,
    /// In eights, as loads take 16 bytes.
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
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect()
}

impl Emulated {
    fn new(layout: Layout, (rows, scales): (&[u8], &[f32]), shared_bytes: usize) -> Self {
        Self {
            layout,
            rows: words(rows),
            scales: scales.to_vec(),
            count: rows.len() / layout.pitch(),
            shared_bytes,
            queries: Vec::new(),
            query_count: 0,
            keep: 0,
            lists: Vec::new(),
            counts: Vec::new(),
            kept: Vec::new(),
            thresholds: Vec::new(),
            overflow: 0,
            results: Vec::new(),
        }
    }

    fn library(&self) -> &'static Library {
        match self.layout.format {
            DeviceFormat::Halves => &HALVES,
            DeviceFormat::Bytes => &BYTES,
        }
    }

    fn describe(&mut self, rows: &Range<usize>, queries: &Range<usize>, number: u32) -> Phase {
        let first = queries.start;
        let address = |pointer: *const u64| pointer.addr() as u64;
        Phase {
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
}

impl Machine for Emulated {
    type Fault = String;

    fn rows(&self) -> usize {
        self.count
    }

    fn begin(&mut self, queries: &PackedQueries, keep: usize) -> Result<(), String> {
        let count = queries.count();
        self.query_count = count;
        self.keep = keep;
        self.queries = words(&queries.bytes);
        // A kernel reads as many as it can take.
        self.queries.resize((count + 256) * self.layout.pitch() / 8, 0);
        self.lists = vec![u64::MAX; count * LIST_KEYS];
        self.counts = vec![0; count];
        self.kept = vec![0; count];
        self.thresholds = vec![0; count];
        self.results = vec![u64::MAX; count * keep];
        self.overflow = 0;
        Ok(())
    }

    fn phase(&mut self, rows: Range<usize>, number: u32) -> Result<(), String> {
        let _alone = DEVICE.lock().unwrap_or_else(PoisonError::into_inner);
        let kernel = Kernel::of(self.query_count, self.shared_bytes);
        let name = CString::new(kernel.name()).unwrap();
        // SAFETY: these functions of `emulated.cc` have these types.
        let (launch, cut): (Symbol<'_, Launch>, Symbol<'_, CutLists>) = unsafe {
            let library = self.library();
            (library.get(b"emulate").unwrap(), library.get(b"emulate_cut_lists").unwrap())
        };
        for first in (0..self.query_count).step_by(kernel.queries()) {
            let queries = first..(first + kernel.queries()).min(self.query_count);
            let phase = self.describe(&rows, &queries, number);
            // SAFETY: the buffers are as large as those of a device.
            let unknown = unsafe { launch(name.as_ptr(), 3, &raw const phase) };
            assert_eq!(unknown, 0, "{name:?}");
        }
        // SAFETY: as above.
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
        Ok(())
    }

    fn overflow(&mut self) -> Result<u32, String> {
        Ok(std::mem::take(&mut self.overflow))
    }

    fn results(&mut self) -> Result<Vec<u64>, String> {
        Ok(self.results.clone())
    }
}

const SHARED_BYTES: usize = 227 << 10;

fn agree(layout: Layout, (packed, scales): (Vec<u8>, Vec<f32>), queries: usize, keep: usize) {
    let drawn = synthetic::rows(Layout { format: DeviceFormat::Bytes, ..layout }, 9, queries).0;
    let pitch = Layout { format: DeviceFormat::Bytes, ..layout }.pitch();
    let numbers: Vec<f32> = drawn
        .chunks(pitch)
        .flat_map(|row| row[..layout.dimension].iter().map(|byte| f32::from(byte.cast_signed())))
        .collect();
    let queries = PackedQueries::pack(layout, &numbers);
    let mut emulated = Emulated::new(layout, (&packed, &scales), SHARED_BYTES);
    let found = search(&mut emulated, &queries, keep, &|| false).unwrap().unwrap();
    let mut twin = Twin::of_packed(layout, packed, scales, SHARED_BYTES);
    let Ok(expected) = search(&mut twin, &queries, keep, &|| false);
    assert_eq!(found, expected.unwrap(), "{layout:?}, {} queries", queries.count());
    assert!(found.iter().all(|hits| hits.len() == keep.min(emulated.count)));
}

/// Every kernel, with queries that do not fill it, rows that do not fill a tile, and more slabs
/// than stages.
#[test]
fn the_kernels_find_what_the_twin_finds() {
    for format in [DeviceFormat::Halves, DeviceFormat::Bytes] {
        for (queries, rows) in
            [(1, 5000), (2, 300), (3, 1), (7, 4500), (9, 4500), (33, 700), (100, 400), (200, 900)]
        {
            let dimension = if queries == 9 { 330 } else { 130 };
            let layout = Layout { format, dimension };
            agree(layout, synthetic::rows(layout, 5, rows), queries, 20);
        }
    }
}

/// Rows in the worst order: lists run over in the kernels, too.
#[test]
fn the_kernels_run_over_as_the_twin_does() {
    let layout = Layout { format: DeviceFormat::Halves, dimension: 1 };
    let mut packed = Vec::new();
    for row in 0..16_000u16 {
        packed.extend_from_slice(&row.to_le_bytes());
        packed.resize(packed.len() + layout.pitch() - 2, 0);
    }
    let scales = vec![1.0; 16_000];
    for queries in [1, 9] {
        agree(layout, (packed.clone(), scales.clone()), queries, 10);
    }
}
