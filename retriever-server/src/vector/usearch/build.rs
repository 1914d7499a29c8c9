//! The building of a graph of usearch over rows, in their order.
//!
//! The threads take the rows of a batch one by one, so the links depend on which thread is first: the
//! same rows give an equally good graph, but not the same file. Between batches the graph holds every
//! row up to some number, so it can be written, and the build can resume from there. Copies of a row
//! ([`Copies`]) are not in the graph: their list stands behind it in the file.

use std::fmt;
use std::fs::OpenOptions;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::usearch::Index;

use super::{GraphShape, UsearchError, largest, refused, round, utf8};
use crate::processor::fork_join::fork_join;
use crate::vector::copies::Copies;
use crate::vector::hnsw::BuildSettings;
use crate::vector::{RowFormat, Rows};

/// The rows of a batch, after which the graph can be written.
const BATCH_ROWS: usize = 256;

/// A graph under construction.
pub struct UsearchBuilder<'a> {
    rows: Rows<'a>,
    index: Index,
    shape: GraphShape,
    copies: Copies,
    /// The rows of the graph: all but the copies.
    linked: Vec<u32>,
    /// The largest magnitude in all rows, for `i8`.
    largest: f32,
    threads: usize,
}

impl<'a> UsearchBuilder<'a> {
    /// Begins a graph without rows, which will store them in `format`.
    ///
    /// # Errors
    /// If memory for it cannot be reserved.
    pub fn new(
        rows: Rows<'a>,
        format: RowFormat,
        settings: BuildSettings,
        threads: usize,
    ) -> Result<Self, UsearchError> {
        let shape =
            GraphShape { rows: rows.count(), dimension: rows.dimension(), format, settings };
        Self::over(rows, shape, shape.empty()?, threads)
    }

    /// Resumes from a partial graph in a file. The content of the file is trusted.
    ///
    /// # Errors
    /// If it cannot be read, or is not a part of the graph that [`UsearchBuilder::new`] begins.
    pub fn resume(
        rows: Rows<'a>,
        format: RowFormat,
        settings: BuildSettings,
        threads: usize,
        path: &Path,
    ) -> Result<Self, UsearchError> {
        let shape =
            GraphShape { rows: rows.count(), dimension: rows.dimension(), format, settings };
        let index = shape.empty()?;
        index.load(utf8(path)?).map_err(refused)?;
        shape.check(&index)?;
        let builder = Self::over(rows, shape, index, threads)?;
        let (size, most) = (builder.index.size(), builder.linked.len());
        let last = size.checked_sub(1).and_then(|last| builder.linked.get(last));
        if size > most || last.is_some_and(|&last| !builder.index.contains(u64::from(last))) {
            let (found, expected) = (size.to_string(), format!("up to {most}"));
            return Err(UsearchError::Other { property: "number of rows", found, expected });
        }
        Ok(builder)
    }

    fn over(
        rows: Rows<'a>,
        shape: GraphShape,
        index: Index,
        threads: usize,
    ) -> Result<Self, UsearchError> {
        let threads = threads.max(1);
        let copies = Copies::find(&rows, threads);
        let is_copy = copies.flags(shape.rows as u32);
        let linked: Vec<u32> = (0..shape.rows as u32).filter(|&row| !is_copy.has(row)).collect();
        index.reserve_capacity_and_threads(linked.len(), threads).map_err(refused)?;
        index.change_expansion_add(shape.settings.ef);
        let mut builder = Self { rows, index, shape, copies, linked, largest: 0.0, threads };
        if shape.format == RowFormat::I8 {
            let mut numbers = vec![0.0; shape.dimension];
            for row in 0..shape.rows {
                builder.rows.read_row(row, &mut numbers);
                builder.largest = builder.largest.max(largest(&numbers));
            }
        }
        Ok(builder)
    }

    /// Returns the properties of the complete graph.
    pub fn shape(&self) -> GraphShape {
        self.shape
    }

    /// Returns the number of rows in the graph or among the copies: all rows below it are.
    pub fn inserted(&self) -> usize {
        self.linked.get(self.index.size()).map_or(self.shape.rows, |&row| row as usize)
    }

    /// Inserts the next rows. Returns `false` if all rows are in the graph.
    ///
    /// # Errors
    /// If the library refuses a row, for lack of memory.
    pub fn insert_batch(&mut self) -> Result<bool, UsearchError> {
        let first = self.index.size();
        let end = self.linked.len().min(first + BATCH_ROWS);
        if first >= end {
            return Ok(false);
        }
        let next = AtomicUsize::new(first);
        let work = || -> Result<(), UsearchError> {
            let (mut numbers, mut rounded) = (vec![0.0; self.shape.dimension], Vec::new());
            loop {
                let position = next.fetch_add(1, Ordering::Relaxed);
                if position >= end {
                    return Ok(());
                }
                let row = self.linked[position];
                self.rows.read_row(row as usize, &mut numbers);
                if self.shape.format == RowFormat::I8 {
                    round(&numbers, self.largest, &mut rounded);
                    self.index.add(u64::from(row), &rounded).map_err(refused)?;
                } else {
                    self.index.add(u64::from(row), &numbers).map_err(refused)?;
                }
            }
        };
        fork_join(0..self.threads, |_| work()).into_iter().collect::<Result<(), _>>()?;
        Ok(true)
    }

    /// Writes the graph in its current state.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), UsearchError> {
        self.index.save(utf8(path)?).map_err(refused)?;
        // The library ignores bytes behind its own end.
        let mut file = OpenOptions::new().append(true).open(path).map_err(refused)?;
        self.copies.write_behind(&mut file).map_err(refused)
    }

    /// Returns the bytes of memory of the graph, including its rows.
    pub fn memory_bytes(&self) -> usize {
        self.index.memory_usage()
    }
}

impl fmt::Debug for UsearchBuilder<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("UsearchBuilder").field("shape", &self.shape).finish_non_exhaustive()
    }
}
