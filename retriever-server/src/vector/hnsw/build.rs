//! Builds a graph over rows.
//!
//! Rows come in batches: all rows of a batch look for their neighbours in the graph as it was
//! before, on all threads and without a lock, and then their links are set, one list after the
//! other. So the graph depends on rows and settings alone, not on the threads, and one that is
//! interrupted between batches and goes on becomes the same.
//!
//! Rows of a batch do not see each other, for which reason it is a small part of the graph, and
//! rows come in a spread order: neighbours in the corpus are often neighbours in space.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::growing::Growing;
use super::search::{Compared, Search, Workspace, Workspaces};
use super::{Entry, Links};
use crate::vector::gather::Scorer;

/// Rows of a batch at most.
const BATCH_ROWS_MAX: u32 = 1024;

/// How much larger the graph is than a batch that is added to it.
const ROWS_PER_BATCH_ROW: u32 = 32;

/// Items that a thread takes at a time, and fewer than which are worth none of its own.
const CHUNK_ITEMS: usize = 8;

/// Chosen neighbours that a further one is compared with at a time.
const COMPARED_AT_A_TIME: usize = 8;

/// What a graph is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildSettings {
    /// Most links of a row on a level, and half of those on the lowest: the paper's M.
    pub links: usize,
    /// Rows in sight while neighbours are looked for: the paper's efConstruction.
    pub ef: usize,
    /// What the levels of rows are drawn from.
    pub seed: u64,
}

/// A graph that grows.
#[derive(Debug)]
pub struct Builder<'a> {
    scorer: Scorer<'a>,
    settings: BuildSettings,
    graph: Growing,
    inserted: u32,
    workspaces: Workspaces,
    threads: usize,
}

/// New links of one row.
#[derive(Debug)]
struct Planned {
    row: u32,
    /// For each level from the lowest on.
    neighbours: Vec<Vec<u32>>,
}

/// A list that gets longer.
#[derive(Clone, Copy, Debug)]
struct Reverse {
    level: usize,
    row: u32,
}

impl<'a> Builder<'a> {
    /// A graph of none of the rows yet.
    pub fn new(scorer: Scorer<'a>, settings: BuildSettings, threads: usize) -> Self {
        let rows = scorer.rows().count();
        let graph = Growing::new(rows as u32, settings.links, settings.seed);
        Self::resume(scorer, settings, threads, (graph, 0))
    }

    pub(super) fn resume(
        scorer: Scorer<'a>,
        settings: BuildSettings,
        threads: usize,
        (graph, inserted): (Growing, u32),
    ) -> Self {
        let workspaces = Workspaces::new(graph.rows() as usize);
        Self { scorer, settings, graph, inserted, workspaces, threads }
    }

    /// Rows that are in the graph.
    pub fn inserted(&self) -> u32 {
        self.inserted
    }

    /// Rows in all.
    pub fn rows(&self) -> u32 {
        self.graph.rows()
    }

    /// What the graph is like.
    pub fn settings(&self) -> BuildSettings {
        self.settings
    }

    pub(super) fn graph(&self) -> &Growing {
        &self.graph
    }

    /// Adds some rows. False if all are there.
    pub fn insert_batch(&mut self) -> bool {
        let batch = self.next_batch();
        if batch.is_empty() {
            return false;
        }
        let planned =
            self.in_parallel(batch.len(), |place, workspace| self.plan(batch[place], workspace));
        let mut reverse = Vec::new();
        for Planned { row, neighbours } in &planned {
            for (level, neighbours) in neighbours.iter().enumerate() {
                self.graph.set_links(*row, level, neighbours);
                reverse
                    .extend(neighbours.iter().map(|&other| (Reverse { level, row: other }, *row)));
            }
        }
        reverse.sort_unstable_by_key(|(list, row)| (list.level, list.row, *row));
        let lists: Vec<_> = reverse
            .chunk_by(|(one, _), (other, _)| (one.level, one.row) == (other.level, other.row))
            .collect();
        let links = self.in_parallel(lists.len(), |place, workspace| {
            let added = lists[place].iter().map(|&(_, row)| row);
            self.lengthen(lists[place][0].0, added, workspace)
        });
        for (list, links) in lists.iter().zip(links) {
            let Reverse { level, row } = list[0].0;
            self.graph.set_links(row, level, &links);
        }
        for &row in &batch {
            self.graph.offer_entry(row);
        }
        self.inserted += batch.len() as u32;
        true
    }

    /// The rows that come next. One that lives higher than all before comes alone, so that those
    /// after it find it.
    fn next_batch(&self) -> Vec<u32> {
        let rows = self.graph.rows();
        let highest = self.graph.entry().map(|entry| entry.level);
        let is_higher = |row: u32| highest.is_none_or(|highest| self.graph.level(row) > highest);
        let size = (self.inserted / ROWS_PER_BATCH_ROW).clamp(1, BATCH_ROWS_MAX);
        let order = SpreadOrder::of(rows);
        let last = rows.min(self.inserted + size);
        let mut batch: Vec<u32> = (self.inserted..last).map(|place| order.row_at(place)).collect();
        if let Some(place) = batch.iter().position(|&row| is_higher(row)) {
            batch.truncate(place.max(1));
        }
        batch
    }

