//! The rows of an index on one or several devices.

use std::sync::Arc;

use tracing::info;

use super::cuda::CudaDevice;
use super::owner::Owner;
use super::pack::{DeviceFormat, Layout, PackedQueries};
use super::plan::{Shard, spread};
use super::probe::{devices, summary};
use super::shape::{BATCH_QUERIES_MAX, KEEP_MAX};
use super::{GpuError, RowSearcher};
use crate::device::Device;
use crate::processor::fork_join::fork_join;
use crate::query::Hit;
use crate::vector::{self, RowFormat, Rows};

/// The number of searches that may wait for a device, for each thread that searches.
const QUEUE_JOBS_A_THREAD: usize = 4;

/// Options for loading the rows.
#[derive(Clone, Copy, Debug)]
pub struct GpuOptions {
    /// The devices to use.
    pub device: Device,
    /// The storage format of the rows; single precision becomes half.
    pub format: RowFormat,
    /// The number of threads that pack rows, and that may search concurrently.
    pub threads: usize,
}

/// Rows distributed over one or several devices.
#[derive(Debug)]
pub struct GpuIndex {
    owners: Vec<Owner>,
    layout: Layout,
}

/// Returns the numbers of the devices that a setting selects; `None` for the processor.
pub fn choose(device: Device) -> Result<Option<Vec<usize>>, GpuError> {
    match device {
        Device::Cpu => Ok(None),
        Device::Auto | Device::EveryCuda => Ok(Some((0..devices()?).collect())),
        Device::Cuda(number) => {
            let (asked, count) = (usize::from(number), devices()?);
            if asked < count {
                Ok(Some(vec![asked]))
            } else {
                Err(GpuError::NoSuchDevice { asked, count })
            }
        }
    }
}

impl GpuIndex {
    /// Loads `rows` onto the selected devices. Returns `None` if the processor is selected, or if
    /// [`Device::Auto`] is and CUDA cannot be used; the log then gives the reason.
    pub fn open(rows: &Rows<'_>, options: &GpuOptions) -> Result<Option<Self>, GpuError> {
        let opened = choose(options.device).and_then(|devices| {
            devices.map(|devices| Self::load(rows, &devices, options)).transpose()
        });
        match opened {
            Err(reason) if options.device == Device::Auto => {
                info!(%reason, "the processor searches the vectors");
                Ok(None)
            }
            opened => opened,
        }
    }

    fn load(rows: &Rows<'_>, devices: &[usize], options: &GpuOptions) -> Result<Self, GpuError> {
        let format = DeviceFormat::for_rows(options.format);
        let layout = Layout { format, dimension: rows.dimension() };
        let mut free = Vec::new();
        for &device in devices {
            let summary = summary(device)?;
            info!(device, name = summary.name, "CUDA device");
            free.push((device, summary.free_bytes));
        }
        let shards = spread(layout, rows.count(), &free)?;
        for shard in &shards {
            let Shard { device, rows, row_bytes, buffer_bytes, free_bytes } = shard;
            info!(device, rows = rows.len(), ?format, row_bytes, buffer_bytes, free_bytes, "plan");
        }
        let threads = options.threads.div_ceil(shards.len().max(1));
        let parts = fork_join(&shards, |shard| -> Result<_, GpuError> {
            let mut searcher = CudaDevice::open(shard.device, layout, shard.rows.len())?;
            searcher.load(rows, shard.rows.start, threads)?;
            Ok(LoadedShard { device: shard.device, searcher, first_row: shard.rows.start as u32 })
        });
        let parts = parts.into_iter().collect::<Result<_, GpuError>>()?;
        let index = Self::over(layout, parts, options.threads)?;
        info!(devices = shards.len(), "the vectors are on the devices");
        Ok(index)
    }

    /// Returns the index over searchers that already hold their rows.
    fn over<M: RowSearcher + Send + 'static>(
        layout: Layout,
        parts: Vec<LoadedShard<M>>,
        threads: usize,
    ) -> Result<Self, GpuError> {
        let owners = parts.into_iter().map(|LoadedShard { device, searcher, first_row }| {
            Owner::start(device, searcher, first_row, threads * QUEUE_JOBS_A_THREAD)
        });
        Ok(Self { owners: owners.collect::<Result<_, _>>()?, layout })
    }

    /// Computes [`vector::top_k`] with the devices' help. They return more hits than requested, which
    /// are scored again from `rows`, the rows that were loaded. If `top_k` exceeds the number of hits
    /// that the devices keep, the processor searches.
    pub fn search(
        &self,
        rows: &Rows<'_>,
        queries: &[f32],
        top_k: usize,
        threads: usize,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<Vec<Vec<Hit>>>, GpuError> {
        // Some of the kept hits are spare, to make up for the coarser scores.
        if top_k > KEEP_MAX - KEEP_MAX / 8 {
            return Ok(vector::top_k(rows, queries, top_k, threads, stop));
        }
        let keep = self.layout.format.keep(top_k).min(KEEP_MAX);
        let mut all_lists = Vec::with_capacity(queries.len() / self.layout.dimension);
        for batch in queries.chunks(BATCH_QUERIES_MAX * self.layout.dimension) {
            if stop() {
                return Ok(None);
            }
            let packed = Arc::new(PackedQueries::pack(self.layout, batch));
            let pending: Vec<_> =
                self.owners.iter().map(|owner| owner.submit(&packed, keep)).collect();
            let mut lists = vec![Vec::new(); packed.count()];
            for pending in pending {
                let Some(part) = pending?.wait(stop)? else {
                    return Ok(None);
                };
                for (list, part) in lists.iter_mut().zip(part) {
                    list.extend(part);
                }
            }
            all_lists.extend(lists);
        }
        vector::rescore(rows, queries, &mut all_lists, top_k, threads);
        Ok(Some(all_lists))
    }
}

/// A searcher that holds its share of the rows.
struct LoadedShard<M> {
    /// The device's number.
    device: usize,
    searcher: M,
    /// The number of the searcher's first row among all rows.
    first_row: u32,
}

#[cfg(test)]
mod tests;
