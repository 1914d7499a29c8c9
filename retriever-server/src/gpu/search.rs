//! The loop of phases, the same for a device and for its twin.

use std::ops::Range;

use super::keys;
use super::pack::PackedQueries;
use super::shape::LIST_KEYS;
use crate::query::Hit;

/// Largest number of times that the rows seen so far are seen again in one phase.
const GROWTH_MAX: usize = 16;

/// Rows that are searched before the loop waits for the device, so that it can stop.
const UNSEEN_ROWS_MAX: usize = 1 << 22;

/// Something that searches a range of rows: a device, or its twin.
pub trait Machine {
    /// Why it failed.
    type Fault;

    /// Rows that it holds.
    fn rows(&self) -> usize;

    /// Takes queries, whose `keep` best hits are wanted, and forgets the last ones.
    fn begin(&mut self, queries: &PackedQueries, keep: usize) -> Result<(), Self::Fault>;

    /// Searches some rows, if no earlier phase since [`Machine::overflow`] ran over. Phases have
    /// ascending numbers above 0. May return before it is done.
    fn phase(&mut self, rows: Range<usize>, number: u32) -> Result<(), Self::Fault>;

    /// Waits for all phases. The number of the one that ran over, from which on all have to be
    /// done again; 0 if none did.
    fn overflow(&mut self) -> Result<u32, Self::Fault>;

    /// `keep` keys a query, best first and then 0.
    fn results(&mut self) -> Result<Vec<u64>, Self::Fault>;
}

/// The `keep` best rows for each query, best first, with the machine's scores; `None` once `stop`
/// says so. `keep` is at most half of a list.
pub fn search<M: Machine>(
    machine: &mut M,
    queries: &PackedQueries,
    keep: usize,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Vec<Vec<Hit>>>, M::Fault> {
    let count = machine.rows();
    let keep = keep.min(count);
    if keep == 0 || queries.count() == 0 {
        return Ok(Some(vec![Vec::new(); queries.count()]));
    }
    machine.begin(queries, keep)?;
    // As many rows always fit beside the best so far.
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
        machine.phase(rows.clone(), number)?;
        next = rows.end;
        limit = limit.saturating_mul(2);
        let begun = unseen.first().map_or(rows.start, |first| first.start);
        unseen.push(rows);
        if next < count && next - begun < UNSEEN_ROWS_MAX {
            continue;
        }
        let failed = machine.overflow()?;
        if failed != 0 {
            let place = (failed + unseen.len() as u32 - 1 - number) as usize;
            let rows = unseen[place].clone();
            next = rows.start;
            limit = (rows.len() / 2).max(fitting);
        }
        unseen.clear();
    }
    let keys = machine.results()?;
    let lists = keys.chunks(keep).enumerate().map(|(query, keys)| {
        let factor = queries.factor(query);
        let hits = keys.iter().filter_map(|&key| keys::open(key));
        hits.map(|hit| Hit { score: hit.score * factor, ..hit }).collect()
    });
    Ok(Some(lists.collect()))
}

/// Rows of the phase after the first `seen`. In rows of no order, `keep` of those seen are among
/// the best, so that of `n` times as many about `n` times `keep` pass the thresholds: a quarter of
/// what is free in a list.
fn phase_rows(seen: usize, keep: usize) -> usize {
    if seen == 0 {
        return LIST_KEYS;
    }
    let free = LIST_KEYS - keep;
    let growth = free / (4 * keep);
    let grown = if growth > 0 { seen * growth.min(GROWTH_MAX) } else { seen * free / (4 * keep) };
    grown.clamp(free, UNSEEN_ROWS_MAX)
}
