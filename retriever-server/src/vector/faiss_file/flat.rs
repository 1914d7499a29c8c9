use tantivy::directory::OwnedBytes;

use super::cursor::{FieldReader, Header};
use super::{FormatFault, Metric};
use crate::vector::gather::Scorer;
use crate::vector::rows::{DIMENSION_MAX, RowFormat, Rows};

/// Vectors of one dimension, row after row.
#[derive(Debug)]
pub struct FlatFile {
    rows: OwnedBytes,
    header: Header,
}

impl FlatFile {
    /// Reads the fields after `code`.
    pub(super) fn read(code: [u8; 4], cursor: &mut FieldReader) -> Result<Self, FormatFault> {
        let named = match &code {
            b"IxFI" => Some(Metric::InnerProduct),
            b"IxF2" => Some(Metric::L2),
            b"IxFl" => None,
            _ => return Err(FormatFault::kind(code)),
        };
        let offset_bytes = cursor.offset_bytes();
        let header = cursor.header(named)?;
        let numbers = header.dimension as u128 * u128::from(header.count);
        let rows = cursor.exactly("vectors", size_of::<f32>(), numbers)?.bytes;
        if header.dimension > DIMENSION_MAX {
            let expected = format!("1 to {DIMENSION_MAX}");
            let dimension = header.dimension as i128;
            return Err(FormatFault::value("dimension", offset_bytes, dimension, expected));
        }
        Ok(Self { rows, header })
    }

    /// Returns the bytes of all rows: 32-bit floats, little endian, not aligned.
    pub fn rows(&self) -> &[u8] {
        &self.rows
    }

    /// Returns the dimension of a vector.
    pub fn dimension(&self) -> usize {
        self.header.dimension
    }

    /// Returns the number of vectors.
    pub fn count(&self) -> usize {
        self.header.count as usize
    }

    /// Returns the metric that compares vectors.
    pub fn metric(&self) -> Metric {
        self.header.metric
    }

    /// Returns a scorer that compares queries with the rows.
    pub(super) fn scorer(&self) -> Scorer<'_> {
        Scorer::new(self.table(), self.metric())
    }

    /// Returns the rows for a search.
    pub fn table(&self) -> Rows<'_> {
        Rows::new(&self.rows, RowFormat::F32, self.dimension())
            .expect("reading the file checked the dimension, the number of rows and their bytes")
    }
}
