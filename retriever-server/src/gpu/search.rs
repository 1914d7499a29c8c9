//! The loop of phases, the same for a device and for its emulation in the tests.

use std::ops::Range;

use super::pack::PackedQueries;
use super::shape::LIST_KEYS;
use super::{GpuError, keys};
use crate::query::Hit;

/// The largest ratio of a phase's rows to the rows before it.
const GROWTH_MAX: usize = 16;

/// The number of rows after which the loop waits for the device, so that a stop takes effect.
const UNSEEN_ROWS_MAX: usize = 1 << 22;

/// A device that searches a range of rows, or its emulation.
pub trait RowSearcher {
    /// Returns the number of rows that it holds.
    fn rows(&self) -> usize;

    /// Replaces the current queries. The `keep` best hits of each will be requested.
    fn begin(&mut self, queries: &PackedQueries, keep: usize) -> Result<(), GpuError>;

    /// Searches some rows, unless an earlier phase since the last [`RowSearcher::overflow`] overflowed.
    /// Phases have ascending numbers above 0. May return before the search is done.
    fn phase(&mut self, rows: Range<usize>, number: u32) -> Result<(), GpuError>;

    /// Waits for all phases. Returns the number of the phase that overflowed, or 0. That phase and
    /// all later ones must be repeated.
    fn overflow(&mut self) -> Result<u32, GpuError>;

    /// Returns `keep` keys for each query, best first, padded with 0.
    fn results(&mut self) -> Result<Vec<u64>, GpuError>;
}

/// Returns the `keep` best rows for each query, best first, with the searcher's scores; `None` once
/// `stop` returns `true`. `keep` is at most half of a list.
pub fn search(
    searcher: &mut impl RowSearcher,
    queries: &PackedQueries,
    keep: usize,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Vec<Vec<Hit>>>, GpuError> {
    let count = searcher.rows();
    let keep = keep.min(count);
    if keep == 0 || queries.count() == 0 {
        return Ok(Some(vec![Vec::new(); queries.count()]));
    }
    searcher.begin(queries, keep)?;
    // This many rows always fit in a list together with the best so far.
    let fitting = LIST_KEYS - keep;
    let (mut next, mut limit) = (0, usize::MAX);
    let mut unseen: Vec<Range<usize>> = Vec::new();
    let mut number = 0u32;
    while next < count {
        if stop() {
            return Ok(None);
        }
        let size = phase_rows(next, keep).min(limit);
        let rows = next..next.saturating_add(size).min(count);
        number += 1;
        searcher.phase(rows.clone(), number)?;
        next = rows.end;
        limit = limit.saturating_mul(2);
        let begun = unseen.first().map_or(rows.start, |first| first.start);
        unseen.push(rows);
        if next < count && next - begun < UNSEEN_ROWS_MAX {
            continue;
        }
        let failed = searcher.overflow()?;
        if failed != 0 {
            // Continues with the phase that overflowed, at half its size. The phase after that may
            // be twice as large again.
            let index = (failed + unseen.len() as u32 - 1 - number) as usize;
            let rows = unseen[index].clone();
            next = rows.start;
            limit = (rows.len() / 2).max(fitting);
        }
        unseen.clear();
    }
    let keys = searcher.results()?;
    let lists = keys.chunks(keep).enumerate().map(|(query, keys)| {
        let factor = queries.factor(query);
        let hits = keys.iter().filter_map(|&key| keys::open(key));
        hits.map(|hit| Hit { score: hit.score * factor, ..hit }).collect()
    });
    Ok(Some(lists.collect()))
}

/// Returns the number of rows of the next phase, after the first `seen` rows. Exactly `keep` of the
/// seen rows pass the thresholds; if the rows are in random order, about `n * keep` of the next
/// `n * seen` rows pass. The phase is sized so that they fill a quarter of a list's free slots.
fn phase_rows(seen: usize, keep: usize) -> usize {
    if seen == 0 {
        return LIST_KEYS;
    }
    let free = LIST_KEYS - keep;
    let growth = free / (4 * keep);
    let grown = if growth > 0 { seen * growth.min(GROWTH_MAX) } else { seen * free / (4 * keep) };
    grown.clamp(free, UNSEEN_ROWS_MAX)
}
