//! The building of a graph over rows.
//!
//! Rows are inserted in batches. First, all rows of a batch search for their neighbours in the graph
//! as it was before the batch, on all threads and without a lock. Then their links are set, list by
//! list. So the graph depends only on rows and settings, not on the threads, and a build that is
//! interrupted between batches and resumed gives the same graph.
//!
//! The rows of a batch do not see each other. Therefore a batch is small compared with the graph, and
//! the rows come in a spread order, because neighbours in the corpus are often neighbours in space.
//!
//! Copies of a row ([`Copies`]) have no links: a search that finds the row has found them.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::growing::GrowingGraph;
use super::search::{Compared, GraphSearch, Workspace, Workspaces};
use super::{Entry, Links};
use crate::processor::fork_join::fork_join;
use crate::vector::copies::{Copies, Flags};
use crate::vector::gather::Scorer;

/// The most rows of a batch.
const BATCH_ROWS_MAX: u32 = 1024;

/// The smallest ratio of the graph's rows to those of a batch.
const ROWS_PER_BATCH_ROW: u32 = 32;

/// The number of items that a thread takes at a time, and that justifies a further thread.
const CHUNK_ITEMS: usize = 8;

/// The number of selected neighbours that one call compares with a candidate.
const COMPARED_AT_A_TIME: usize = 8;

/// The parameters of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildSettings {
    /// The most links of a row on an upper level, and half of those on the lowest: the paper's M.
    pub links: usize,
    /// The `ef` of the search for neighbours: the paper's efConstruction.
    pub ef: usize,
    /// The seed of the rows' levels.
    pub seed: u64,
}

/// A graph under construction.
#[derive(Debug)]
pub struct Builder<'a> {
    scorer: Scorer<'a>,
    settings: BuildSettings,
    graph: GrowingGraph,
    copies: Copies,
    is_copy: Flags,
    inserted: u32,
    workspaces: Workspaces,
    threads: usize,
}

/// The new links of one row.
#[derive(Debug)]
struct NewLinks {
    row: u32,
    /// The neighbours on each level, from the lowest up.
    neighbours: Vec<Vec<u32>>,
}

/// A list of links that gets longer.
#[derive(Clone, Copy, Debug)]
struct LinkList {
    level: usize,
    row: u32,
}

impl<'a> Builder<'a> {
    /// Begins a graph without rows.
    pub fn new(scorer: Scorer<'a>, settings: BuildSettings, threads: usize) -> Self {
        let rows = scorer.rows().count();
        let copies = Copies::find(scorer.rows(), threads);
        let graph = GrowingGraph::new(rows as u32, settings.links, settings.seed);
        Self::resume(scorer, settings, threads, graph, copies)
    }

    /// Resumes at the graph's first rows.
    pub(super) fn resume(
        scorer: Scorer<'a>,
        settings: BuildSettings,
        threads: usize,
        graph: GrowingGraph,
        copies: Copies,
    ) -> Self {
        let workspaces = Workspaces::new(graph.rows() as usize);
        let is_copy = copies.flags(graph.rows());
        Self { scorer, settings, graph, copies, is_copy, inserted: 0, workspaces, threads }
    }

    /// Skips the first `inserted` rows, which the graph holds already.
    pub(super) fn after(self, inserted: u32) -> Self {
        Self { inserted, ..self }
    }

    /// Returns the number of rows in the graph, linked or among the copies.
    pub fn inserted(&self) -> u32 {
        self.inserted
    }

    /// Returns the number of all rows.
    pub fn rows(&self) -> u32 {
        self.graph.rows()
    }

    /// Returns the parameters of the graph.
    pub fn settings(&self) -> BuildSettings {
        self.settings
    }

    pub(super) fn graph(&self) -> &GrowingGraph {
        &self.graph
    }

    pub(super) fn copies(&self) -> &Copies {
        &self.copies
    }

