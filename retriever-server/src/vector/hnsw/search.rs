//! The search along links to ever nearer rows.

use std::cmp::Ordering;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use super::Links;
use super::visited::Visited;
use crate::vector::gather::{self, Scorer};

/// A row that was compared with the query. The nearer row is greater; of equally near rows, the lower
/// row is.
#[derive(Clone, Copy, Debug)]
pub(in crate::vector) struct Compared {
    pub(in crate::vector) nearness: f32,
    pub(in crate::vector) row: u32,
}

/// One of the nearest rows so far.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    compared: Compared,
    /// `true` if its links have been followed.
    is_followed: bool,
}

/// The buffers of a search, which are reused by the next.
#[derive(Debug, Default)]
pub(in crate::vector) struct Workspace {
    visited: Visited,
    /// The nearest rows so far, best first.
    nearest: Vec<Candidate>,
    rows: Vec<u32>,
    pub(super) scores: Vec<f32>,
    /// The prepared query.
    pub(super) query: Vec<f32>,
    /// A prepared row that is compared with others.
    pub(super) row: Vec<f32>,
}

impl Workspace {
    pub(super) fn new(rows: usize) -> Self {
        Self { visited: Visited::new(rows), ..Self::default() }
    }

    /// Returns the nearest rows of the last search, best first.
    pub(super) fn nearest(&self) -> impl Iterator<Item = Compared> {
        self.nearest.iter().map(|candidate| candidate.compared)
    }
}

/// Workspaces for graphs of `rows` rows, as many as there have been concurrent searches.
#[derive(Debug)]
pub(in crate::vector) struct Workspaces {
    idle: Mutex<Vec<Workspace>>,
    rows: usize,
}

impl Workspaces {
    pub(in crate::vector) fn new(rows: usize) -> Self {
        Self { idle: Mutex::default(), rows }
    }

    /// Lends a workspace to `search`.
    pub(in crate::vector) fn lend<T>(&self, search: impl FnOnce(&mut Workspace) -> T) -> T {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut workspace = idle.unwrap_or_else(|| Workspace::new(self.rows));
        let result = search(&mut workspace);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(workspace);
        result
    }
}

/// The search of one query in a graph.
pub(in crate::vector) struct GraphSearch<'a, L> {
    pub(in crate::vector) links: &'a L,
    pub(in crate::vector) scorer: &'a Scorer<'a>,
    /// The query, prepared by the scorer.
    pub(in crate::vector) query: &'a [f32],
    /// Called before the links of a row are followed.
    pub(in crate::vector) stop: &'a dyn Fn() -> bool,
}

impl<L: Links> GraphSearch<'_, L> {
    /// Compares the row where the search starts; returns `None` if there is no such row.
    pub(super) fn start(&self, row: u32, workspace: &mut Workspace) -> Option<Compared> {
        if row as usize >= self.scorer.rows().count() {
            return None;
        }
        self.scorer.score(self.query, &[row], &mut workspace.scores);
        Some(Compared { nearness: workspace.scores[0], row })
    }

    /// Moves to the nearest neighbour as long as one is nearer, on each of `levels` from the highest
    /// down. Returns the last row; `None` once `stop` returns `true`.
    pub(super) fn descend(
        &self,
        start: Compared,
        levels: RangeInclusive<usize>,
        workspace: &mut Workspace,
    ) -> Option<Compared> {
        let count = self.scorer.rows().count();
        let Workspace { rows, scores, .. } = workspace;
        let mut nearest = start;
        for level in levels.rev() {
            // Compares all neighbours of the current row in one call, so that their rows are fetched
            // together, and moves to the nearest; ends where none is nearer.
            loop {
                if (self.stop)() {
                    return None;
                }
                let from = nearest.row;
                rows.clear();
                rows.extend(self.links.links(from, level).filter(|&row| (row as usize) < count));
                self.scorer.score(self.query, rows, scores);
                for (&row, &nearness) in rows.iter().zip(scores.iter()) {
                    if nearness > nearest.nearness {
                        nearest = Compared { nearness, row };
                    }
                }
                if nearest.row == from {
                    break;
                }
            }
        }
        Some(nearest)
    }

    /// Explores a level. Of the `capacity` nearest rows so far, it repeatedly follows the links of the
    /// nearest one whose links have not been followed, until there is none among the first `ef`.
    /// The nearest rows are then in the workspace. Returns `None` once `stop` returns `true`.
    ///
    /// The nearest rows are kept in a sorted list. Inserting a row moves those after it, which for
    /// some hundreds of rows takes less time than a heap.
    pub(super) fn explore(
        &self,
        start: Compared,
        level: usize,
        capacity: usize,
        ef: usize,
        workspace: &mut Workspace,
    ) -> Option<()> {
        let Workspace { visited, nearest, rows, scores, .. } = workspace;
        visited.clear();
        visited.insert(start.row);
        nearest.clear();
        nearest.push(Candidate { compared: start, is_followed: false });
        // Over the sorted list. All rows before `position` have been followed, so it moves back only
        // when a nearer row is inserted. `capacity` may exceed `ef` if more hits are requested, and
        // the rows past `ef` are not followed.
        let mut position = 0;
        while let Some(next) = nearest.get_mut(position).filter(|_| position < ef) {
            if next.is_followed {
                position += 1;
                continue;
            }
            if (self.stop)() {
                return None;
            }
            next.is_followed = true;
            let row = next.compared.row;
            if let Some(after) = nearest[position..].iter().find(|row| !row.is_followed) {
                // Usually the links of this row are needed next, unless a nearer row appears now.
                gather::prefetch(self.links.slots(after.compared.row, level).as_flattened());
            }
            // Compares all new neighbours in one call, so that the rows of a block are fetched while
            // the block before is compared, and only then inserts them.
            rows.clear();
            rows.extend(self.links.links(row, level).filter(|&row| visited.insert(row)));
            self.scorer.score(self.query, rows, scores);
            position += 1;
            for (&row, &nearness) in rows.iter().zip(scores.iter()) {
                position = position.min(offer(nearest, capacity, Compared { nearness, row }));
            }
        }
        Some(())
    }
}

/// Inserts the row into the sorted list if it is nearer than the farthest, or if the list is not full.
/// Returns its position, or `usize::MAX` if it was not inserted.
fn offer(nearest: &mut Vec<Candidate>, capacity: usize, compared: Compared) -> usize {
    if compared.nearness == f32::NEG_INFINITY {
        return usize::MAX;
    }
    if nearest.len() >= capacity {
        let is_nearer = |farthest: &Candidate| compared.nearness > farthest.compared.nearness;
        if !nearest.last().is_some_and(is_nearer) {
            return usize::MAX;
        }
        nearest.pop();
    }
    let position = nearest.partition_point(|candidate| candidate.compared > compared);
    nearest.insert(position, Candidate { compared, is_followed: false });
    position
}

impl Ord for Compared {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nearness.total_cmp(&other.nearness).then(other.row.cmp(&self.row))
    }
}

impl PartialOrd for Compared {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Compared {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Compared {}
