//! Graphs of the library usearch, which keep their own copy of the rows: one file holds rows and
//! links, and is searched where it lies. The key of a row is its number.
//!
//! The library casts to `f32` and `f16` itself. Its cast to `i8` scales every row by itself and
//! cuts off, so rows are rounded here instead, all by one scale: their order by inner product stays
//! right for rows of any length.

#![expect(unsafe_code, reason = "the library keeps a pointer to bytes that are mapped here")]

mod build;
mod gate;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;

use ::usearch::{Index, IndexOptions, MetricKind, ScalarKind};
use tantivy::directory::OwnedBytes;
use thiserror::Error;

pub use build::UsearchBuilder;

use super::RowFormat;
use super::hnsw::BuildSettings;
use crate::processor::mapped;
use crate::query::Hit;
use gate::Gate;

/// Largest number that an `i8` row stores, so that the range is symmetric.
const I8_MAX: f32 = 127.0;

/// A graph of usearch could not be made, read, written or searched.
#[derive(Debug, Error)]
pub enum UsearchError {
    /// The library refuses.
    #[error("usearch: {0}")]
    Library(String),
    /// The graph is another one than the caller's.
    #[error("{what} is {found}, expected {expected}")]
    Other {
        /// What differs.
        what: &'static str,
        /// What the graph has.
        found: String,
        /// What the caller has.
        expected: String,
    },
    /// The library takes names in UTF-8 only.
    #[error("the path {0:?} is not UTF-8, which usearch needs")]
    Path(std::path::PathBuf),
}

fn refused(error: impl fmt::Display) -> UsearchError {
    UsearchError::Library(error.to_string())
}

/// What a graph has to be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GraphShape {
    /// Rows in all.
    pub rows: usize,
    /// Numbers a row.
    pub dimension: usize,
    /// Format of the graph's own rows.
    pub format: RowFormat,
    /// Most links of a row, and rows in sight while it is built.
    pub settings: BuildSettings,
}

impl GraphShape {
    fn empty(&self) -> Result<Index, UsearchError> {
        let quantization = match self.format {
            RowFormat::F32 => ScalarKind::F32,
            RowFormat::F16 => ScalarKind::F16,
            RowFormat::I8 => ScalarKind::I8,
        };
        let options = IndexOptions {
            dimensions: self.dimension,
            metric: MetricKind::IP,
            quantization,
            connectivity: self.settings.links,
            expansion_add: self.settings.ef,
            expansion_search: self.settings.ef,
            multi: false,
        };
        Index::new(&options).map_err(refused)
    }

    /// Checks what the library has read from a file.
    fn check(&self, index: &Index) -> Result<(), UsearchError> {
        let expected = self.empty()?;
        let pairs = [
            ("numbers a row", index.dimensions().to_string(), self.dimension.to_string()),
            ("links a row", index.connectivity().to_string(), self.settings.links.to_string()),
            ("format", kind(index), kind(&expected)),
        ];
        for (what, found, expected) in pairs {
            if found != expected {
                return Err(UsearchError::Other { what, found, expected });
            }
        }
        Ok(())
    }
}

fn kind(index: &Index) -> String {
    format!("{:?} {:?}", index.metric_kind(), index.scalar_kind())
}

fn utf8(path: &Path) -> Result<&str, UsearchError> {
    path.to_str().ok_or_else(|| UsearchError::Path(path.to_owned()))
}

/// A complete graph in a mapped file.
pub struct UsearchFile {
    /// Goes before the bytes that it points to.
    index: Index,
    _bytes: OwnedBytes,
    shape: GraphShape,
    /// The library refuses more searches at once than room was made for.
    gate: Gate,
}

impl UsearchFile {
    /// Maps the file, which is trusted to be as it was written: the library does not check links.
    /// At most `threads` searches run at once, with `ef` rows in sight; others wait.
    ///
    /// # Errors
    /// If the file cannot be read, or does not hold the whole graph of that shape.
    pub fn open(
        path: &Path,
        shape: GraphShape,
        ef: usize,
        threads: usize,
    ) -> Result<Self, UsearchError> {
        // Not by `view`: the library closes what it has mapped twice, the second time as the file
        // descriptor 0, whatever that is by then (seen in 2.26).
        let bytes = mapped::map(path).map_err(refused)?;
        // Declared after the bytes, so that it goes before them where opening fails.
        let index = shape.empty()?;
        // SAFETY: the mapped bytes stay where they are, unchanged, until the index is gone.
        unsafe { index.view_from_buffer(&bytes) }.map_err(refused)?;
        shape.check(&index)?;
        if index.size() != shape.rows {
            let (found, expected) = (index.size().to_string(), shape.rows.to_string());
            return Err(UsearchError::Other { what: "number of rows", found, expected });
        }
        let threads = threads.max(1);
        index.reserve_capacity_and_threads(shape.rows, threads).map_err(refused)?;
        index.change_expansion_search(ef);
        Ok(Self { index, _bytes: bytes, shape, gate: Gate::new(threads) })
    }

    /// Format of the graph's own rows.
    pub fn format(&self) -> RowFormat {
        self.shape.format
    }

    /// Rows in sight of a search: at least as many as are asked for.
    pub fn ef(&self) -> usize {
        self.index.expansion_search()
    }

    /// Sets the rows in sight of later searches.
    pub fn set_ef(&mut self, ef: usize) {
        self.index.change_expansion_search(ef);
    }

    /// The `count` rows nearest to the query, best first, scored as the graph's own rows are;
    /// `None` if `stop` says so before the search begins.
    ///
    /// # Errors
    /// If the library refuses, or names a row that is not there.
    pub fn search(
        &self,
        query: &[f32],
        count: usize,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Vec<Hit>>, UsearchError> {
        let Some(_turn) = self.gate.enter(stop) else { return Ok(None) };
        let count = count.min(self.shape.rows);
        let found = if self.shape.format == RowFormat::I8 {
            let mut numbers = Vec::new();
            round(query, largest(query), &mut numbers);
            self.index.search(&numbers, count)
        } else {
            self.index.search(query, count)
        };
        let found = found.map_err(refused)?;
        let hits = found.keys.iter().zip(&found.distances).map(|(&key, &distance)| {
            let row = u32::try_from(key).ok().filter(|&row| (row as usize) < self.shape.rows);
            let row = row.ok_or_else(|| UsearchError::Other {
                what: "a row found",
                found: key.to_string(),
                expected: format!("one below {}", self.shape.rows),
            })?;
            // The library's distance is 1 - the inner product.
            Ok(Hit { row, score: 1.0 - distance })
        });
        hits.collect::<Result<Vec<_>, _>>().map(Some)
    }
}

impl fmt::Debug for UsearchFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("UsearchFile").field("shape", &self.shape).finish_non_exhaustive()
    }
}

/// The largest magnitude of the finite numbers.
fn largest(numbers: &[f32]) -> f32 {
    let finite = numbers.iter().filter(|number| number.is_finite());
    finite.fold(0.0, |largest, number| largest.max(number.abs()))
}

/// Numbers as signed bytes, of which the largest stands for `largest`.
fn round(numbers: &[f32], largest: f32, rounded: &mut Vec<i8>) {
    let scale = if largest > 0.0 { I8_MAX / largest } else { 0.0 };
    rounded.clear();
    let round = |number: &f32| (number * scale).round().clamp(-I8_MAX, I8_MAX) as i8;
    rounded.extend(numbers.iter().map(round));
}
