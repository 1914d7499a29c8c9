use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use super::FormatFault;
use super::cursor::Cursor;
use super::flat::FlatFile;
use super::graph::{Entry, Graph};
use super::visited::{Visited, VisitedSets};
use crate::backend::Hit;

/// Vectors with a graph over them, in which near ones are found by looking at few.
#[derive(Debug)]
pub struct HnswFile {
    graph: Graph,
    vectors: FlatFile,
    visited: VisitedSets,
}

/// A row that was compared with the query. The larger one is the nearer one; of equally near ones,
/// the lower row.
#[derive(Clone, Copy, Debug)]
struct Compared {
    nearness: f32,
    row: u32,
}

impl HnswFile {
    /// Reads what follows the code of four characters.
    pub(super) fn read(cursor: &mut Cursor) -> Result<Self, FormatFault> {
        let header = cursor.header(None)?;
        let graph = Graph::read(cursor, header.count)?;
        let start = cursor.offset_bytes();
        let vectors = FlatFile::read(cursor.array("kind of vectors")?, cursor)?;
        for (field, found, expected) in [
            ("number of stored vectors", vectors.count(), header.count as usize),
            ("dimension of stored vectors", vectors.dimension(), header.dimension),
            ("metric of stored vectors", vectors.metric() as usize, header.metric as usize),
        ] {
            if found != expected {
                let expected = format!("{expected} as in the graph");
                return Err(FormatFault::value(field, start, found as i128, expected));
            }
        }
        Ok(Self { graph, visited: VisitedSets::new(vectors.count()), vectors })
    }

    /// The vectors themselves.
    pub fn vectors(&self) -> &FlatFile {
        &self.vectors
    }

    /// The `top_k` rows nearest to the query, best first, as faiss finds them at `efSearch = ef`;
    /// `None` once `stop` says so. A score is the inner product, or the negative of the squared
    /// distance. There may be fewer hits, where the graph leads to fewer rows.
    ///
    /// The query must have [`FlatFile::dimension`] numbers.
    pub fn search(
        &self,
        query: &[f32],
        top_k: usize,
        ef: usize,
        stop: &dyn Fn() -> bool,
    ) -> Option<Vec<Hit>> {
        assert_eq!(query.len(), self.vectors.dimension(), "numbers in the query");
        let Some(entry) = self.graph.entry() else { return Some(Vec::new()) };
        let start = self.descend(query, entry, stop)?;
        let capacity = top_k.max(ef);
        let mut found = self
            .visited
            .lend(|visited| self.explore(query, start, (capacity, ef), visited, stop))?;
        found.sort_unstable_by_key(|&one| Reverse(one));
        found.truncate(top_k);
        let hits = found.into_iter().filter(|one| one.nearness.is_finite());
        Some(hits.map(|one| Hit { row: one.row, score: one.nearness }).collect())
    }

    fn compare(&self, query: &[f32], row: u32) -> Compared {
        Compared { nearness: self.vectors.nearness(query, row), row }
    }

    /// Goes from neighbour to nearer neighbour, on each level but the lowest.
    fn descend(&self, query: &[f32], entry: Entry, stop: &dyn Fn() -> bool) -> Option<Compared> {
        let mut nearest = self.compare(query, entry.row);
        for level in (1..=entry.level).rev() {
            loop {
                if stop() {
                    return None;
                }
                let from = nearest;
                for row in self.graph.links(from.row, level) {
                    let found = self.compare(query, row);
                    if found.nearness > nearest.nearness {
                        nearest = found;
                    }
                }
                if nearest.row == from.row {
                    break;
                }
            }
        }
        Some(nearest)
    }

    /// Follows the links of the nearest row that is not yet followed, among the `capacity` nearest
    /// so far, until all of these are followed or `ef` are nearer than the next.
    fn explore(
        &self,
        query: &[f32],
        start: Compared,
        (capacity, ef): (usize, usize),
        visited: &mut Visited,
        stop: &dyn Fn() -> bool,
    ) -> Option<Vec<Compared>> {
        let mut nearest = BinaryHeap::from([Reverse(start)]);
        let mut ahead = BinaryHeap::from([start]);
        visited.insert(start.row);
        while let Some(next) = ahead.pop() {
            if stop() {
                return None;
            }
            let is_full = nearest.len() >= capacity;
            // What was pushed out of the nearest is not followed, nor is anything after it.
            if is_full && nearest.peek().is_some_and(|Reverse(farthest)| next < *farthest) {
                break;
            }
            // With more hits to find than `ef`, the nearest are not the bound.
            let nearer = |one: &&Reverse<Compared>| one.0.nearness > next.nearness;
            if ef < capacity && nearest.iter().filter(nearer).count() >= ef {
                break;
            }
            for row in self.graph.links(next.row, 0).filter(|&row| visited.insert(row)) {
                let found = self.compare(query, row);
                if found.nearness == f32::NEG_INFINITY {
                    continue;
                }
                if nearest.len() < capacity {
                    nearest.push(Reverse(found));
                } else if let Some(mut farthest) = nearest.peek_mut()
                    && found.nearness > farthest.0.nearness
                {
                    *farthest = Reverse(found);
                } else {
                    continue;
                }
                ahead.push(found);
            }
        }
        Some(nearest.into_iter().map(|Reverse(one)| one).collect())
    }
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
