//! Rows that are equal, or so nearly equal that no search tells them apart. Many of them tear a graph
//! apart: each links only to the others, and no link leads out. So a graph links one row of each group,
//! its leader, and keeps the other rows in a list of copies. A search that finds the leader has found
//! the copies.
//!
//! The search for copies takes one pass over the rows and some sorting. Each row is projected on a few
//! random directions; rows at a small distance have nearly equal projections, so only rows in the same
//! cell of a grid are compared, in rounds with shifted grids. Equal rows are always found. Of rows
//! within [`NEARNESS`], a few may be missed; they become leaders of their own, which does no harm. The
//! result depends on the rows alone.

use std::io::{self, Write};

use shared::contract::splitmix;
use tantivy::directory::OwnedBytes;

use super::rows::Rows;
use crate::processor::fork_join::fork_join;
use crate::query::Hit;

/// The largest distance of a copy from its leader, as a part of the leader's length. For rows of
/// length 1 their cosine is then at least 1 - 2e-6. Rows that were rounded to 16 bits, or that a model
/// computed in another batch, are nearer.
const NEARNESS: f32 = 2e-3;

/// The width of a cell, as a multiple of [`NEARNESS`]. A wider cell separates fewer copies, and holds
/// more rows to compare.
const CELL_WIDTH: f32 = 32.0 * NEARNESS;

/// The largest difference of two copies' projections. The projections of a difference of length 1 are
/// nearly normal with a deviation of 1.
const PROJECTED: f32 = 4.0 * NEARNESS;

/// The number of directions that form the grid. One more orders the rows of a cell.
const GRID: usize = 3;

/// The number of rounds, each with a grid that is shifted by a part of a cell.
const ROUNDS: usize = 2;

/// The most leaders of a cell that a row is compared with.
const COMPARED_MAX: usize = 64;

/// The fewest rows that justify a further thread.
const THREAD_ROWS: usize = 1 << 10;

/// The bytes of a leader and its copy, 32 bits each.
pub(super) const PAIR_BYTES: usize = 2 * size_of::<u32>();

/// The end of a file of another format with a list of copies behind its content.
const MARK: &[u8] = b"RScopies";

/// The most copies of a leader that a search returns, unless more hits are requested. Of equal rows,
/// the first ones are the best hits.
pub(super) const COPIES_MAX: usize = 1 << 10;

/// The copies of leaders, by leader and then by row: pairs of little-endian 32-bit integers.
#[derive(Clone, Debug)]
pub(super) struct Copies {
    pairs: OwnedBytes,
}

impl Copies {
    /// Returns an empty list.
    pub(super) fn none() -> Self {
        Self { pairs: OwnedBytes::empty() }
    }

    /// Finds the copies among `rows`. The leader of a group is its first row.
    pub(super) fn find(rows: &Rows<'_>, threads: usize) -> Self {
        let mut leaders: Vec<u32> = (0..rows.count() as u32).collect();
        let sketches = sketches(rows, threads);
        for round in 0..ROUNDS {
            let found = attach(rows, &sketches, &leaders, round);
            for (copy, leader) in found {
                leaders[copy as usize] = leader;
            }
        }
        let mut pairs: Vec<[u32; 2]> = Vec::new();
        for row in 0..leaders.len() as u32 {
            // A leader of one round may be a copy in the next.
            let mut leader = leaders[row as usize];
            while leaders[leader as usize] != leader {
                leader = leaders[leader as usize];
            }
            if leader != row {
                pairs.push([leader, row]);
            }
        }
        Self::led_by_first(pairs)
    }

    /// Makes the first row of each group its leader.
    fn led_by_first(mut pairs: Vec<[u32; 2]>) -> Self {
        pairs.sort_unstable();
        let groups = pairs.chunk_by(|[one, _], [other, _]| one == other);
        let mut renamed: Vec<[u32; 2]> = Vec::with_capacity(pairs.len());
        for group in groups {
            let [leader, least] = group[0];
            let first = leader.min(least);
            let rows = std::iter::once(leader).chain(group.iter().map(|[_, copy]| *copy));
            renamed.extend(rows.filter(|&row| row != first).map(|row| [first, row]));
        }
        renamed.sort_unstable();
        let bytes = renamed.as_flattened().iter().flat_map(|row| row.to_le_bytes());
        Self { pairs: OwnedBytes::new(bytes.collect::<Vec<u8>>()) }
    }

    /// Interprets bytes that [`Copies::bytes`] returned. Returns `None` if they are not a list of copies
    /// among `rows` rows.
    pub(super) fn from_bytes(pairs: OwnedBytes, rows: u32) -> Option<Self> {
        let copies = Self { pairs };
        let exist = copies.iter().all(|[leader, copy]| leader < copy && copy < rows);
        if !exist || !copies.pairs.len().is_multiple_of(PAIR_BYTES) {
            return None;
        }
        let mut copied = Flags::new(rows);
        let differ = copies.iter().all(|[_, copy]| copied.set(copy));
        let led = copies.iter().all(|[leader, _]| !copied.has(leader));
        (differ && led && copies.iter().is_sorted()).then_some(copies)
    }

