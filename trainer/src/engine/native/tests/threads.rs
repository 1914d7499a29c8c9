//! The pool of threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::engine::native::pool::Pool;

/// Every unit is computed once, job after job, whatever the number of threads.
#[test]
fn every_unit_is_computed_once() {
    for threads in [0, 1, 2, 7] {
        let mut pool = Pool::new(threads).unwrap();
        for job in 0..500 {
            let mut units = vec![0_usize; job % 40];
            let calls = AtomicUsize::new(0);
            pool.each(&mut units, |unit| {
                *unit += job + 1;
                calls.fetch_add(1, Ordering::Relaxed);
            });
            assert!(units.iter().all(|&unit| unit == job + 1), "{threads} threads, job {job}");
            assert_eq!(calls.into_inner(), units.len());
        }
    }
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
    let mut pool = Pool::new(3).unwrap();
    let mut units: Vec<usize> = (0..20).collect();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        pool.each(&mut units, |unit| assert_ne!(*unit, 13, "an unlucky unit"));
    }));
    assert!(outcome.is_err());
    pool.each(&mut units, |unit| *unit += 1);
    assert_eq!(units, (1..21).collect::<Vec<_>>());
}
