//! One CUDA device: its rows, its buffers, and the launches of a search.

#![expect(unsafe_code, reason = "Rust cannot check the memory and the kernels of a device")]

use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::sys::CUfunction_attribute as FunctionAttribute;
use cudarc::driver::{
    CudaContext, CudaEvent, CudaFunction, CudaSlice, CudaStream, DevicePtr, DeviceRepr,
    LaunchConfig, PushKernelArg,
};
use cudarc::nvrtc::Ptx;

use super::compile::{compile, compile_gauge};
use super::pack::{DeviceFormat, Layout, PackedQueries};
use super::probe::{DeviceSummary, driver_error, guarded, summary};
use super::search::RowSearcher;
use super::shape::{
    BATCH_QUERIES_MAX, BLOCK_THREADS, CUT_THREADS, KEEP_MAX, LIST_KEYS, SearchKernel,
};
use super::{GpuError, synthetic};
use crate::processor::fork_join::fork_join;
use crate::vector::Rows;

/// The bytes of packed rows in one copy to a device.
const STAGING_BYTES: usize = 64 << 20;

/// The argument of the kernels: `Phase` in `search.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct PhaseArgument {
    pub(super) rows: u64,
    pub(super) scales: u64,
    pub(super) queries: u64,
    pub(super) lists: u64,
    pub(super) counts: u64,
    pub(super) thresholds: u64,
    pub(super) overflow: u64,
    pub(super) pitch: u32,
    pub(super) first: u32,
    pub(super) end: u32,
    pub(super) query_count: u32,
    pub(super) number: u32,
}

// SAFETY: it consists of plain numbers in C's layout; addresses have 64 bits on both sides.
unsafe impl DeviceRepr for PhaseArgument {}

/// A kernel in the device's memory.
struct LoadedKernel {
    kernel: SearchKernel,
    function: CudaFunction,
    /// The number of blocks that the device runs concurrently.
    blocks: u32,
}

/// A device that holds rows and searches them.
pub struct CudaDevice {
    device: usize,
    layout: Layout,
    count: usize,
    summary: DeviceSummary,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    kernels: Vec<LoadedKernel>,
    cut_lists: CudaFunction,
    rows: CudaSlice<u8>,
    scales: CudaSlice<f32>,
    queries: CudaSlice<u8>,
    lists: CudaSlice<u64>,
    counts: CudaSlice<u32>,
    kept: CudaSlice<u32>,
    thresholds: CudaSlice<u64>,
    overflow: CudaSlice<u32>,
    results: CudaSlice<u64>,
    query_count: usize,
    keep: usize,
}

impl std::fmt::Debug for CudaDevice {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { device, layout, count, summary, .. } = self;
        formatter
            .debug_struct("CudaDevice")
            .field("device", device)
            .field("layout", layout)
            .field("count", count)
            .field("summary", summary)
            .finish_non_exhaustive()
    }
}

impl CudaDevice {
    /// Allocates memory for `count` rows, filled with zeros, and compiles the kernels.
    pub fn open(device: usize, layout: Layout, count: usize) -> Result<Self, GpuError> {
        let summary = summary(device)?;
        let code = compile(summary.capability, layout.format)?;
        guarded(|| {
            let fail = driver_error(device);
            let context = CudaContext::new(device).map_err(&fail)?;
            let stream = context.default_stream();
            let module = context.load_module(Ptx::from_binary(code)).map_err(&fail)?;
            let mut kernels = Vec::new();
            for kernel in SearchKernel::ALL {
                if kernel.shared_bytes() > summary.shared_bytes {
                    continue;
                }
                let function = module.load_function(&kernel.name()).map_err(&fail)?;
                let blocks = prepare(&function, kernel, &summary).map_err(&fail)?;
                kernels.push(LoadedKernel { kernel, function, blocks });
            }
            let batch = BATCH_QUERIES_MAX;
            let scale_count = if layout.format == DeviceFormat::Bytes { count } else { 1 };
            Ok(Self {
                cut_lists: module.load_function("cut_lists").map_err(&fail)?,
                rows: stream.alloc_zeros(count * layout.pitch()).map_err(&fail)?,
                scales: stream.alloc_zeros(scale_count).map_err(&fail)?,
                queries: stream.alloc_zeros(batch * layout.pitch()).map_err(&fail)?,
                lists: stream.alloc_zeros(batch * LIST_KEYS).map_err(&fail)?,
                counts: stream.alloc_zeros(batch).map_err(&fail)?,
                kept: stream.alloc_zeros(batch).map_err(&fail)?,
                thresholds: stream.alloc_zeros(batch).map_err(&fail)?,
                overflow: stream.alloc_zeros(1).map_err(&fail)?,
                results: stream.alloc_zeros(batch * KEEP_MAX).map_err(&fail)?,
                query_count: 0,
                keep: 0,
                device,
                layout,
                count,
                summary,
                context,
                stream,
                kernels,
            })
        })
    }