    /// Finds the neighbours of a row that is not in the graph yet (algorithm 1 of the paper).
    fn plan(&self, row: u32, workspace: &mut Workspace) -> Planned {
        let level = self.graph.level(row);
        let mut neighbours = vec![Vec::new(); level + 1];
        if let Some(entry) = self.graph.entry() {
            let mut query = std::mem::take(&mut workspace.query);
            self.scorer.prepare_row(row, &mut query);
            self.look_around(&query, entry, &mut neighbours, workspace);
            workspace.query = query;
        }
        Planned { row, neighbours }
    }

    fn look_around(
        &self,
        query: &[f32],
        entry: Entry,
        neighbours: &mut [Vec<u32>],
        workspace: &mut Workspace,
    ) {
        let search = Search { links: &self.graph, scorer: &self.scorer, query, stop: &|| false };
        let top = neighbours.len().min(entry.level + 1);
        let start = search.start(entry.row, workspace);
        let start = start.and_then(|start| search.descend(start, top..=entry.level, workspace));
        let Some(mut start) = start else { return };
        for level in (0..top).rev() {
            let ef = self.settings.ef;
            if search.explore(start, level, (ef, ef), workspace).is_none() {
                return;
            }
            let found: Vec<Compared> = workspace.found().collect();
            start = found.first().copied().unwrap_or(start);
            neighbours[level] = self.select(&found, self.graph.capacity(level), workspace);
        }
    }

    /// The links of a list with those added, or the best of them if they are too many.
    fn lengthen(
        &self,
        list: Reverse,
        added: impl Iterator<Item = u32>,
        workspace: &mut Workspace,
    ) -> Vec<u32> {
        let mut links: Vec<u32> = self.graph.links(list.row, list.level).chain(added).collect();
        let capacity = self.graph.capacity(list.level);
        if links.len() <= capacity {
            return links;
        }
        let mut query = std::mem::take(&mut workspace.query);
        self.scorer.prepare_row(list.row, &mut query);
        self.scorer.score(&query, &links, &mut workspace.scores);
        workspace.query = query;
        let scored = links.iter().zip(&workspace.scores);
        let mut found: Vec<Compared> =
            scored.map(|(&row, &nearness)| Compared { nearness, row }).collect();
        found.sort_unstable_by(|one, other| other.cmp(one));
        links = self.select(&found, capacity, workspace);
        links
    }

    /// Up to `limit` of the rows found, the nearest first, without those that are nearer to one
    /// chosen before than to the row itself (algorithm 4 of the paper): they can be reached by
    /// that one.
    fn select(&self, found: &[Compared], limit: usize, workspace: &mut Workspace) -> Vec<u32> {
        let mut chosen: Vec<u32> = Vec::with_capacity(limit);
        let mut numbers = std::mem::take(&mut workspace.row);
        for one in found {
            if chosen.len() == limit {
                break;
            }
            if !chosen.is_empty() {
                self.scorer.prepare_row(one.row, &mut numbers);
            }
            let mut parts = chosen.chunks(COMPARED_AT_A_TIME);
            let is_behind = parts.any(|part| {
                self.scorer.score(&numbers, part, &mut workspace.scores);
                workspace.scores.iter().any(|&nearness| nearness > one.nearness)
            });
            if !is_behind {
                chosen.push(one.row);
            }
        }
        workspace.row = numbers;
        chosen
    }

    /// Does `work` for every number below `count`, on all threads, and returns the results in
    /// order.
    fn in_parallel<T: Send>(
        &self,
        count: usize,
        work: impl Fn(usize, &mut Workspace) -> T + Sync,
    ) -> Vec<T> {
        let next = AtomicUsize::new(0);
        let take_part = || {
            self.workspaces.lend(|workspace| {
                let mut done = Vec::new();
                loop {
                    let first = next.fetch_add(CHUNK_ITEMS, Ordering::Relaxed);
                    if first >= count {
                        return done;
                    }
                    let last = count.min(first + CHUNK_ITEMS);
                    let results = (first..last).map(|item| work(item, workspace));
                    done.push((first, results.collect::<Vec<T>>()));
                }
            })
        };
        let threads = self.threads.min(count / CHUNK_ITEMS).max(1);
        let mut parts = thread::scope(|scope| {
            // A thread that does not start leaves its items to the others.
            let others: Vec<_> = (1..threads)
                .filter_map(|_| thread::Builder::new().spawn_scoped(scope, take_part).ok())
                .collect();
            let mut parts = take_part();
            for other in others {
                parts.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
            }
            parts
        });
        parts.sort_unstable_by_key(|(first, _)| *first);
        parts.into_iter().flat_map(|(_, results)| results).collect()
    }
}

/// Every row once, those that come one after the other far from each other: multiples of a number
/// without a common divisor with the number of rows, near its golden section.
#[derive(Clone, Copy, Debug)]
struct SpreadOrder {
    rows: u64,
    stride: u64,
}

impl SpreadOrder {
    fn of(rows: u32) -> Self {
        const GOLDEN_SECTION: f64 = 0.618_033_988_749_894_9;
        let rows = u64::from(rows).max(1);
        let from = ((rows as f64 * GOLDEN_SECTION) as u64).max(1);
        let stride = (from..=rows).find(|&stride| divisor(stride, rows) == 1).unwrap_or(1);
        Self { rows, stride }
    }

    fn row_at(self, place: u32) -> u32 {
        (u64::from(place) * self.stride % self.rows) as u32
    }
}

/// The greatest common divisor.
fn divisor(one: u64, other: u64) -> u64 {
    if other == 0 { one } else { divisor(other, one % other) }
}