    /// Appends the list to `file`, with its length and [`MARK`] behind it.
    pub(super) fn write_behind(&self, file: &mut impl Write) -> io::Result<()> {
        file.write_all(self.bytes())?;
        file.write_all(&(self.bytes().len() as u64).to_le_bytes())?;
        file.write_all(MARK)
    }

    /// Reads the list at the end of a file; empty if [`MARK`] is not there. Returns `None` if what is
    /// there is not a list of copies among `rows` rows.
    pub(super) fn read_behind(file: &OwnedBytes, rows: u32) -> Option<Self> {
        let Some(before) = file.strip_suffix(MARK) else { return Some(Self::none()) };
        let (before, length) = before.split_last_chunk()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let first = before.len().checked_sub(length)?;
        Self::from_bytes(file.slice(first..before.len()), rows)
    }

    /// Interprets bytes without a check. Searches are safe if the caller ignores rows that do not exist.
    pub(super) fn unchecked(pairs: OwnedBytes) -> Self {
        Self { pairs }
    }

    /// Returns the list as bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.pairs
    }

    /// Returns the number of copies, without their leaders.
    pub(super) fn count(&self) -> usize {
        self.pairs.len() / PAIR_BYTES
    }

    /// Returns the copies of a leader in their order.
    pub(super) fn of(&self, leader: u32) -> impl Iterator<Item = u32> {
        let pairs = self.pairs.as_chunks::<PAIR_BYTES>().0;
        let first = pairs.partition_point(|&pair| decoded(pair)[0] < leader);
        let copies = pairs[first..].iter().copied().map(decoded);
        copies.take_while(move |[other, _]| *other == leader).map(|[_, copy]| copy)
    }

    /// Returns the set of all copies among `rows` rows.
    pub(super) fn flags(&self, rows: u32) -> Flags {
        let mut flags = Flags::new(rows);
        for [_, copy] in self.iter() {
            flags.set(copy);
        }
        flags
    }

    fn iter(&self) -> impl Iterator<Item = [u32; 2]> {
        self.pairs.as_chunks::<PAIR_BYTES>().0.iter().copied().map(decoded)
    }
}

fn decoded(pair: [u8; PAIR_BYTES]) -> [u32; 2] {
    let pair = u64::from_le_bytes(pair);
    [pair as u32, (pair >> u32::BITS) as u32]
}

/// Adds the copies of the rows that a search found, at most `copies_max` of each, and sorts all by score.
/// `score` computes the scores of rows. A copy that does not exist is left out.
pub(super) fn with_copies(
    mut hits: Vec<Hit>,
    copies: &Copies,
    copies_max: usize,
    rows: u32,
    score: impl FnOnce(&[u32], &mut Vec<f32>),
) -> Vec<Hit> {
    let found = hits.iter().flat_map(|hit| copies.of(hit.row).take(copies_max));
    let found: Vec<u32> = found.filter(|&copy| copy < rows).collect();
    if found.is_empty() {
        return hits;
    }
    let mut scores = Vec::new();
    score(&found, &mut scores);
    let scored = found.iter().zip(&scores).map(|(&row, &score)| Hit { row, score });
    hits.extend(scored.filter(|hit| hit.score.is_finite()));
    hits.sort_unstable_by(|one, other| {
        other.score.total_cmp(&one.score).then(one.row.cmp(&other.row))
    });
    hits
}

/// A set of rows.
#[derive(Debug)]
pub(super) struct Flags(Vec<u64>);

impl Flags {
    fn new(rows: u32) -> Self {
        Self(vec![0; rows.div_ceil(u64::BITS) as usize])
    }

    /// Adds an existing row. Returns `true` if it is new.
    fn set(&mut self, row: u32) -> bool {
        let is_new = !self.has(row);
        self.0[(row / u64::BITS) as usize] |= 1 << (row % u64::BITS);
        is_new
    }

    /// Returns `true` if an existing row is in the set.
    pub(super) fn has(&self, row: u32) -> bool {
        self.0[(row / u64::BITS) as usize] & (1 << (row % u64::BITS)) != 0
    }
}

/// The length of a row, and the projections of its direction.
#[derive(Clone, Copy, Debug)]
struct Sketch {
    length: f32,
    projections: [f32; GRID + 1],
}