    /// Returns the properties of the device.
    pub fn summary(&self) -> &DeviceSummary {
        &self.summary
    }

    /// Fills the device with `rows` from row `first` on, packed by `threads` threads.
    pub fn load(&mut self, rows: &Rows<'_>, first: usize, threads: usize) -> Result<(), GpuError> {
        guarded(|| {
            let fail = driver_error(self.device);
            let pitch = self.layout.pitch();
            let part_rows = (STAGING_BYTES / pitch).clamp(1, self.count.max(1));
            let mut staging = Vec::new();
            for _ in 0..2 {
                // SAFETY: the next statement writes all of it before anything reads it.
                let mut pinned =
                    unsafe { self.context.alloc_pinned_with_flags::<u8>(part_rows * pitch, 0) }
                        .map_err(&fail)?;
                pinned.as_mut_slice().map_err(&fail)?.fill(0);
                staging.push(pinned);
            }
            let mut copied = [None, None];
            let mut scales = Vec::new();
            for (turn, start) in (0..self.count).step_by(part_rows).enumerate() {
                let part = start..(start + part_rows).min(self.count);
                let pinned = &mut staging[turn % 2];
                // Waits for the copy from the same buffer two turns ago. The bindings wait only where
                // there are several streams.
                if let Some(copied) = copied[turn % 2].take() {
                    CudaEvent::synchronize(&copied).map_err(&fail)?;
                }
                let packed = &mut pinned.as_mut_slice().map_err(&fail)?[..part.len() * pitch];
                let source = first + part.start..first + part.end;
                scales.extend(pack_part(self.layout, rows, source, packed, threads));
                let mut target = self.rows.slice_mut(part.start * pitch..part.end * pitch);
                if part.len() == part_rows {
                    self.stream.memcpy_htod(pinned, &mut target).map_err(&fail)?;
                } else {
                    let packed = &pinned.as_slice().map_err(&fail)?[..part.len() * pitch];
                    self.stream.memcpy_htod(packed, &mut target).map_err(&fail)?;
                }
                copied[turn % 2] = Some(self.stream.record_event(None).map_err(&fail)?);
            }
            if self.layout.format == DeviceFormat::Bytes {
                self.stream.memcpy_htod(&scales, &mut self.scales).map_err(&fail)?;
            }
            self.stream.synchronize().map_err(&fail)
        })
    }

    /// Fills the device with the rows of [`synthetic`], generated on the device.
    pub fn generate(&mut self, seed: u64) -> Result<(), GpuError> {
        let code = compile_gauge(self.summary.capability, self.layout.format)?;
        guarded(|| {
            let fail = driver_error(self.device);
            let module = self.context.load_module(Ptx::from_binary(code)).map_err(&fail)?;
            let fill = module.load_function("fill").map_err(&fail)?;
            let (pitch, dimension) = (self.layout.pitch() as u32, self.layout.dimension as u32);
            let count = self.count as u64;
            let blocks = self.summary.multiprocessors * 8;
            let mut launch = self.stream.launch_builder(&fill);
            launch.arg(&mut self.rows).arg(&mut self.scales);
            launch.arg(&seed).arg(&count).arg(&dimension).arg(&pitch);
            // SAFETY: these are the arguments of `fill`. It writes `count` rows of `pitch` bytes and,
            // for bytes, as many scales, and the buffers have these sizes.
            unsafe { launch.launch(grid(blocks, BLOCK_THREADS, 0)) }.map_err(&fail)?;
            self.stream.synchronize().map_err(&fail)
        })
    }

