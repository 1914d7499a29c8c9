//! Graphs that lead to the nearest rows while comparing only few: hierarchical navigable small worlds
//! (Malkov & Yashunin, IEEE TPAMI 42(4), 2020). `build` makes a graph over rows, `file` stores it, and
//! `search` follows its links, or those in files of faiss.
//!
//! A graph consists of links alone. The rows belong to the caller, and may be in any format.

mod build;
mod connect;
mod file;
mod graph;
mod growing;
mod search;
mod visited;

#[cfg(test)]
mod tests;

pub use build::{BuildSettings, Builder};
pub use file::GraphFile;
pub(super) use graph::{Check, Graph};
pub(super) use search::Workspaces;

use search::{Compared, GraphSearch};

use super::gather::Scorer;
use crate::query::Hit;

/// The value of a slot without a link, and the entry of an empty graph.
const NONE: i32 = -1;

/// The bytes of a slot for a link.
const SLOT_BYTES: usize = size_of::<i32>();

/// The row where a search starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) row: u32,
    /// The highest level that has links.
    pub(super) level: usize,
}

/// Links between rows on levels.
pub(super) trait Links {
    /// Returns the row where a search starts; `None` in an empty graph.
    fn entry(&self) -> Option<Entry>;

    /// Returns the slots for links of `row` on `level`, as little-endian 32-bit integers. The first
    /// negative slot ends the links. The result is empty if there is no such row or level.
    fn slots(&self, row: u32, level: usize) -> &[[u8; SLOT_BYTES]];

    /// Returns the rows that `row` links to on `level`.
    fn links(&self, row: u32, level: usize) -> impl Iterator<Item = u32> {
        let slots = self.slots(row, level).iter();
        slots.map_while(|slot| u32::try_from(i32::from_le_bytes(*slot)).ok())
    }
}

/// The size of a search along a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GraphSearchSize {
    /// The most hits to return.
    pub top_k: usize,
    /// The number of nearest rows whose links are followed: the paper's ef.
    pub ef: usize,
}

/// Returns the `top_k` rows nearest to the query, best first; `None` once `stop` returns `true`. A
/// score is the inner product, or the negative squared distance, and is finite. There are fewer hits
/// if the graph leads to fewer rows.
pub(super) fn nearest(
    links: &impl Links,
    scorer: &Scorer<'_>,
    workspaces: &Workspaces,
    query: &[f32],
    size: GraphSearchSize,
    stop: &dyn Fn() -> bool,
) -> Option<Vec<Hit>> {
    let GraphSearchSize { top_k, ef } = size;
    let Some(entry) = links.entry() else { return Some(Vec::new()) };
    workspaces.lend(|workspace| {
        let mut prepared = std::mem::take(&mut workspace.query);
        scorer.prepare(query, &mut prepared);
        let search = GraphSearch { links, scorer, query: &prepared, stop };
        let explored = search.start(entry.row, workspace).and_then(|start| {
            let start = search.descend(start, 1..=entry.level, workspace)?;
            search.explore(start, 0, top_k.max(ef), ef, workspace)
        });
        workspace.query = prepared;
        explored?;
        let nearest = workspace.nearest().take(top_k).filter(|row| row.nearness.is_finite());
        Some(nearest.map(|Compared { row, nearness }| Hit { row, score: nearness }).collect())
    })
}