impl Sketch {
    /// Returns the cell of the row in the grid of a round; `None` for a row that is not finite.
    fn cell(&self, round: usize) -> Option<u64> {
        let shift = round as f32 / ROUNDS as f32;
        let [grid @ .., _] = &self.projections;
        let cells = grid.iter().map(|number| (number / CELL_WIDTH + shift).floor() as i32);
        // A hash of the cell's place. If two cells share a hash, more rows are compared.
        let cell = cells.fold(0, |hash, cell| splitmix::finalise(hash ^ u64::from(cell as u32)));
        self.is_finite().then_some(cell)
    }

    fn is_finite(&self) -> bool {
        self.length.is_finite() && self.projections.iter().all(|number| number.is_finite())
    }

    /// Returns `true` if the rows may be copies.
    fn is_near(&self, other: &Self) -> bool {
        let mut pairs = self.projections.iter().zip(&other.projections);
        (self.length - other.length).abs() <= NEARNESS * self.length
            && pairs.all(|(one, other)| (one - other).abs() <= PROJECTED)
    }
}

/// Computes the sketches of all rows.
fn sketches(rows: &Rows<'_>, threads: usize) -> Vec<Sketch> {
    let dimension = rows.dimension();
    // Every direction is a row of random signs.
    let signs: Vec<[f32; GRID + 1]> = (0..dimension as u64)
        .map(|position| {
            let bits = splitmix::finalise(position + 1);
            std::array::from_fn(|direction| if bits >> direction & 1 == 0 { 1.0 } else { -1.0 })
        })
        .collect();
    let sketch = |row: usize, numbers: &mut [f32]| {
        rows.read_row(row, numbers);
        let mut square = 0f64;
        let mut sums = [0f32; GRID + 1];
        for (&number, signs) in numbers.iter().zip(&signs) {
            square += f64::from(number) * f64::from(number);
            for (sum, sign) in sums.iter_mut().zip(signs) {
                *sum += number * sign;
            }
        }
        let length = square.sqrt() as f32;
        let divisor = if length > 0.0 { length } else { 1.0 };
        Sketch { length, projections: sums.map(|sum| sum / divisor) }
    };
    let threads = threads.min(rows.count() / THREAD_ROWS).max(1);
    let share = rows.count().div_ceil(threads).max(1);
    let parts = fork_join((0..rows.count()).step_by(share), |first| {
        let mut numbers = vec![0.0; dimension];
        let last = rows.count().min(first + share);
        (first..last).map(|row| sketch(row, &mut numbers)).collect::<Vec<_>>()
    });
    parts.concat()
}

/// Compares the leaders that share a cell in the grid of a round. Returns each new copy with its leader.
fn attach(rows: &Rows<'_>, sketches: &[Sketch], leaders: &[u32], round: usize) -> Vec<(u32, u32)> {
    let is_leader = |row: &u32| leaders[*row as usize] == *row;
    let own = (0..leaders.len() as u32).filter(is_leader);
    let mut order: Vec<(u64, u32)> =
        own.filter_map(|row| Some((sketches[row as usize].cell(round)?, row))).collect();
    let last = |row: u32| sketches[row as usize].projections[GRID];
    order.sort_unstable_by(|(cell, row), (other_cell, other)| {
        cell.cmp(other_cell).then(last(*row).total_cmp(&last(*other))).then(row.cmp(other))
    });
    let mut distance = Distance::new(rows.dimension());
    let mut found = Vec::new();
    for cell in order.chunk_by(|(one, _), (other, _)| one == other) {
        let mut cell_leaders: Vec<u32> = Vec::new();
        for &(_, row) in cell {
            let sketch = &sketches[row as usize];
            let near = cell_leaders
                .iter()
                .rev()
                .take(COMPARED_MAX)
                .take_while(|&&leader| last(row) - last(leader) <= PROJECTED)
                .find(|&&leader| {
                    sketches[leader as usize].is_near(sketch)
                        && distance.is_small(rows, leader, row)
                });
            match near {
                Some(&leader) => found.push((row, leader)),
                None => cell_leaders.push(row),
            }
        }
    }
    found
}

/// The buffers of a comparison of two rows.
struct Distance {
    leader: Vec<f32>,
    row: Vec<f32>,
}

impl Distance {
    fn new(dimension: usize) -> Self {
        Self { leader: vec![0.0; dimension], row: vec![0.0; dimension] }
    }

    /// Returns `true` if `row` is within [`NEARNESS`] of `leader`.
    fn is_small(&mut self, rows: &Rows<'_>, leader: u32, row: u32) -> bool {
        rows.read_row(leader as usize, &mut self.leader);
        rows.read_row(row as usize, &mut self.row);
        let (mut length, mut distance) = (0f64, 0f64);
        for (&one, &other) in self.leader.iter().zip(&self.row) {
            let (one, other) = (f64::from(one), f64::from(other));
            length += one * one;
            distance += (one - other) * (one - other);
        }
        distance <= length * f64::from(NEARNESS).powi(2)
    }
}

#[cfg(test)]
mod tests;
