//! Sums of the documents of one window.

use std::cell::Cell;

/// Documents whose sums are kept at once: 64 KiB, which stay in the nearer caches.
pub(super) const WINDOW: usize = 16384;

/// A sum for each place of a window, all 0 between two windows.
pub(super) struct Sums {
    of_places: Box<[u32; WINDOW]>,
    /// Places whose sum is not 0, in order of their first addition; one more than there are
    /// places, as each addition writes the place behind the last one.
    touched: Box<[u16; WINDOW + 1]>,
    touched_count: usize,
}

thread_local! {
    /// Sums of an earlier query of this thread: to get and to give back this much memory for each
    /// query would take longer than many a query.
    static SPARE: Cell<Option<Sums>> = const { Cell::new(None) };
}

impl Sums {
    /// Sums that are all 0.
    #[expect(clippy::large_stack_arrays, reason = "96 KiB on their way to the heap, once a thread")]
    pub(super) fn take() -> Self {
        SPARE.take().unwrap_or_else(|| Self {
            of_places: Box::new([0; WINDOW]),
            touched: Box::new([0; WINDOW + 1]),
            touched_count: 0,
        })
    }

    /// Keeps the memory for the next query. Sums under which something failed are not given back.
    pub(super) fn give_back(self) {
        if self.touched_count == 0 {
            SPARE.set(Some(self));
        }
    }

    /// Adds a part, which is not 0, to the sum at a place.
    #[inline]
    pub(super) fn add(&mut self, place: u32, part: u32) {
        let place = place as usize % WINDOW;
        let sum = &mut self.of_places[place];
        // Written always and counted only if new, so that there is no branch to guess.
        self.touched[self.touched_count] = place as u16;
        self.touched_count += usize::from(*sum == 0);
        // Units are chosen so that the sum of all bounds fits.
        *sum = sum.wrapping_add(part);
    }

    /// Takes out all sums with their places.
    #[inline]
    pub(super) fn drain(&mut self, mut take: impl FnMut(u32, u32)) {
        for &place in &self.touched[..self.touched_count] {
            let sum = std::mem::take(&mut self.of_places[usize::from(place) % WINDOW]);
            take(u32::from(place), sum);
        }
        self.touched_count = 0;
    }
}
