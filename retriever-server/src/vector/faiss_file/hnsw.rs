use super::FormatFault;
use super::cursor::Cursor;
use super::flat::FlatFile;
use crate::query::Hit;
use crate::vector::hnsw::{self, Check, Graph, Workspaces};

/// Vectors with a graph over them, in which near ones are found by looking at few.
#[derive(Debug)]
pub struct HnswFile {
    graph: Graph,
    vectors: FlatFile,
    workspaces: Workspaces,
}

impl HnswFile {
    /// Reads what follows the code of four characters.
    pub(super) fn read(cursor: &mut Cursor) -> Result<Self, FormatFault> {
        let header = cursor.header(None)?;
        let graph = Graph::read(cursor, header.count, Check::Links)?;
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
        Ok(Self { graph, workspaces: Workspaces::new(vectors.count()), vectors })
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
        let scorer = self.vectors.scorer();
        hnsw::nearest((&self.graph, &scorer, &self.workspaces), query, top_k, ef, stop)
    }
}
