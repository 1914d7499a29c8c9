//! The sums of the documents in one window.

use std::cell::Cell;

/// The number of documents in a window. Their sums take 64 KiB, which stay in the nearer caches.
pub(super) const WINDOW: usize = 16384;

/// A sum for each document of a window, by its offset in the window. All are 0 between two windows.
pub(super) struct Sums {
    by_offset: Box<[u32; WINDOW]>,
    /// The offsets whose sum is not 0, in order of their first addition. There is space for one
    /// more, because every addition writes its offset behind the last one.
    touched: Box<[u16; WINDOW + 1]>,
    touched_count: usize,
}

thread_local! {
    /// The sums of an earlier query of this thread. To allocate and free this much memory would take
    /// longer than many queries do.
    static SPARE: Cell<Option<Sums>> = const { Cell::new(None) };
}

impl Sums {
    /// Returns sums that are all 0, in the memory of an earlier query if possible.
    #[expect(clippy::large_stack_arrays, reason = "96 KiB on their way to the heap, once a thread")]
    pub(super) fn take() -> Self {
        SPARE.take().unwrap_or_else(|| Self {
            by_offset: Box::new([0; WINDOW]),
            touched: Box::new([0; WINDOW + 1]),
            touched_count: 0,
        })
    }

    /// Keeps the memory for the next query, unless a sum is not 0: a cancelled query frees its sums.
    pub(super) fn give_back(self) {
        if self.touched_count == 0 {
            SPARE.set(Some(self));
        }
    }

    /// Adds a part, which must not be 0, to the sum at an offset.
    #[inline]
    pub(super) fn add(&mut self, offset: u32, part: u32) {
        // No offset reaches `WINDOW`; the remainder tells the compiler so, and costs no division.
        let offset = offset as usize % WINDOW;
        let sum = &mut self.by_offset[offset];
        // The offset is always written but counted only if new: that needs no branch to predict.
        self.touched[self.touched_count] = offset as u16;
        self.touched_count += usize::from(*sum == 0);
        // The unit is chosen so that the sum of all bounds fits in 32 bits.
        *sum = sum.wrapping_add(part);
    }

    /// Calls `take` with the offset and the sum of every touched document, and sets the sums to 0.
    #[inline]
    pub(super) fn drain(&mut self, mut take: impl FnMut(u32, u32)) {
        for &offset in &self.touched[..self.touched_count] {
            let sum = std::mem::take(&mut self.by_offset[usize::from(offset) % WINDOW]);
            take(u32::from(offset), sum);
        }
        self.touched_count = 0;
    }
}
