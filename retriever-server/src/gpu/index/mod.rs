//! The rows of an index on one or several devices.

use std::sync::Arc;
use std::thread;

use tracing::info;

use super::cuda::Board;
use super::owner::Owner;
use super::pack::{DeviceFormat, Layout, PackedQueries};
use super::plan::{Shard, spread};
use super::probe::{devices, summary};
use super::shape::{BATCH_QUERIES_MAX, KEEP_MAX};
use super::{GpuError, Machine};
use crate::device::Device;
use crate::query::Hit;
use crate::vector::{self, RowFormat, Rows};

/// Searches that may wait for a device, for each thread that can ask.
const QUEUE_JOBS_A_THREAD: usize = 4;

/// What the rows are loaded with.
#[derive(Clone, Copy, Debug)]
pub struct GpuOptions {
    /// Which devices.
    pub device: Device,
    /// How the rows are stored; single precision becomes half.
    pub format: RowFormat,
    /// Threads that pack rows, and that may ask at once.
    pub threads: usize,
}

/// Rows on devices, each of which has a part of them.
#[derive(Debug)]
pub struct GpuIndex {
    owners: Vec<Owner>,
    layout: Layout,
}

/// The numbers of the devices that a setting means; `None` for the processor.
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
    /// Loads `rows` to the devices of the setting. `None` for the processor, which
    /// [`Device::Auto`] falls back to where CUDA cannot be used, and says why in the log.
    pub fn open(rows: &Rows<'_>, options: &GpuOptions) -> Result<Option<Self>, GpuError> {
        let opened = choose(options.device).and_then(|devices| {
            devices.map(|devices| Self::load(rows, &devices, options)).transpose()
        });
        match opened {
            Err(reason) if options.device == Device::Auto => {
                info!(%reason, "the vectors are searched by the processor");
                Ok(None)
            }
            opened => opened,
        }
    }

    fn load(rows: &Rows<'_>, devices: &[usize], options: &GpuOptions) -> Result<Self, GpuError> {
        let format = DeviceFormat::of(options.format);
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
        let boards: Vec<Result<Board, GpuError>> = thread::scope(|scope| {
            let load = |shard: Shard| {
                let mut board = Board::open(shard.device, layout, shard.rows.len())?;
                board.load(rows, shard.rows.start, threads).map(|()| board)
            };
            let loading: Vec<_> =
                shards.iter().cloned().map(|shard| scope.spawn(move || load(shard))).collect();
            let ended = || Err(GpuError::Panicked("a thread that loaded rows ended".to_owned()));
            loading.into_iter().map(|one| one.join().unwrap_or_else(|_| ended())).collect()
        });
        let parts = shards.iter().zip(boards).map(|(shard, board)| {
            board.map(|board| (shard.device, board, shard.rows.start as u32))
        });
        let index = Self::over(layout, parts.collect::<Result<_, _>>()?, options.threads)?;
        info!(devices = shards.len(), "the vectors are on the devices");
        Ok(index)
    }

    /// Over machines that hold their rows, each with its number and its first row among all.
    fn over<M>(
        layout: Layout,
        machines: Vec<(usize, M, u32)>,
        threads: usize,
    ) -> Result<Self, GpuError>
    where
        M: Machine + Send + 'static,
        M::Fault: Into<GpuError>,
    {
        let owners = machines.into_iter().map(|(device, machine, first_row)| {
            Owner::start(device, machine, first_row, threads * QUEUE_JOBS_A_THREAD)
        });
        Ok(Self { owners: owners.collect::<Result<_, _>>()?, layout })
    }

    /// [`vector::top_k`] with the devices' help: they find more than are asked for, which are
    /// scored again by `rows`, the ones that were loaded. More than the devices keep are searched
    /// for by the processor.
    pub fn search(
        &self,
        rows: &Rows<'_>,
        queries: &[f32],
        top_k: usize,
        threads: usize,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<Vec<Vec<Hit>>>, GpuError> {
        // A part of what is kept makes up for the coarser scores.
        if top_k > KEEP_MAX - KEEP_MAX / 8 {
            return Ok(vector::top_k(rows, queries, top_k, threads, stop));
        }
        let keep = self.layout.format.keep(top_k).min(KEEP_MAX);
        let mut found = Vec::with_capacity(queries.len() / self.layout.dimension);
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
            found.extend(lists);
        }
        vector::rescore(rows, queries, &mut found, top_k, threads);
        Ok(Some(found))
    }
}

#[cfg(test)]
mod tests;
