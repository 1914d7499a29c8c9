//! A graph in memory, into which rows are inserted.

use shared::contract::splitmix;

use super::{Entry, Graph, Links, NONE, SLOT_BYTES};

/// The highest level; no number of rows needs more.
const LEVEL_MAX: usize = 30;

const EMPTY: [u8; SLOT_BYTES] = NONE.to_le_bytes();

/// The links of the rows so far, and empty slots for all other rows. It takes `4 * (2 * links + 1) + 1`
/// bytes for each row, and a `links`-th part of that for the upper levels.
#[derive(Debug)]
pub(super) struct GrowingGraph {
    /// The most links of a row on an upper level, and half of those on the lowest.
    links: usize,
    /// The highest level of each row.
    levels: Vec<u8>,
    lowest: Vec<[u8; SLOT_BYTES]>,
    /// The start of each row's upper levels in `upper`, counted in levels.
    upper_starts: Vec<u32>,
    upper: Vec<[u8; SLOT_BYTES]>,
    entry: Option<Entry>,
}

impl GrowingGraph {
    /// Makes an empty graph for `rows` rows. A row's level depends only on `seed` and its number.
    pub(super) fn new(rows: u32, links: usize, seed: u64) -> Self {
        let levels: Vec<u8> = (0..rows).map(|row| draw_level(row, links, seed)).collect();
        let mut upper_count = 0;
        let upper_starts = levels.iter().map(|&level| {
            upper_count += u32::from(level);
            upper_count - u32::from(level)
        });
        let upper_starts = upper_starts.collect();
        Self {
            links,
            levels,
            lowest: vec![EMPTY; rows as usize * 2 * links],
            upper_starts,
            upper: vec![EMPTY; upper_count as usize * links],
            entry: None,
        }
    }

    /// Copies the graph of a file. Returns `None` if its rows have other levels.
    pub(super) fn from_file(graph: &Graph, rows: u32, links: usize, seed: u64) -> Option<Self> {
        let mut growing = Self::new(rows, links, seed);
        for row in 0..rows {
            if graph.height(row) != growing.level(row) + 1 {
                return None;
            }
            for level in 0..=growing.level(row) {
                let links: Vec<u32> = graph.links(row, level).collect();
                growing.set_links(row, level, &links);
            }
        }
        growing.entry = graph.entry();
        Some(growing)
    }

    /// Returns the number of all rows, inserted or not.
    pub(super) fn rows(&self) -> u32 {
        self.levels.len() as u32
    }

    /// Returns the highest level of a row.
    pub(super) fn level(&self, row: u32) -> usize {
        usize::from(self.levels[row as usize])
    }

    /// Returns the highest level of all rows.
    pub(super) fn highest(&self) -> usize {
        usize::from(self.levels.iter().copied().max().unwrap_or(0))
    }

    /// Returns the most links of a row on a level.
    pub(super) fn capacity(&self, level: usize) -> usize {
        if level == 0 { 2 * self.links } else { self.links }
    }

    /// Replaces the links of a row on a level.
    pub(super) fn set_links(&mut self, row: u32, level: usize, links: &[u32]) {
        let (start, count) = self.slot_range(row, level);
        let slots = if level == 0 { &mut self.lowest } else { &mut self.upper };
        let slots = &mut slots[start..][..count];
        slots.fill(EMPTY);
        for (slot, link) in slots.iter_mut().zip(links) {
            *slot = link.to_le_bytes();
        }
    }

    /// Makes a row the entry if its level is higher than the current entry's.
    pub(super) fn offer_entry(&mut self, row: u32) {
        let level = self.level(row);
        if self.entry.is_none_or(|entry| level > entry.level) {
            self.entry = Some(Entry { row, level });
        }
    }

    /// Returns the first slot of a row on a level, and the number of its slots.
    fn slot_range(&self, row: u32, level: usize) -> (usize, usize) {
        let count = self.capacity(level);
        let start = match level {
            0 => row as usize,
            _ => self.upper_starts[row as usize] as usize + level - 1,
        };
        (start * count, count)
    }
}

impl Links for GrowingGraph {
    fn entry(&self) -> Option<Entry> {
        self.entry
    }

    fn slots(&self, row: u32, level: usize) -> &[[u8; SLOT_BYTES]] {
        if level > self.level(row) {
            return &[];
        }
        let (start, count) = self.slot_range(row, level);
        let slots = if level == 0 { &self.lowest } else { &self.upper };
        &slots[start..][..count]
    }
}

/// Draws the highest level of a row from a geometric distribution: a level has a `links`-th part of the
/// rows of the level below (section 4.1 of the paper, with its mL of 1 / ln M).
fn draw_level(row: u32, links: usize, seed: u64) -> u8 {
    let draw = splitmix::finalise(seed ^ splitmix::finalise(u64::from(row) + 1));
    let level = -(1.0 - splitmix::unit(draw)).ln() / (links.max(2) as f64).ln();
    (level as usize).min(LEVEL_MAX) as u8
}
