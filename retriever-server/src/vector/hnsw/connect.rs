//! The last step of a build: every row can be reached from the entry, and every row leads back to it.
//!
//! A row can lose all links that lead to it when the lists of its neighbours are full of better ones. A
//! group of rows that are near each other can lose all links that lead out. Both are rare and concern
//! few rows, so the rows concerned get one link each, in the place of the least useful one.

use super::build::Builder;
use super::search::{Compared, GraphSearch, Workspace};
use super::{Entry, Links};

/// The mark of a row that nothing leads to.
const UNREACHED: u32 = u32::MAX;

/// The most times that all rows are looked at to find those that lead to the entry.
const SWEEPS_MAX: usize = 64;

impl Builder<'_> {
    /// Links rows until each can be reached from the entry and leads back to it on the lowest level.
    /// The result depends on the graph alone. A connected graph does not change.
    pub(super) fn connect(&mut self) {
        let Some(entry) = self.graph().entry() else { return };
        let mut parents = vec![UNREACHED; self.rows() as usize];
        parents[entry.row as usize] = entry.row;
        self.reach(entry.row, &mut parents);
        let linked: Vec<u32> = (0..self.rows()).filter(|&row| self.is_linked(row)).collect();
        for &row in &linked {
            if parents[row as usize] == UNREACHED {
                let from = self.link_to(row, entry, &parents);
                parents[row as usize] = from;
                self.reach(row, &mut parents);
            }
        }
        let mut leading = vec![false; self.rows() as usize];
        leading[entry.row as usize] = true;
        let mut rest = linked;
        loop {
            self.sweep(&mut rest, &mut leading);
            // If all links of one row are the only ways to others, one of those others has a place.
            let leads_out = rest.clone().into_iter().find(|&row| {
                let near = self.nearest_of(row, entry, |other| leading[other as usize]);
                self.add_link(row, near[0], &parents)
            });
            let Some(row) = leads_out else { return };
            leading[row as usize] = true;
        }
    }

    /// Marks all rows that `start` leads to and that were not reached before, each with the row before
    /// it on the way.
    fn reach(&self, start: u32, parents: &mut [u32]) {
        let mut waiting = vec![start];
        while let Some(row) = waiting.pop() {
            for other in self.graph().links(row, 0) {
                let parent = &mut parents[other as usize];
                if *parent == UNREACHED {
                    *parent = row;
                    waiting.push(other);
                }
            }
        }
    }

    /// Adds a link to `row` from the nearest reached row that can have one. Returns that row.
    fn link_to(&mut self, row: u32, entry: Entry, parents: &[u32]) -> u32 {
        let near = self.nearest_of(row, entry, |other| parents[other as usize] != UNREACHED);
        let near = near.into_iter().find(|&from| self.add_link(from, row, parents));
        near.unwrap_or_else(|| {
            // All links of the rows near by are the only ways to other rows. At the end of such a way is
            // a row without one, which has a place.
            let mut from = entry.row;
            while !self.add_link(from, row, parents) {
                from = self.graph().links(from, 0).next().expect("a full list has links");
            }
            from
        })
    }

    /// Adds a link on the lowest level, in the place of another if there are too many. Returns `false`
    /// if each of them is the way by which a row was reached.
    fn add_link(&mut self, from: u32, to: u32, parents: &[u32]) -> bool {
        let mut links: Vec<u32> = self.graph().links(from, 0).collect();
        let spare = links.iter().rposition(|&other| parents[other as usize] != from);
        match spare {
            _ if links.len() < self.graph().capacity(0) => links.push(to),
            Some(position) => links[position] = to,
            None => return false,
        }
        self.set_links(from, &links);
        true
    }

    /// Removes the rows that lead to the entry from `rest`, and marks them.
    fn sweep(&self, rest: &mut Vec<u32>, leading: &mut [bool]) {
        for _ in 0..SWEEPS_MAX {
            let before = rest.len();
            rest.retain(|&row| {
                let leads = leading[row as usize]
                    || self.graph().links(row, 0).any(|other| leading[other as usize]);
                leading[row as usize] = leads;
                !leads
            });
            if rest.len() == before {
                return;
            }
        }
    }

    /// Returns the rows near `row` that fit, nearest first; the entry if the search finds none.
    fn nearest_of(&self, row: u32, entry: Entry, fits: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut near = self.lend(|workspace| self.near(row, entry, workspace));
        near.retain(|&other| other != row && fits(other));
        if near.is_empty() { vec![entry.row] } else { near }
    }

    fn near(&self, row: u32, entry: Entry, workspace: &mut Workspace) -> Vec<u32> {
        let mut query = std::mem::take(&mut workspace.query);
        self.scorer().prepare_row(row, &mut query);
        let (links, scorer) = (self.graph(), self.scorer());
        let search = GraphSearch { links, scorer, query: &query, stop: &|| false };
        let ef = self.settings().ef;
        let mut near: Vec<Compared> = Vec::new();
        // From the entry itself, and from the nearest row above the lowest level.
        let start = search.start(entry.row, workspace).expect("the entry is a row");
        let lower = search.descend(start, 1..=entry.level, workspace);
        for start in [start, lower.expect("nothing stops the search")] {
            search.explore(start, 0, ef, ef, workspace).expect("nothing stops the search");
            near.extend(workspace.nearest());
        }
        workspace.query = query;
        near.sort_unstable_by(|one, other| other.cmp(one));
        near.dedup();
        near.into_iter().map(|compared| compared.row).collect()
    }
}
