//! The threads that share the work.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::engine::native::workers::Workers;

#[test]
fn every_unit_is_computed_once() {
    for threads in [0, 1, 2, 7] {
        let mut workers = Workers::new(threads).unwrap();
        for job in 0..500 {
            let mut units = vec![0_usize; job % 40];
            let calls = AtomicUsize::new(0);
            workers.each(&mut units, |unit| {
                *unit += job + 1;
                calls.fetch_add(1, Ordering::Relaxed);
            });
            assert!(units.iter().all(|&unit| unit == job + 1), "{threads} threads, job {job}");
            assert_eq!(calls.into_inner(), units.len());
        }
    }
}

#[test]
fn a_panic_reaches_the_caller_and_the_workers_continue() {
    let mut workers = Workers::new(3).unwrap();
    let mut units: Vec<usize> = (0..20).collect();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        workers.each(&mut units, |unit| assert_ne!(*unit, 13, "an unlucky unit"));
    }));
    assert!(outcome.is_err());
    workers.each(&mut units, |unit| *unit += 1);
    assert_eq!(units, (1..21).collect::<Vec<_>>());
}