    /// Measures one launch of a kernel of `gauge.cu` over the rows' memory: `read` reads all of it,
    /// `multiply` runs `rounds` rounds of matrix products in the registers of each warp. Returns the
    /// milliseconds of the fastest of `repeats` launches, and the number of warps.
    pub fn gauge(
        &mut self,
        kernel: &str,
        rounds: u32,
        repeats: usize,
    ) -> Result<(f64, u64), GpuError> {
        let code = compile_gauge(self.summary.capability, self.layout.format)?;
        guarded(|| {
            let fail = driver_error(self.device);
            let module = self.context.load_module(Ptx::from_binary(code)).map_err(&fail)?;
            let function = module.load_function(kernel).map_err(&fail)?;
            let chunks = (self.count * self.layout.pitch() / synthetic::CHUNK_BYTES) as u64;
            let blocks = self.summary.multiprocessors * 8;
            let mut best = f64::INFINITY;
            for _ in 0..=repeats {
                let mut launch = self.stream.launch_builder(&function);
                launch.arg(&self.rows).arg(&chunks).arg(&rounds).arg(&mut self.overflow);
                let flags = cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT;
                launch.record_kernel_launch(flags);
                // SAFETY: these are the arguments of `read` and of `multiply`. They read at most `chunks`
                // times 16 bytes, and write one number to `overflow`.
                let events = unsafe { launch.launch(grid(blocks, BLOCK_THREADS, 0)) };
                let events = events.map_err(&fail)?;
                let (begun, ended) = events.expect("the launch was asked to record its events");
                best = best.min(f64::from(begun.elapsed_ms(&ended).map_err(&fail)?));
            }
            Ok((best, u64::from(blocks) * (BLOCK_THREADS / 32) as u64))
        })
    }

    /// Returns the kernels' argument for some queries of the batch.
    fn describe(&self, rows: &Range<usize>, queries: &Range<usize>, number: u32) -> PhaseArgument {
        let stream = &self.stream;
        let first = queries.start as u64;
        PhaseArgument {
            rows: self.rows.device_ptr(stream).0,
            scales: self.scales.device_ptr(stream).0,
            queries: self.queries.device_ptr(stream).0 + first * self.layout.pitch() as u64,
            lists: self.lists.device_ptr(stream).0 + first * (LIST_KEYS * size_of::<u64>()) as u64,
            counts: self.counts.device_ptr(stream).0 + first * size_of::<u32>() as u64,
            thresholds: self.thresholds.device_ptr(stream).0 + first * size_of::<u64>() as u64,
            overflow: self.overflow.device_ptr(stream).0,
            pitch: self.layout.pitch() as u32,
            first: rows.start as u32,
            end: rows.end as u32,
            query_count: queries.len() as u32,
            number,
        }
    }
}

impl RowSearcher for CudaDevice {
    fn rows(&self) -> usize {
        self.count
    }

    fn begin(&mut self, queries: &PackedQueries, keep: usize) -> Result<(), GpuError> {
        assert!(queries.count() <= BATCH_QUERIES_MAX && keep <= KEEP_MAX, "a batch of the device");
        let fail = driver_error(self.device);
        self.query_count = queries.count();
        self.keep = keep;
        self.stream.memset_zeros(&mut self.counts).map_err(&fail)?;
        self.stream.memset_zeros(&mut self.kept).map_err(&fail)?;
        self.stream.memset_zeros(&mut self.thresholds).map_err(&fail)?;
        self.stream.memset_zeros(&mut self.overflow).map_err(&fail)?;
        let mut target = self.queries.slice_mut(0..queries.bytes.len());
        self.stream.memcpy_htod(&queries.bytes, &mut target).map_err(&fail)
    }

