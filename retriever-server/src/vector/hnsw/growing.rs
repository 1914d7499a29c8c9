//! A graph in memory, to which rows are added.

use shared::splitmix;

use super::{Entry, Graph, Links, NONE, SLOT_BYTES};

/// More levels than any number of rows needs.
const LEVEL_MAX: usize = 30;

const EMPTY: [u8; SLOT_BYTES] = NONE.to_le_bytes();

/// Links of rows that are there, and room for those of rows to come. It takes
/// `4 * (2 * links + 1) + 1` bytes a row, and a `links`-th part of that for the upper levels.
#[derive(Debug)]
pub(super) struct Growing {
    /// Most links of a row on a level, and half of those on the lowest.
    links: usize,
    /// The highest level of each row.
    levels: Vec<u8>,
    lowest: Vec<[u8; SLOT_BYTES]>,
    /// Where the upper levels of each row start in `upper`, counted in levels.
    upper_starts: Vec<u32>,
    upper: Vec<[u8; SLOT_BYTES]>,
    entry: Option<Entry>,
}

impl Growing {
    /// For `rows` rows, none of which is there yet. Each row's level depends on `seed` and the row
    /// alone.
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

    /// The graph of a file, if it was made with these levels.
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

    /// Number of rows, be they there or not.
    pub(super) fn rows(&self) -> u32 {
        self.levels.len() as u32
    }

    /// The highest level of a row.
    pub(super) fn level(&self, row: u32) -> usize {
        usize::from(self.levels[row as usize])
    }

    /// The highest level of all rows.
    pub(super) fn highest(&self) -> usize {
        usize::from(self.levels.iter().copied().max().unwrap_or(0))
    }

    /// Most links on a level.
    pub(super) fn capacity(&self, level: usize) -> usize {
        if level == 0 { 2 * self.links } else { self.links }
    }

    /// Replaces the links of a row on a level.
    pub(super) fn set_links(&mut self, row: u32, level: usize, links: &[u32]) {
        let (start, count) = self.place(row, level);
        let slots = if level == 0 { &mut self.lowest } else { &mut self.upper };
        let slots = &mut slots[start..][..count];
        slots.fill(EMPTY);
        for (slot, link) in slots.iter_mut().zip(links) {
            *slot = link.to_le_bytes();
        }
    }

    /// Makes a row the entry if it lives higher than the one that is.
    pub(super) fn offer_entry(&mut self, row: u32) {
        let level = self.level(row);
        if self.entry.is_none_or(|entry| level > entry.level) {
            self.entry = Some(Entry { row, level });
        }
    }

    fn place(&self, row: u32, level: usize) -> (usize, usize) {
        let count = self.capacity(level);
        let start = match level {
            0 => row as usize,
            _ => self.upper_starts[row as usize] as usize + level - 1,
        };
        (start * count, count)
    }
}

impl Links for Growing {
    fn entry(&self) -> Option<Entry> {
        self.entry
    }

    fn slots(&self, row: u32, level: usize) -> &[[u8; SLOT_BYTES]] {
        if level > self.level(row) {
            return &[];
        }
        let (start, count) = self.place(row, level);
        let slots = if level == 0 { &self.lowest } else { &self.upper };
        &slots[start..][..count]
    }
}

/// Geometric, so that every level has a `links`-th part of the rows below it (section 4.1 of the
/// paper, with its mL of 1 / ln M).
fn draw_level(row: u32, links: usize, seed: u64) -> u8 {
    let draw = splitmix::finalise(seed ^ splitmix::finalise(u64::from(row) + 1));
    let level = -(1.0 - splitmix::unit(draw)).ln() / (links.max(2) as f64).ln();
    (level as usize).min(LEVEL_MAX) as u8
}
