//! The thread that owns a device. It takes searches from a bounded queue and runs them one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use super::GpuError;
use super::pack::PackedQueries;
use super::probe::guarded;
use super::search::{RowSearcher, search};
use crate::query::Hit;

/// The time between two checks whether to stop waiting for a search.
const STOP_INTERVAL: Duration = Duration::from_millis(2);

/// The hits of each query, or `None` if the search was stopped.
type SearchOutcome = Result<Option<Vec<Vec<Hit>>>, GpuError>;

struct DeviceSearch {
    queries: Arc<PackedQueries>,
    keep: usize,
    cancelled: Arc<AtomicBool>,
    reply: SyncSender<SearchOutcome>,
}

/// The sending side of a device's queue. The device's thread ends when this is dropped.
#[derive(Debug)]
pub(super) struct Owner {
    device: usize,
    jobs: SyncSender<DeviceSearch>,
}

/// A running search.
#[derive(Debug)]
pub(super) struct PendingSearch {
    device: usize,
    answer: Receiver<SearchOutcome>,
    cancelled: Arc<AtomicBool>,
}

impl Owner {
    /// Starts the thread. The searcher's row 0 is row `first_row` of the index.
    pub(super) fn start<M>(
        device: usize,
        mut searcher: M,
        first_row: u32,
        queue_jobs: usize,
    ) -> Result<Self, GpuError>
    where
        M: RowSearcher + Send + 'static,
    {
        let (jobs, queue) = sync_channel::<DeviceSearch>(queue_jobs.max(1));
        let work = move || {
            for job in queue {
                let outcome = guarded(|| answer(&mut searcher, &job, first_row));
                // Sending fails if the client has gone, and then nobody needs the answer.
                let _ = job.reply.send(outcome);
            }
        };
        thread::Builder::new()
            .name(format!("cuda-{device}"))
            .spawn(work)
            .map_err(|error| GpuError::Driver { device, reason: error.to_string() })?;
        Ok(Self { device, jobs })
    }

    /// Queues a search; fails with [`GpuError::Busy`] when the queue is full.
    pub(super) fn submit(
        &self,
        queries: &Arc<PackedQueries>,
        keep: usize,
    ) -> Result<PendingSearch, GpuError> {
        let (reply, answer) = sync_channel(1);
        let cancelled = Arc::new(AtomicBool::new(false));
        let job = DeviceSearch {
            queries: Arc::clone(queries),
            keep,
            cancelled: Arc::clone(&cancelled),
            reply,
        };
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => GpuError::Busy(self.device),
            TrySendError::Disconnected(_) => ended(self.device),
        })?;
        Ok(PendingSearch { device: self.device, answer, cancelled })
    }
}

impl PendingSearch {
    /// Waits for the hits. Once `stop` returns `true`, it cancels the search and returns `None`.
    pub(super) fn wait(self, stop: &(dyn Fn() -> bool + Sync)) -> SearchOutcome {
        loop {
            match self.answer.recv_timeout(STOP_INTERVAL) {
                Ok(outcome) => return outcome,
                Err(RecvTimeoutError::Disconnected) => return Err(ended(self.device)),
                // Dropping `self` cancels the search.
                Err(RecvTimeoutError::Timeout) if stop() => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

impl Drop for PendingSearch {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

fn ended(device: usize) -> GpuError {
    GpuError::Driver { device, reason: "its thread has ended".to_owned() }
}

fn answer(searcher: &mut impl RowSearcher, job: &DeviceSearch, first_row: u32) -> SearchOutcome {
    let stop = || job.cancelled.load(Ordering::Relaxed);
    let lists = search(searcher, &job.queries, job.keep, &stop)?;
    Ok(lists.map(|mut lists| {
        for hit in lists.iter_mut().flatten() {
            hit.row += first_row;
        }
        lists
    }))
}
