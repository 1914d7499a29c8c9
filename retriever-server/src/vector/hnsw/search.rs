//! Following links to ever nearer rows.

use std::cmp::Ordering;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use super::Links;
use super::visited::Visited;
use crate::vector::gather::{self, Scorer};

/// A row that was compared with the query. The larger one is the nearer one; of equally near ones,
/// the lower row.
#[derive(Clone, Copy, Debug)]
pub(in crate::vector) struct Compared {
    pub(in crate::vector) nearness: f32,
    pub(in crate::vector) row: u32,
}

/// One of the nearest rows so far.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    compared: Compared,
    /// Whether its links were followed.
    is_followed: bool,
}

/// What a search works with, kept from one to the next.
#[derive(Debug, Default)]
pub(in crate::vector) struct Workspace {
    visited: Visited,
    /// The nearest rows so far, best first.
    nearest: Vec<Candidate>,
    rows: Vec<u32>,
    pub(super) scores: Vec<f32>,
    /// The query as it was prepared.
    pub(super) query: Vec<f32>,
    /// A row that is compared with others.
    pub(super) row: Vec<f32>,
}

impl Workspace {
    pub(super) fn new(rows: usize) -> Self {
        Self { visited: Visited::new(rows), ..Self::default() }
    }

    /// What the last search found, best first.
    pub(super) fn found(&self) -> impl Iterator<Item = Compared> {
        self.nearest.iter().map(|candidate| candidate.compared)
    }
}

/// Workspaces for graphs of `rows` rows, as many as there were searches at once.
#[derive(Debug)]
pub(in crate::vector) struct Workspaces {
    idle: Mutex<Vec<Workspace>>,
    rows: usize,
}

impl Workspaces {
    pub(in crate::vector) fn new(rows: usize) -> Self {
        Self { idle: Mutex::default(), rows }
    }

    /// Lends one to `search`.
    pub(in crate::vector) fn lend<T>(&self, search: impl FnOnce(&mut Workspace) -> T) -> T {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut workspace = idle.unwrap_or_else(|| Workspace::new(self.rows));
        let found = search(&mut workspace);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(workspace);
        found
    }
}

/// One query's way through a graph.
pub(in crate::vector) struct Search<'a, L> {
    pub(in crate::vector) links: &'a L,
    pub(in crate::vector) scorer: &'a Scorer<'a>,
    /// Prepared by the scorer.
    pub(in crate::vector) query: &'a [f32],
    /// Asked before the links of a row are followed.
    pub(in crate::vector) stop: &'a dyn Fn() -> bool,
}

impl<L: Links> Search<'_, L> {
    /// The row where the search starts; `None` if there is no such row.
    pub(super) fn start(&self, row: u32, workspace: &mut Workspace) -> Option<Compared> {
        if row as usize >= self.scorer.rows().count() {
            return None;
        }
        self.scorer.score(self.query, &[row], &mut workspace.scores);
        let nearness = workspace.scores.first().copied()?;
        Some(Compared { nearness, row })
    }

    /// Goes from neighbour to nearer neighbour on each of `levels`, the highest first. `None` once
    /// told to stop.
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

    /// Follows the links of the nearest row that is not yet followed, among the `capacity` nearest
    /// so far, until all of these are followed or `ef` are nearer than the next. `None` once told
    /// to stop; else what was found is in the workspace.
    ///
    /// The nearest are kept in order: to put a row in its place moves those after it, which for
    /// some hundreds takes less time than a heap.
    pub(super) fn explore(
        &self,
        start: Compared,
        level: usize,
        (capacity, ef): (usize, usize),
        workspace: &mut Workspace,
    ) -> Option<()> {
        let Workspace { visited, nearest, rows, scores, .. } = workspace;
        visited.clear();
        visited.insert(start.row);
        nearest.clear();
        nearest.push(Candidate { compared: start, is_followed: false });
        let mut place = 0;
        // With more hits to find than `ef`, the nearest are not the bound.
        while let Some(next) = nearest.get_mut(place).filter(|_| place < ef) {
            if next.is_followed {
                place += 1;
                continue;
            }
            if (self.stop)() {
                return None;
            }
            next.is_followed = true;
            let row = next.compared.row;
            if let Some(after) = nearest[place..].iter().find(|one| !one.is_followed) {
                // Most often the next one, unless a nearer row comes up now.
                gather::prefetch(self.links.slots(after.compared.row, level).as_flattened());
            }
            rows.clear();
            rows.extend(self.links.links(row, level).filter(|&row| visited.insert(row)));
            self.scorer.score(self.query, rows, scores);
            place += 1;
            for (&row, &nearness) in rows.iter().zip(scores.iter()) {
                let found = Compared { nearness, row };
                place = place.min(offer(nearest, capacity, found));
            }
        }
        Some(())
    }
}

/// Puts the row in its place if it is nearer than the farthest. Returns where; past the end if not.
fn offer(nearest: &mut Vec<Candidate>, capacity: usize, found: Compared) -> usize {
    if found.nearness == f32::NEG_INFINITY {
        return usize::MAX;
    }
    if nearest.len() >= capacity {
        let is_nearer = |farthest: &Candidate| found.nearness > farthest.compared.nearness;
        if !nearest.last().is_some_and(is_nearer) {
            return usize::MAX;
        }
        nearest.pop();
    }
    let place = nearest.partition_point(|one| one.compared > found);
    nearest.insert(place, Candidate { compared: found, is_followed: false });
    place
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
