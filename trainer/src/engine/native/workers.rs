//! Threads that share the units of one job after another.
//!
//! A decode step is about two hundred jobs of a few microseconds each. An idle thread looks for the next
//! job for a short while and then sleeps, so as not to load a busy machine further. Units are claimed one
//! by one, and nobody waits for a thread that has claimed none. A thread that the system suspends delays
//! only the unit that it was computing.
//!
//! Invariant: the results do not depend on which thread computes a unit.

#![expect(unsafe_code, reason = "units are handed to threads that outlive the borrow of the job")]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// The number of times that a thread looks for work before it sleeps; each takes some tens of nanoseconds.
const LOOKS_MAX: usize = 1000;

/// Threads that compute together with the one that calls [`Workers::each`].
#[derive(Debug)]
pub(crate) struct Workers {
    board: Arc<JobBoard>,
    handles: Vec<JoinHandle<()>>,
}

/// The function that computes a unit, given its index.
struct Job<'a> {
    run: &'a (dyn Fn(usize) + Sync),
}

/// The current job, shared by all threads.
#[derive(Debug)]
struct JobBoard {
    /// The number of the job in the upper half, the number of its unclaimed units in the lower half.
    ticket: AtomicU64,
    /// Points to the job whose number is in the ticket. A thread dereferences it only after claiming a unit
    /// of the job, which keeps the job alive.
    job: AtomicPtr<Job<'static>>,
    /// Units of the job that are computed.
    done: AtomicU32,
    units: AtomicU32,
    panicked: AtomicBool,
    closing: AtomicBool,
    sleepers: AtomicUsize,
    /// Held while a worker or the caller falls asleep.
    sleep: Mutex<()>,
    published: Condvar,
    finished: Condvar,
}

impl Workers {
    /// Starts threads so that `threads` compute, including the caller; 0 counts as 1.
    pub(crate) fn new(threads: usize) -> std::io::Result<Self> {
        let board = Arc::new(JobBoard {
            ticket: AtomicU64::new(0),
            job: AtomicPtr::new(ptr::null_mut()),
            done: AtomicU32::new(0),
            units: AtomicU32::new(0),
            panicked: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            published: Condvar::new(),
            finished: Condvar::new(),
        });
        let mut workers = Self { board, handles: Vec::new() };
        for index in 1..threads {
            let board = Arc::clone(&workers.board);
            let builder = thread::Builder::new().name(format!("runner-{index}"));
            workers.handles.push(builder.spawn(move || board.work())?);
        }
        Ok(workers)
    }

    /// Calls `compute` once with each unit, on whichever thread is free; returns when all are computed.
    pub(crate) fn each<U: Send>(&mut self, units: &mut [U], compute: impl Fn(&mut U) + Sync) {
        if self.handles.is_empty() || units.len() < 2 {
            units.iter_mut().for_each(compute);
            return;
        }
        let count = u32::try_from(units.len()).expect("a job has fewer than 2^32 units");
        let first = AtomicPtr::new(units.as_mut_ptr());
        let run = |index: usize| {
            // SAFETY: each index below the length is claimed exactly once, so no two references to a unit
            // exist. `each` returns only when all units are computed.
            compute(unsafe { &mut *first.load(Ordering::Relaxed).add(index) });
        };
        self.board.run(count, &Job { run: &run });
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.board.closing.store(true, Ordering::SeqCst);
        drop(self.board.sleep.lock().unwrap_or_else(PoisonError::into_inner));
        self.board.published.notify_all();
        for handle in self.handles.drain(..) {
            let _ = handle.join();
        }
    }
}

impl JobBoard {
    /// Publishes a job, helps to compute it, and returns when all units are computed.
    fn run(&self, units: u32, job: &Job<'_>) {
        self.done.store(0, Ordering::Relaxed);
        self.units.store(units, Ordering::Relaxed);
        self.job.store(ptr::from_ref(job).cast_mut().cast(), Ordering::Relaxed);
        let number = (self.ticket.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        self.ticket.store(number << 32 | u64::from(units), Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(self.sleep.lock().unwrap_or_else(PoisonError::into_inner));
            self.published.notify_all();
        }
        while self.try_compute_unit() {}
        let mut looks = 0;
        while self.done.load(Ordering::SeqCst) < units {
            looks += 1;
            if looks < LOOKS_MAX {
                std::hint::spin_loop();
                continue;
            }
            let mut guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
            while self.done.load(Ordering::SeqCst) < units {
                guard = self.finished.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
        }
        if self.panicked.swap(false, Ordering::SeqCst) {
            resume_unwind(Box::new("a unit of the runner panicked"));
        }
    }

    /// Tries to claim a unit and computes it if it was claimed. Returns `false` if no unit is left.
    fn try_compute_unit(&self) -> bool {
        let ticket = self.ticket.load(Ordering::SeqCst);
        let unclaimed = ticket as u32;
        if unclaimed == 0 {
            return false;
        }
        let job = self.job.load(Ordering::SeqCst);
        let claim =
            self.ticket.compare_exchange(ticket, ticket - 1, Ordering::SeqCst, Ordering::SeqCst);
        if claim.is_err() {
            return true;
        }
        // SAFETY: the claim succeeded, so the job of this ticket is not finished and `JobBoard::run` has not
        // returned. The pointer was stored before the ticket, so it points to that job.
        let run = unsafe { &*job }.run;
        if catch_unwind(AssertUnwindSafe(|| run(unclaimed as usize - 1))).is_err() {
            self.panicked.store(true, Ordering::SeqCst);
        }
        let units = self.units.load(Ordering::Relaxed);
        if self.done.fetch_add(1, Ordering::SeqCst) + 1 == units {
            drop(self.sleep.lock().unwrap_or_else(PoisonError::into_inner));
            self.finished.notify_all();
        }
        true
    }

    /// Computes units until the board is closed; runs on each worker.
    fn work(&self) {
        let mut looks = 0;
        while !self.closing.load(Ordering::SeqCst) {
            if self.try_compute_unit() {
                looks = 0;
                continue;
            }
            looks += 1;
            if looks < LOOKS_MAX {
                std::hint::spin_loop();
                continue;
            }
            let mut guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            while self.ticket.load(Ordering::SeqCst) as u32 == 0
                && !self.closing.load(Ordering::SeqCst)
            {
                guard = self.published.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
            self.sleepers.fetch_sub(1, Ordering::SeqCst);
            looks = 0;
        }
    }
}
