//! A fixed number of threads for work that would block the async threads. The queue is bounded, jobs
//! start in order, and a job that panics loses only its own result.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use tokio::sync::oneshot;
use tracing::error;

type Job = Box<dyn FnOnce() + Send>;

/// The most items of a batch that one thread takes at a time. The number is small, so that a single
/// query does not wait behind a whole large batch.
const MAX_CHUNK: usize = 16;

/// The number of chunks per thread in a batch. Several per thread let the threads end at about the
/// same time.
const CHUNKS_PER_THREAD: usize = 4;

/// The error of a job that panicked, or that found the queue full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobLost;

/// Worker threads with their queue. The threads end when the pool is dropped.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    threads: usize,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    capacity_jobs: usize,
}

struct State {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Shared")
            .field("capacity_jobs", &self.capacity_jobs)
            .finish_non_exhaustive()
    }
}

impl Pool {
    /// Starts `threads` workers over a queue of at most `capacity_jobs`.
    pub fn start(threads: usize, capacity_jobs: usize) -> std::io::Result<Self> {
        let state = Mutex::new(State { jobs: VecDeque::new(), closed: false });
        let shared = Arc::new(Shared { state, wake: Condvar::new(), capacity_jobs });
        let pool = Self { shared, threads };
        for number in 0..threads {
            let shared = Arc::clone(&pool.shared);
            thread::Builder::new().name(format!("search-{number}")).spawn(move || shared.work())?;
        }
        Ok(pool)
    }

    /// Returns the number of jobs that wait for a thread.
    pub fn waiting(&self) -> usize {
        self.shared.lock().jobs.len()
    }

    /// Runs one job and returns its result.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JobLost> {
        self.submit(job).await.map_err(|_| JobLost)
    }

    /// Calls `item` with every index below `count`, in chunks on all threads.
    pub async fn map<T: Send + 'static>(
        &self,
        count: usize,
        item: impl Fn(usize) -> T + Send + Sync + 'static,
    ) -> Vec<Result<T, JobLost>> {
        let chunk = count.div_ceil(self.threads * CHUNKS_PER_THREAD).clamp(1, MAX_CHUNK);
        let item = Arc::new(item);
        let mut pending = Vec::with_capacity(count.div_ceil(chunk));
        for start in (0..count).step_by(chunk) {
            let range = start..count.min(start + chunk);
            let item = Arc::clone(&item);
            let length = range.len();
            let job = move || range.map(|index| guarded(|| item(index))).collect::<Vec<_>>();
            pending.push((length, self.submit(job)));
        }
        let mut results = Vec::with_capacity(count);
        for (length, receiver) in pending {
            match receiver.await {
                Ok(chunk) => results.extend(chunk),
                Err(_) => results.extend((0..length).map(|_| Err(JobLost))),
            }
        }
        results
    }

    /// Queues a job. If the queue is full or the job panics, the receiver is closed.
    fn submit<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (sender, receiver) = oneshot::channel();
        let job = Box::new(move || {
            if let Ok(result) = guarded(job) {
                // The receiver is gone if the client is gone.
                let _ = sender.send(result);
            }
        });
        let mut state = self.shared.lock();
        if state.jobs.len() < self.shared.capacity_jobs {
            state.jobs.push_back(job);
            drop(state);
            self.shared.wake.notify_one();
        } else {
            drop(state);
            error!(capacity_jobs = self.shared.capacity_jobs, "job queue is full");
        }
        receiver
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_all();
    }
}

impl Shared {
    /// Locks the queue. Jobs run outside the lock, and pushing cannot fail half-way, so a poisoned lock
    /// still guards a sound queue.
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            job();
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Runs a job and catches its panic.
fn guarded<T>(job: impl FnOnce() -> T) -> Result<T, JobLost> {
    catch_unwind(AssertUnwindSafe(job)).map_err(|_| {
        error!("a job panicked");
        JobLost
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_item_is_mapped_in_order() {
        let pool = Pool::start(3, 1000).unwrap();
        for count in [0, 1, 2, 3, 12, 13, 500] {
            let squares: Vec<usize> =
                pool.map(count, |index| index * index).await.into_iter().flatten().collect();
            let expected: Vec<usize> = (0..count).map(|index| index * index).collect();
            assert_eq!(squares, expected);
        }
    }

    #[tokio::test]
    async fn a_panic_costs_its_own_item_only() {
        let pool = Pool::start(1, 10).unwrap();
        let results = pool
            .map(3, |index| {
                assert_ne!(index, 1, "as the test wants");
                index
            })
            .await;
        assert_eq!(results, [Ok(0), Err(JobLost), Ok(2)]);
        assert_eq!(pool.run(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn a_full_queue_loses_the_job_and_nothing_else() {
        let pool = Pool::start(1, 1).unwrap();
        let (release, wait) = std::sync::mpsc::sync_channel::<()>(1);
        let (started, has_started) = oneshot::channel();
        let blocker = pool.submit(move || {
            let _ = started.send(());
            wait.recv()
        });
        has_started.await.unwrap();
        let queued = pool.submit(|| 1);
        let refused = pool.submit(|| 2);
        assert!(refused.await.is_err());
        release.send(()).unwrap();
        blocker.await.unwrap().unwrap();
        assert_eq!(queued.await, Ok(1));
    }
}
