//! Graphs that lead to near rows by looking at few: hierarchical navigable small worlds (Malkov &
//! Yashunin, IEEE TPAMI 42(4), 2020). `build` makes one over rows, `file` keeps it, and `search`
//! follows it, as it follows the graphs in files of faiss.
//!
//! A graph is links alone: the rows are somebody else's, and may be searched in any format.

mod build;
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

use search::Search;

use super::gather::Scorer;
use crate::query::Hit;

/// What stands in a slot without a link, and for the entry of an empty graph.
const NONE: i32 = -1;

/// Bytes of a slot for a link.
const SLOT_BYTES: usize = size_of::<i32>();

/// Where a search starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) row: u32,
    /// The highest level that has links.
    pub(super) level: usize,
}

/// Links between rows on levels.
pub(super) trait Links {
    /// Where a search starts; nowhere in an empty graph.
    fn entry(&self) -> Option<Entry>;

    /// The slots for links of `row` on `level`, as little-endian 32-bit integers; the first
    /// negative one ends the links. Empty where there is no such row or level.
    fn slots(&self, row: u32, level: usize) -> &[[u8; SLOT_BYTES]];

    /// The rows that `row` leads to on `level`.
    fn links(&self, row: u32, level: usize) -> impl Iterator<Item = u32> {
        let slots = self.slots(row, level).iter();
        slots.map_while(|slot| u32::try_from(i32::from_le_bytes(*slot)).ok())
    }
}

/// The `top_k` rows nearest to the query, best first, with `ef` rows kept in sight; `None` once
/// `stop` says so. A score is the inner product, or the negative of the squared distance, and
/// finite. There may be fewer hits, where the graph leads to fewer rows.
pub(super) fn nearest(
    (links, scorer, workspaces): (&impl Links, &Scorer<'_>, &Workspaces),
    query: &[f32],
    top_k: usize,
    ef: usize,
    stop: &dyn Fn() -> bool,
) -> Option<Vec<Hit>> {
    let Some(entry) = links.entry() else { return Some(Vec::new()) };
    workspaces.lend(|workspace| {
        let mut prepared = std::mem::take(&mut workspace.query);
        scorer.prepare(query, &mut prepared);
        let search = Search { links, scorer, query: &prepared, stop };
        let found = search.start(entry.row, workspace).and_then(|start| {
            let start = search.descend(start, 1..=entry.level, workspace)?;
            search.explore(start, 0, (top_k.max(ef), ef), workspace)
        });
        workspace.query = prepared;
        found?;
        let hits = workspace.found().take(top_k).filter(|one| one.nearness.is_finite());
        Some(hits.map(|one| Hit { row: one.row, score: one.nearness }).collect())
    })
}