    fn phase(&mut self, rows: Range<usize>, number: u32) -> Result<(), GpuError> {
        let fail = driver_error(self.device);
        let chosen = SearchKernel::choose(self.query_count, self.summary.shared_bytes);
        let LoadedKernel { kernel, function, blocks } = self
            .kernels
            .iter()
            .find(|loaded| loaded.kernel == chosen)
            .expect("every kernel that fits the device was loaded");
        for first in (0..self.query_count).step_by(kernel.queries()) {
            let queries = first..(first + kernel.queries()).min(self.query_count);
            let phase = self.describe(&rows, &queries, number);
            let mut launch = self.stream.launch_builder(function);
            launch.arg(&phase);
            // SAFETY: `PhaseArgument` is the kernel's only argument. Its buffers live until the stream has
            // been waited for. They hold BATCH_QUERIES_MAX queries and `count` rows, and `rows` is a
            // part of these.
            unsafe { launch.launch(grid(*blocks, BLOCK_THREADS, kernel.shared_bytes())) }
                .map_err(&fail)?;
        }
        let keep = self.keep as u32;
        let mut launch = self.stream.launch_builder(&self.cut_lists);
        launch.arg(&mut self.lists).arg(&mut self.counts).arg(&mut self.kept);
        launch.arg(&mut self.thresholds).arg(&self.overflow).arg(&mut self.results).arg(&keep);
        // SAFETY: these are the arguments of `cut_lists`. It has one block for each query and writes
        // `keep` results for it, at most KEEP_MAX.
        unsafe { launch.launch(grid(self.query_count as u32, CUT_THREADS, 0)) }.map_err(&fail)?;
        Ok(())
    }

    fn overflow(&mut self) -> Result<u32, GpuError> {
        let fail = driver_error(self.device);
        let mut number = [0];
        self.stream.memcpy_dtoh(&self.overflow, &mut number).map_err(&fail)?;
        self.stream.synchronize().map_err(&fail)?;
        if number[0] != 0 {
            self.stream.memset_zeros(&mut self.overflow).map_err(&fail)?;
        }
        Ok(number[0])
    }

    fn results(&mut self) -> Result<Vec<u64>, GpuError> {
        let fail = driver_error(self.device);
        let mut keys = vec![0; self.query_count * self.keep];
        let results = self.results.slice(0..keys.len());
        self.stream.memcpy_dtoh(&results, &mut keys).map_err(&fail)?;
        self.stream.synchronize().map_err(&fail)?;
        Ok(keys)
    }
}

fn grid(blocks: u32, threads: usize, shared_bytes: usize) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (blocks, 1, 1),
        block_dim: (threads as u32, 1, 1),
        shared_mem_bytes: shared_bytes as u32,
    }
}

/// Gives a kernel its shared memory, and returns how many of its blocks the device runs
/// concurrently.
fn prepare(
    function: &CudaFunction,
    kernel: SearchKernel,
    summary: &DeviceSummary,
) -> Result<u32, cudarc::driver::DriverError> {
    let shared_bytes = kernel.shared_bytes();
    if shared_bytes > 0 {
        let attribute = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        function.set_attribute(attribute, shared_bytes as i32)?;
    }
    let resident = function.occupancy_max_active_blocks_per_multiprocessor(
        BLOCK_THREADS as u32,
        shared_bytes,
        None,
    )?;
    Ok(resident.max(1) * summary.multiprocessors)
}

/// Packs the rows `source` on `threads` threads, and returns their scales.
fn pack_part(
    layout: Layout,
    rows: &Rows<'_>,
    source: Range<usize>,
    packed: &mut [u8],
    threads: usize,
) -> Vec<f32> {
    let pitch = layout.pitch();
    let mut scales = vec![0.0; source.len()];
    let share = source.len().div_ceil(threads.max(1)).max(1);
    let parts = packed.chunks_mut(share * pitch).zip(scales.chunks_mut(share)).enumerate();
    fork_join(parts, |(part, (packed, scales))| {
        let first = source.start + part * share;
        let mut numbers = vec![0.0; layout.dimension];
        for (row, (packed, scale)) in packed.chunks_mut(pitch).zip(scales).enumerate() {
            rows.read_row(first + row, &mut numbers);
            *scale = layout.pack(&numbers, packed);
        }
    });
    scales
}