    pub(super) fn scorer(&self) -> &Scorer<'a> {
        &self.scorer
    }

    /// Returns `true` if the row has links of its own once it is inserted.
    pub(super) fn is_linked(&self, row: u32) -> bool {
        !self.is_copy.has(row)
    }

    /// Replaces the links of a row on the lowest level.
    pub(super) fn set_links(&mut self, row: u32, links: &[u32]) {
        self.graph.set_links(row, 0, links);
    }

    /// Lends a workspace to `work`.
    pub(super) fn lend<T>(&self, work: impl FnOnce(&mut Workspace) -> T) -> T {
        self.workspaces.lend(work)
    }

    /// Inserts the next rows. If all rows are in the graph, it makes sure that each can be reached, and
    /// returns `false`.
    pub fn insert_batch(&mut self) -> bool {
        let mut batch = self.next_batch();
        if batch.is_empty() {
            self.connect();
            return false;
        }
        self.inserted += batch.len() as u32;
        batch.retain(|&row| !self.is_copy.has(row));
        let new_links =
            self.in_parallel(batch.len(), |item, workspace| self.plan(batch[item], workspace));
        let mut reverse = Vec::new();
        for NewLinks { row, neighbours } in &new_links {
            for (level, neighbours) in neighbours.iter().enumerate() {
                self.graph.set_links(*row, level, neighbours);
                reverse
                    .extend(neighbours.iter().map(|&other| (LinkList { level, row: other }, *row)));
            }
        }
        reverse.sort_unstable_by_key(|(list, row)| (list.level, list.row, *row));
        let lists: Vec<_> = reverse
            .chunk_by(|(left, _), (right, _)| (left.level, left.row) == (right.level, right.row))
            .collect();
        let links = self.in_parallel(lists.len(), |item, workspace| {
            let added = lists[item].iter().map(|&(_, row)| row);
            self.extend_links(lists[item][0].0, added, workspace)
        });
        for (list, links) in lists.iter().zip(links) {
            let LinkList { level, row } = list[0].0;
            self.graph.set_links(row, level, &links);
        }
        for &row in &batch {
            self.graph.offer_entry(row);
        }
        true
    }

    /// Returns the rows of the next batch. A row with a higher level than all before it forms a batch
    /// alone, so that the rows after it see it.
    fn next_batch(&self) -> Vec<u32> {
        let rows = self.graph.rows();
        let highest = self.graph.entry().map(|entry| entry.level);
        let is_higher = |row: u32| {
            !self.is_copy.has(row) && highest.is_none_or(|highest| self.graph.level(row) > highest)
        };
        let size = (self.inserted / ROWS_PER_BATCH_ROW).clamp(1, BATCH_ROWS_MAX);
        let order = SpreadOrder::new(rows);
        let last = rows.min(self.inserted + size);
        let mut batch: Vec<u32> = (self.inserted..last).map(|index| order.row_at(index)).collect();
        if let Some(position) = batch.iter().position(|&row| is_higher(row)) {
            batch.truncate(position.max(1));
        }
        batch
    }

    /// Searches for the neighbours of a row that is not in the graph yet (algorithm 1 of the paper).
    fn plan(&self, row: u32, workspace: &mut Workspace) -> NewLinks {
        let level = self.graph.level(row);
        let mut neighbours = vec![Vec::new(); level + 1];
        if let Some(entry) = self.graph.entry() {
            let mut query = std::mem::take(&mut workspace.query);
            self.scorer.prepare_row(row, &mut query);
            self.search_neighbours(&query, entry, &mut neighbours, workspace);
            workspace.query = query;
        }
        NewLinks { row, neighbours }
    }

    fn search_neighbours(
        &self,
        query: &[f32],
        entry: Entry,
        neighbours: &mut [Vec<u32>],
        workspace: &mut Workspace,
    ) {
        let search =
            GraphSearch { links: &self.graph, scorer: &self.scorer, query, stop: &|| false };
        let top = neighbours.len().min(entry.level + 1);
        let start = search.start(entry.row, workspace);
        let start = start.and_then(|start| search.descend(start, top..=entry.level, workspace));
        let mut start = start.expect("the entry is a row, and nothing stops the search");
        // From the row's highest level down: the nearest row of a level is the start of the next.
        for level in (0..top).rev() {
            let ef = self.settings.ef;
            let explored = search.explore(start, level, ef, ef, workspace);
            explored.expect("nothing stops the search");
            let nearest: Vec<Compared> = workspace.nearest().collect();
            start = *nearest.first().expect("the start is among the rows that are compared");
            neighbours[level] = self.select(&nearest, self.graph.capacity(level), workspace);
        }
    }

    /// Returns the links of a list together with those added, or the best of them if there are too many.
    fn extend_links(
        &self,
        list: LinkList,
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
        let mut nearest: Vec<Compared> =
            scored.map(|(&row, &nearness)| Compared { nearness, row }).collect();
        nearest.sort_unstable_by(|left, right| right.cmp(left));
        links = self.select(&nearest, capacity, workspace);
        links
    }

    /// Selects up to `limit` of the candidates, which are sorted, nearest first (algorithm 4 of the
    /// paper). A candidate that is nearer to a selected row than to the row itself is left out,
    /// because it can be reached through that row.
    fn select(&self, candidates: &[Compared], limit: usize, workspace: &mut Workspace) -> Vec<u32> {
        let mut chosen: Vec<u32> = Vec::with_capacity(limit);
        let mut numbers = std::mem::take(&mut workspace.row);
        for candidate in candidates {
            if chosen.len() == limit {
                break;
            }
            if !chosen.is_empty() {
                self.scorer.prepare_row(candidate.row, &mut numbers);
            }
            let mut parts = chosen.chunks(COMPARED_AT_A_TIME);
            let is_behind = parts.any(|part| {
                self.scorer.score(&numbers, part, &mut workspace.scores);
                workspace.scores.iter().any(|&nearness| nearness > candidate.nearness)
            });
            if !is_behind {
                chosen.push(candidate.row);
            }
        }
        workspace.row = numbers;
        chosen
    }

    /// Calls `work` for every number below `count`, on all threads, and returns the results in order.
    fn in_parallel<T: Send>(
        &self,
        count: usize,
        work: impl Fn(usize, &mut Workspace) -> T + Sync,
    ) -> Vec<T> {
        let next = AtomicUsize::new(0);
        let threads = self.threads.min(count / CHUNK_ITEMS).max(1);
        let parts = fork_join(0..threads, |_| {
            self.workspaces.lend(|workspace| {
                let mut chunks = Vec::new();
                loop {
                    let first = next.fetch_add(CHUNK_ITEMS, Ordering::Relaxed);
                    if first >= count {
                        return chunks;
                    }
                    let last = count.min(first + CHUNK_ITEMS);
                    let results = (first..last).map(|item| work(item, workspace));
                    chunks.push((first, results.collect::<Vec<T>>()));
                }
            })
        });
        let mut chunks: Vec<_> = parts.into_iter().flatten().collect();
        chunks.sort_unstable_by_key(|(first, _)| *first);
        chunks.into_iter().flat_map(|(_, results)| results).collect()
    }
}

/// An order that visits every row once, with successive rows far from each other. It consists of the
/// multiples of a stride near the golden section of the number of rows. The two have no common
/// divisor.
#[derive(Clone, Copy, Debug)]
struct SpreadOrder {
    rows: u64,
    stride: u64,
}

impl SpreadOrder {
    fn new(rows: u32) -> Self {
        const GOLDEN_SECTION: f64 = 0.618_033_988_749_894_9;
        let rows = u64::from(rows).max(1);
        let from = ((rows as f64 * GOLDEN_SECTION) as u64).max(1);
        let stride = (from..=rows).find(|&stride| divisor(stride, rows) == 1);
        let stride = stride.expect("a number and its predecessor have no common divisor");
        Self { rows, stride }
    }

    fn row_at(self, index: u32) -> u32 {
        (u64::from(index) * self.stride % self.rows) as u32
    }
}

/// Returns the greatest common divisor.
fn divisor(left: u64, right: u64) -> u64 {
    if right == 0 { left } else { divisor(right, left % right) }
}
