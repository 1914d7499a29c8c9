//! Threads that share the units of one job after another.
//!
//! A decode step is some two hundred jobs of a few microseconds each. A thread that has nothing to do
//! looks for the next job for a short while and then sleeps, so that a busy machine is not made
//! busier. Units are claimed one by one, and nobody waits for a thread that has claimed none: a
//! thread that the system has taken off its core delays only the unit it was in.
//!
//! Invariant: which thread computes a unit never changes what is computed.

#![expect(unsafe_code, reason = "units are handed to threads that outlive the borrow of the job")]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// Looks for work before a thread sleeps; each is some tens of nanoseconds.
const LOOKS_MAX: usize = 1000;

/// Threads that work together with the one that calls [`Pool::each`].
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// What a unit is computed by.
struct Job<'a> {
    run: &'a (dyn Fn(usize) + Sync),
}

#[derive(Debug)]
struct Shared {
    /// The number of the job in the upper half, its units that nobody has claimed in the lower.
    ticket: AtomicU64,
    /// Points to the job whose number the ticket bears; read only by who has claimed a unit of it,
    /// which keeps it alive.
    job: AtomicPtr<Job<'static>>,
    /// Units of the job that are computed.
    done: AtomicU32,
    units: AtomicU32,
    panicked: AtomicBool,
    closing: AtomicBool,
    sleepers: AtomicUsize,
    /// Guards the falling asleep of workers and of the caller.
    sleep: Mutex<()>,
    published: Condvar,
    finished: Condvar,
}

impl Pool {
    /// `threads` in all, the caller among them; 0 counts as 1.
    pub(crate) fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
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
        let mut pool = Self { shared, workers: Vec::new() };
        for index in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let builder = thread::Builder::new().name(format!("runner-{index}"));
            pool.workers.push(builder.spawn(move || shared.work())?);
        }
        Ok(pool)
    }

    /// Calls `compute` once with each unit, on whichever thread is free.
    pub(crate) fn each<U: Send>(&mut self, units: &mut [U], compute: impl Fn(&mut U) + Sync) {
        if self.workers.is_empty() || units.len() < 2 {
            units.iter_mut().for_each(compute);
            return;
        }
        let count = u32::try_from(units.len()).unwrap_or(u32::MAX);
        debug_assert_eq!(count as usize, units.len(), "units of a job");
        let first = AtomicPtr::new(units.as_mut_ptr());
        let run = |index: usize| {
            // SAFETY: each index below the length is claimed exactly once, so that no two references
            // to a unit exist; `each` returns only when all are computed.
            compute(unsafe { &mut *first.load(Ordering::Relaxed).add(index) });
        };
        self.shared.run(count, &Job { run: &run });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        drop(self.shared.sleep.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.published.notify_all();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Publishes a job, helps with it and returns when all of it is computed.
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
        while self.compute_one() {}
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

    /// Claims a unit and computes it; false if there is none.
    fn compute_one(&self) -> bool {
        let ticket = self.ticket.load(Ordering::SeqCst);
        let left = ticket as u32;
        if left == 0 {
            return false;
        }
        let job = self.job.load(Ordering::SeqCst);
        let claim =
            self.ticket.compare_exchange(ticket, ticket - 1, Ordering::SeqCst, Ordering::SeqCst);
        if claim.is_err() {
            return true;
        }
        // SAFETY: the claim succeeded, so the job that the ticket bears is not finished: the pointer,
        // stored before the ticket, is its, and `run` has not returned.
        let run = unsafe { &*job }.run;
        if catch_unwind(AssertUnwindSafe(|| run(left as usize - 1))).is_err() {
            self.panicked.store(true, Ordering::SeqCst);
        }
        let units = self.units.load(Ordering::Relaxed);
        if self.done.fetch_add(1, Ordering::SeqCst) + 1 == units {
            drop(self.sleep.lock().unwrap_or_else(PoisonError::into_inner));
            self.finished.notify_all();
        }
        true
    }

    /// The life of a worker.
    fn work(&self) {
        let mut looks = 0;
        while !self.closing.load(Ordering::SeqCst) {
            if self.compute_one() {
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
