//! Queries in the order in which the kernels read them.

use std::ops::Range;

use super::kernel::PANEL_GROUPS;

/// The bytes of a cache line. A vector that spans two lines costs two loads.
const LINE_BYTES: usize = 64;

/// Queries in panels of up to [`PANEL_GROUPS`] groups of `lanes` queries. A panel holds the first
/// number of each of its queries, then the second, and so on. The last panel is padded with zeros.
#[derive(Debug)]
pub(super) struct Panels {
    numbers: Vec<f32>,
    /// The start of the first panel, which is aligned to a cache line.
    start: usize,
    /// The queries of each panel.
    queries: Vec<Range<usize>>,
    dimension: usize,
}

impl Panels {
    pub(super) fn pack(queries: &[f32], dimension: usize, lanes: usize) -> Self {
        let count = queries.len() / dimension;
        let ranges = split(count, lanes);
        let padded = ranges.last().map_or(0, |range| range.end);
        let spare = LINE_BYTES / size_of::<f32>();
        let mut numbers = vec![0.0; padded * dimension + spare];
        let start = numbers.as_ptr().align_offset(LINE_BYTES).min(spare);
        for range in &ranges {
            let panel = &mut numbers[start + range.start * dimension..][..range.len() * dimension];
            for query in range.start..range.end.min(count) {
                let numbers = &queries[query * dimension..][..dimension];
                let column = panel[query - range.start..].iter_mut().step_by(range.len());
                for (slot, number) in column.zip(numbers) {
                    *slot = *number;
                }
            }
        }
        Self { numbers, start, queries: ranges, dimension }
    }

    /// Returns the number of queries, including the padding of the last panel.
    pub(super) fn padded_count(&self) -> usize {
        self.queries.last().map_or(0, |range| range.end)
    }

    /// Returns each panel with the range of its queries.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Range<usize>, &[f32])> {
        self.queries.iter().map(|range| {
            let start = self.start + range.start * self.dimension;
            (range.clone(), &self.numbers[start..][..range.len() * self.dimension])
        })
    }
}

/// Splits queries into as few panels as possible, of sizes as equal as possible.
fn split(count: usize, lanes: usize) -> Vec<Range<usize>> {
    let groups = count.div_ceil(lanes);
    let panels = groups.div_ceil(PANEL_GROUPS);
    (0..panels)
        .map(|panel| groups * panel / panels * lanes..groups * (panel + 1) / panels * lanes)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_hold_every_query_once_and_begin_on_a_cache_line() {
        for (count, sizes) in
            [(0, vec![]), (1, vec![8]), (17, vec![24]), (32, vec![16, 16]), (49, vec![16, 16, 24])]
        {
            let queries: Vec<f32> = (0..count * 5).map(|number| number as f32 + 1.0).collect();
            let panels = Panels::pack(&queries, 5, 8);
            let mut unpacked = vec![0.0; panels.padded_count() * 5];
            let mut lengths = Vec::new();
            for (range, panel) in panels.iter() {
                lengths.push(range.len());
                for (index, &number) in panel.iter().enumerate() {
                    unpacked[(range.start + index % range.len()) * 5 + index / range.len()] =
                        number;
                }
            }
            assert_eq!(lengths, sizes);
            assert_eq!(unpacked[..queries.len()], queries);
            assert!(unpacked[queries.len()..].iter().all(|&number| number == 0.0));
            assert!(panels.iter().next().is_none_or(|(_, panel)| panel.as_ptr().addr() % 64 == 0));
        }
    }
}
