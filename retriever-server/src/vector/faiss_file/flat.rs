use tantivy::directory::OwnedBytes;

use super::cursor::{Cursor, Header};
use super::{FormatFault, Metric, distance};

/// Vectors of one length, row after row.
#[derive(Debug)]
pub struct FlatFile {
    rows: OwnedBytes,
    header: Header,
}

impl FlatFile {
    /// Reads what follows `code`.
    pub(super) fn read(code: [u8; 4], cursor: &mut Cursor) -> Result<Self, FormatFault> {
        let named = match &code {
            b"IxFI" => Some(Metric::InnerProduct),
            b"IxF2" => Some(Metric::L2),
            b"IxFl" => None,
            _ => return Err(FormatFault::kind(code)),
        };
        let header = cursor.header(named)?;
        let numbers = header.dimension as u128 * u128::from(header.count);
        let rows = cursor.exactly("vectors", size_of::<f32>(), numbers)?.bytes;
        Ok(Self { rows, header })
    }

    /// All rows, one after the other: 32-bit floats, little endian, not aligned.
    pub fn rows(&self) -> &[u8] {
        &self.rows
    }

    /// Numbers in a vector.
    pub fn dimension(&self) -> usize {
        self.header.dimension
    }

    /// Number of vectors.
    pub fn count(&self) -> usize {
        self.header.count as usize
    }

    /// How vectors are compared.
    pub fn metric(&self) -> Metric {
        self.header.metric
    }

    /// How near a row is to the query, larger is nearer: the inner product, or the negative of the
    /// squared distance. Negative infinity where that is no finite number, or no such row.
    pub(super) fn nearness(&self, query: &[f32], row: u32) -> f32 {
        let row_bytes = self.dimension() * size_of::<f32>();
        let start = row as usize * row_bytes;
        let Some(row) = self.rows.get(start..start + row_bytes) else {
            return f32::NEG_INFINITY;
        };
        let nearness = match self.metric() {
            Metric::InnerProduct => distance::inner_product(query, row),
            Metric::L2 => -distance::squared(query, row),
        };
        if nearness.is_finite() { nearness } else { f32::NEG_INFINITY }
    }
}
