//! The one way to split work over threads and to join their results.
//!
//! Two kinds of work fit. If the work has parts, each part is an argument:
//!
//! ```text
//! let lists = fork_join(queries.chunks(share), |queries| search_all(queries));
//! fork_join(rows.chunks_mut(share), |rows| fill(rows));
//! ```
//!
//! If threads take items from a common counter, each part is a worker, and its number is not used. A worker
//! that starts late finds no more items and returns an empty result:
//!
//! ```text
//! let next = AtomicUsize::new(0);
//! let best = fork_join(0..threads, |_| scan_chunks(&next));
//! ```

use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Calls `work` with every part on as many threads as there are parts, and returns the results in
/// the order of the parts. The calling thread is one of them; a single part starts no thread.
///
/// A thread takes the next part whenever it is free. A thread that the system does not start
/// therefore leaves its part to the others, and no part is ever lost.
///
/// # Panics
/// If `work` panics, with the same panic, once all threads have ended.
pub(crate) fn fork_join<P: Send, T: Send>(
    parts: impl IntoIterator<Item = P>,
    work: impl Fn(P) -> T + Sync,
) -> Vec<T> {
    let parts: Vec<P> = parts.into_iter().collect();
    let threads = parts.len();
    let queue = Mutex::new(parts.into_iter().enumerate());
    // Taking a part cannot fail half-way, so a poisoned lock still guards a sound queue.
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work_along = || {
        let mut results = Vec::new();
        while let Some((index, part)) = next() {
            results.push((index, work(part)));
        }
        results
    };
    let mut results = thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .filter_map(|_| thread::Builder::new().spawn_scoped(scope, work_along).ok())
            .collect();
        let mut results = work_along();
        for other in others {
            results.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        results
    });
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_parts() {
        for count in [0, 1, 2, 7] {
            let squares = fork_join(0..count, |number: usize| number * number);
            assert_eq!(squares, (0..count).map(|number| number * number).collect::<Vec<_>>());
        }
    }

    #[test]
    fn parts_may_be_written_to() {
        let mut numbers = [1; 10];
        let sums: Vec<usize> = fork_join(numbers.chunks_mut(3), |part| {
            part.fill(2);
            part.iter().sum()
        });
        assert_eq!((sums, numbers), (vec![6, 6, 6, 2], [2; 10]));
    }

    #[test]
    fn workers_share_a_counter() {
        let next = AtomicUsize::new(0);
        let taken = fork_join(0..4, |_| {
            let mut taken = Vec::new();
            loop {
                let item = next.fetch_add(1, Ordering::Relaxed);
                if item >= 100 {
                    return taken;
                }
                taken.push(item);
            }
        });
        let mut items = taken.concat();
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        let ended = AtomicUsize::new(0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            fork_join(0..3, |number| {
                ended.fetch_add(1, Ordering::Relaxed);
                assert_ne!(number, 1, "as the test wants");
            })
        }));
        assert!(result.is_err());
        assert!((2..=3).contains(&ended.into_inner()));
    }
}
