//! Rows of parquet files, as pyarrow's `to_pylist` gives them: lists, structs (objects) and maps (lists of pairs) of any
//! depth. Bytes that are UTF-8 are text, since old writers do not mark texts; other bytes are null, as are numbers
//! that are not finite. Dates and times become texts in ISO 8601.
//!
//! The columns are read in batches, and values put together by their definition and repetition levels (Melnik et al.
//! 2010, "Dremel").

mod column;
mod tree;

use std::collections::VecDeque;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::{Map, Value};

use super::NumberedRow;
use super::fault::{Place, RowFault, RowsError};
use column::Column;
use tree::Node;

/// The number of rows that are decoded together.
const BATCH_ROWS: usize = 256;

/// A reader of the rows of a parquet file.
pub(super) struct ParquetReader {
    file: SerializedFileReader<File>,
    fields: Vec<(String, Node)>,
    columns: Vec<Column>,
    next_group: usize,
    rows_left_in_group: usize,
    ready: VecDeque<Map<String, Value>>,
    row: u64,
}

impl std::fmt::Debug for ParquetReader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ParquetReader").finish_non_exhaustive()
    }
}

impl ParquetReader {
    pub(super) fn open(file: File, path: &Path) -> Result<Self, RowsError> {
        let open = || {
            let file = SerializedFileReader::new(file)?;
            let schema = file.metadata().file_metadata().schema_descr_ptr();
            let fields = tree::fields(&schema)?;
            Ok((file, fields))
        };
        let (file, fields) = guarded(open).map_err(|reason| damaged(path, Place::File, reason))?;
        if let Some(name) = unknown_compression(&file) {
            let reason = format!(
                "is compressed with {name}, expected snappy, gzip, zstd, lz4, brotli or no compression: write it anew with \
                 one of these"
            );
            return Err(RowsError::file(path, RowFault::Record(reason)));
        }
        Ok(Self {
            file,
            fields,
            columns: Vec::new(),
            next_group: 0,
            rows_left_in_group: 0,
            ready: VecDeque::new(),
            row: 0,
        })
    }

    /// Returns the share of the rows that were read.
    pub(super) fn share_read(&self) -> f64 {
        let rows = self.file.metadata().file_metadata().num_rows().max(1);
        self.row as f64 / rows as f64
    }

    /// Reads the next row.
    pub(super) fn next_row(&mut self, path: &Path) -> Result<NumberedRow, RowsError> {
        if self.ready.is_empty() {
            let place = Place::Row(self.row + 1);
            guarded(|| self.fill()).map_err(|reason| damaged(path, place, reason))?;
        }
        Ok(self.ready.pop_front().map(|fields| {
            self.row += 1;
            (self.row, fields)
        }))
    }

    /// Decodes the next batch of rows, which stays empty at the end of the file.
    fn fill(&mut self) -> Result<(), ParquetError> {
        while self.rows_left_in_group == 0 {
            if self.next_group == self.file.num_row_groups() {
                return Ok(());
            }
            let group = self.file.get_row_group(self.next_group)?;
            self.next_group += 1;
            self.rows_left_in_group = usize::try_from(group.metadata().num_rows())
                .map_err(|_| ParquetError::General("a group of less than 0 rows".to_owned()))?;
            self.columns = (0..group.num_columns())
                .map(|index| Column::open(group.as_ref(), index))
                .collect::<Result<_, _>>()?;
        }
        let rows = self.rows_left_in_group.min(BATCH_ROWS);
        for column in &mut self.columns {
            column.fill(rows)?;
        }
        for _ in 0..rows {
            let mut fields = Map::new();
            for (name, node) in &self.fields {
                fields.insert(name.clone(), node.value(&mut self.columns)?);
            }
            self.ready.push_back(fields);
        }
        self.rows_left_in_group -= rows;
        Ok(())
    }
}

/// Returns the name of a compression in the file that is not read.
fn unknown_compression(file: &SerializedFileReader<File>) -> Option<&'static str> {
    let groups = file.metadata().row_groups().iter();
    let mut columns = groups.flat_map(RowGroupMetaData::columns);
    columns.any(|column| column.compression() == Compression::LZO).then_some("lzo")
}

/// Runs a part of the decoder. It may panic on damaged files, which is an error here.
fn guarded<T>(decode: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("its decoder stopped".to_owned()),
    }
}

fn damaged(path: &Path, place: Place, reason: String) -> RowsError {
    RowsError::at(path, place, RowFault::Damaged { format: "parquet", reason })
}
