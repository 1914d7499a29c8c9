use super::cursor::FieldReader;
use super::flat::FlatFile;
use super::{FormatFault, identified};
use crate::query::Hit;
use crate::vector::hnsw::{self, Check, Graph, GraphSearchSize, Workspaces};

/// Vectors with a graph that leads to the nearest ones while comparing only few.
#[derive(Debug)]
pub struct HnswFile {
    graph: Graph,
    vectors: FlatFile,
    /// The passage row of each vector, if they differ.
    rows: Option<Vec<u32>>,
    workspaces: Workspaces,
}

impl HnswFile {
    /// Reads the fields after the code of four characters.
    pub(super) fn read(cursor: &mut FieldReader) -> Result<Self, FormatFault> {
        let header = cursor.header(None)?;
        let graph = Graph::read(cursor, header.count, Check::Links)?;
        let start = cursor.offset_bytes();
        let vectors = FlatFile::read(cursor.array("kind of vectors")?, cursor)?;
        for (field, stored, expected) in [
            ("number of stored vectors", vectors.count(), header.count as usize),
            ("dimension of stored vectors", vectors.dimension(), header.dimension),
            ("metric of stored vectors", vectors.metric() as usize, header.metric as usize),
        ] {
            if stored != expected {
                let expected = format!("{expected} as in the graph");
                return Err(FormatFault::value(field, start, stored as i128, expected));
            }
        }
        Ok(Self { graph, workspaces: Workspaces::new(vectors.count()), vectors, rows: None })
    }

    /// Gives every vector the passage row that `rows` names.
    pub(super) fn in_order_of(self, rows: Vec<u32>) -> Self {
        let rows = (!identified::is_in_order(&rows)).then_some(rows);
        Self { rows, ..self }
    }

    /// Returns the vectors. If the file has identifiers, they are in the order of the file.
    pub fn vectors(&self) -> &FlatFile {
        &self.vectors
    }

    /// Returns the `top_k` rows nearest to the query, best first, as faiss finds them at
    /// `efSearch = ef`; `None` once `stop` returns `true`. A score is the inner product, or the
    /// negative squared distance. There are fewer hits if the graph leads to fewer rows.
    ///
    /// # Panics
    /// If the query does not have [`FlatFile::dimension`] numbers.
    pub fn search(
        &self,
        query: &[f32],
        size: GraphSearchSize,
        stop: &dyn Fn() -> bool,
    ) -> Option<Vec<Hit>> {
        assert_eq!(query.len(), self.vectors.dimension(), "numbers in the query");
        let scorer = self.vectors.scorer();
        let mut hits = hnsw::nearest(&self.graph, &scorer, &self.workspaces, query, size, stop)?;
        if let Some(rows) = &self.rows {
            for hit in &mut hits {
                hit.row = rows[hit.row as usize];
            }
            hits.sort_by(|one, other| {
                other.score.total_cmp(&one.score).then(one.row.cmp(&other.row))
            });
        }
        Some(hits)
    }
}
