use tantivy::directory::OwnedBytes;

use super::cursor::{FieldReader, Header};
use super::{FormatFault, Metric, identified, quantised};
use crate::vector::gather::Scorer;
use crate::vector::rows::{DIMENSION_MAX, RowFormat, Rows};

/// Vectors of one dimension, row after row.
#[derive(Debug)]
pub struct FlatFile {
    rows: OwnedBytes,
    format: RowFormat,
    header: Header,
    notes: Vec<String>,
}

impl FlatFile {
    /// Reads the fields after `code`: vectors as they are, or those of a scalar quantiser.
    pub(super) fn read(code: [u8; 4], cursor: &mut FieldReader) -> Result<Self, FormatFault> {
        let named = match &code {
            b"IxFI" => Some(Metric::InnerProduct),
            b"IxF2" => Some(Metric::L2),
            b"IxFl" => None,
            b"IxSQ" => {
                let header = cursor.header(None)?;
                return quantised::read(cursor, header);
            }
            _ => return Err(FormatFault::kind(code)),
        };
        let header = cursor.header(named)?;
        let numbers = header.dimension as u128 * u128::from(header.count);
        let rows = cursor.exactly("vectors", size_of::<f32>(), numbers)?.bytes;
        Self::new(rows, RowFormat::F32, header)
    }

    /// Makes a table of rows, whose bytes must fit `header`.
    pub(super) fn new(
        rows: OwnedBytes,
        format: RowFormat,
        header: Header,
    ) -> Result<Self, FormatFault> {
        if !(1..=DIMENSION_MAX).contains(&header.dimension) {
            let expected = format!("1 to {DIMENSION_MAX}");
            let (offset_bytes, dimension) = (size_of::<[u8; 4]>(), header.dimension as i128);
            return Err(FormatFault::value("dimension", offset_bytes, dimension, expected));
        }
        Ok(Self { rows, format, header, notes: Vec::new() })
    }

    /// Adds a remark about the reading of the file.
    pub(super) fn with_note(mut self, note: String) -> Self {
        self.notes.push(note);
        self
    }

    /// Moves every vector to the row that `rows` names. Each row must be named once.
    pub(super) fn in_order_of(self, rows: &[u32]) -> Self {
        if identified::is_in_order(rows) {
            return self;
        }
        let row_bytes = self.format.row_bytes(self.dimension());
        let bytes = identified::reordered(&self.rows, rows, row_bytes);
        let note = format!(
            "the vectors are copied to {} bytes of memory in the order of their \
                            identifiers",
            bytes.len()
        );
        Self { rows: OwnedBytes::new(bytes), ..self }.with_note(note)
    }

    /// Returns the bytes of all rows, little endian, not aligned.
    pub fn rows(&self) -> &[u8] {
        &self.rows
    }

    /// Returns the format of the rows.
    pub fn format(&self) -> RowFormat {
        self.format
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

    /// Returns remarks about the reading of the file, for people.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Returns a scorer that compares queries with the rows.
    pub(super) fn scorer(&self) -> Scorer<'_> {
        Scorer::new(self.table(), self.metric())
    }

    /// Returns the rows for a search.
    pub fn table(&self) -> Rows<'_> {
        Rows::new(&self.rows, self.format, self.dimension())
            .expect("reading the file checked the dimension, the number of rows and their bytes")
    }
}
