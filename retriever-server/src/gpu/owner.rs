//! The thread that owns a device: searches come through a bounded queue, one after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use super::GpuError;
use super::pack::PackedQueries;
use super::probe::guarded;
use super::search::{Machine, search};
use crate::query::Hit;

/// Time between two looks at whether a search that is waited for should stop.
const STOP_INTERVAL: Duration = Duration::from_millis(2);

/// Hits a query, or `None` if it was stopped.
type Found = Result<Option<Vec<Vec<Hit>>>, GpuError>;

struct Job {
    queries: Arc<PackedQueries>,
    keep: usize,
    cancelled: Arc<AtomicBool>,
    reply: SyncSender<Found>,
}

/// The way to a device. Its thread ends when this is dropped.
#[derive(Debug)]
pub(super) struct Owner {
    device: usize,
    jobs: SyncSender<Job>,
}

/// A search that is under way.
#[derive(Debug)]
pub(super) struct Pending {
    device: usize,
    answer: Receiver<Found>,
    cancelled: Arc<AtomicBool>,
}

impl Owner {
    /// Starts the thread. The machine's row 0 is row `first_row` of all.
    pub(super) fn start<M>(
        device: usize,
        mut machine: M,
        first_row: u32,
        queue_jobs: usize,
    ) -> Result<Self, GpuError>
    where
        M: Machine + Send + 'static,
        M::Fault: Into<GpuError>,
    {
        let (jobs, queue) = sync_channel::<Job>(queue_jobs.max(1));
        let work = move || {
            for job in queue {
                let found = guarded(|| answer(&mut machine, &job, first_row));
                // The receiver is gone when the client is.
                let _ = job.reply.send(found);
            }
        };
        thread::Builder::new()
            .name(format!("cuda-{device}"))
            .spawn(work)
            .map_err(|error| GpuError::Driver { device, reason: error.to_string() })?;
        Ok(Self { device, jobs })
    }

    /// Queues a search; refused when the queue is full.
    pub(super) fn submit(
        &self,
        queries: &Arc<PackedQueries>,
        keep: usize,
    ) -> Result<Pending, GpuError> {
        let (reply, answer) = sync_channel(1);
        let cancelled = Arc::new(AtomicBool::new(false));
        let job =
            Job { queries: Arc::clone(queries), keep, cancelled: Arc::clone(&cancelled), reply };
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => GpuError::Busy(self.device),
            TrySendError::Disconnected(_) => ended(self.device),
        })?;
        Ok(Pending { device: self.device, answer, cancelled })
    }
}

impl Pending {
    /// Waits for the hits; gives up, and lets the device give up, once `stop` says so.
    pub(super) fn wait(self, stop: &(dyn Fn() -> bool + Sync)) -> Found {
        loop {
            match self.answer.recv_timeout(STOP_INTERVAL) {
                Ok(found) => return found,
                Err(RecvTimeoutError::Disconnected) => return Err(ended(self.device)),
                // Dropping this cancels the search.
                Err(RecvTimeoutError::Timeout) if stop() => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

fn ended(device: usize) -> GpuError {
    GpuError::Driver { device, reason: "its thread has ended".to_owned() }
}

fn answer<M>(machine: &mut M, job: &Job, first_row: u32) -> Found
where
    M: Machine,
    M::Fault: Into<GpuError>,
{
    let stop = || job.cancelled.load(Ordering::Relaxed);
    let found = search(machine, &job.queries, job.keep, &stop).map_err(Into::into)?;
    Ok(found.map(|mut lists| {
        for hit in lists.iter_mut().flatten() {
            hit.row += first_row;
        }
        lists
    }))
}
