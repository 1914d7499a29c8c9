//! Graphs of the library usearch, which keep a copy of the rows: one file holds rows and links, and is
//! searched in place. The key of a row is its number. The list of the rows that are equal to others, or
//! nearly so, stands behind the graph.
//!
//! The library casts to `f32` and `f16` itself. Its cast to `i8` scales every row separately and
//! truncates. So this module rounds rows to `i8` instead, with one scale for all, which keeps the order
//! by inner product correct for rows of any length.

#![expect(unsafe_code, reason = "the library keeps a pointer to bytes that this module maps")]

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
use super::copies::{COPIES_MAX, Copies};
use super::hnsw::BuildSettings;
use crate::processor::mapped;
use crate::query::Hit;
use gate::Gate;

/// The largest number that an `i8` row stores; the range is symmetric.
const I8_MAX: f32 = 127.0;

/// A reason why a graph of usearch cannot be built, read, written or searched.
#[derive(Debug, Error)]
pub enum UsearchError {
    /// The library reports an error.
    #[error("usearch: {0}")]
    Library(String),
    /// The graph differs from the expected one.
    #[error("{property} is {found}, expected {expected}")]
    Other {
        /// The property that differs.
        property: &'static str,
        /// The value in the graph.
        found: String,
        /// The expected value.
        expected: String,
    },
    /// The path is not UTF-8, which the library requires.
    #[error("the path {0:?} is not UTF-8, which usearch needs")]
    Path(std::path::PathBuf),
}

fn refused(error: impl fmt::Display) -> UsearchError {
    UsearchError::Library(error.to_string())
}

/// The expected properties of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GraphShape {
    /// The number of all rows.
    pub rows: usize,
    /// The numbers in a row.
    pub dimension: usize,
    /// The format of the graph's rows.
    pub format: RowFormat,
    /// The parameters of the build; the seed is not used.
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

    /// Checks a graph that the library has read from a file.
    fn check(&self, index: &Index) -> Result<(), UsearchError> {
        let expected = self.empty()?;
        let pairs = [
            ("numbers a row", index.dimensions().to_string(), self.dimension.to_string()),
            ("links a row", index.connectivity().to_string(), self.settings.links.to_string()),
            ("format", kind(index), kind(&expected)),
        ];
        for (property, found, expected) in pairs {
            if found != expected {
                return Err(UsearchError::Other { property, found, expected });
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
    /// The graph; declared first, so that it is dropped before the bytes it points to.
    index: Index,
    _bytes: OwnedBytes,
    shape: GraphShape,
    /// The rows that are not in the graph, because they are copies of others.
    copies: Copies,
    /// A limit on concurrent searches: the library refuses more than it has reserved memory for.
    gate: Gate,
}

impl UsearchFile {
    /// Maps the file. It must be as it was written, because the library does not check links. At most
    /// `threads` searches run concurrently, each tracking `ef` candidates; others wait.
    ///
    /// # Errors
    /// If the file cannot be read, or does not hold the whole graph of that shape.
    pub fn open(
        path: &Path,
        shape: GraphShape,
        ef: usize,
        threads: usize,
    ) -> Result<Self, UsearchError> {
        // The library's own `view` is not used: it closes its file twice, and the second time it
        // closes file descriptor 0, whatever that is by then (seen in 2.26).
        let bytes = mapped::map(path).map_err(refused)?;
        // Declared after the bytes, so that it is dropped before them if opening fails.
        let index = shape.empty()?;
        // SAFETY: the mapped bytes keep their addresses and do not change until the index is dropped.
        unsafe { index.view_from_buffer(&bytes) }.map_err(refused)?;
        shape.check(&index)?;
        let copies = Copies::read_behind(&bytes, shape.rows as u32);
        let copies = copies.ok_or_else(|| UsearchError::Library("a bad list of copies".into()))?;
        let rows = index.size() + copies.count();
        if rows != shape.rows {
            let (found, expected) = (rows.to_string(), shape.rows.to_string());
            return Err(UsearchError::Other { property: "number of rows", found, expected });
        }
        let threads = threads.max(1);
        index.reserve_capacity_and_threads(index.size(), threads).map_err(refused)?;
        index.change_expansion_search(ef);
        Ok(Self { index, _bytes: bytes, shape, copies, gate: Gate::new(threads) })
    }

    /// Returns the format of the graph's rows.
    pub fn format(&self) -> RowFormat {
        self.shape.format
    }

    /// Returns the number of candidates that a search tracks; it tracks at least as many as it returns.
    pub fn ef(&self) -> usize {
        self.index.expansion_search()
    }

    /// Sets the number of candidates that later searches track.
    pub fn set_ef(&mut self, ef: usize) {
        self.index.change_expansion_search(ef);
    }

    /// Returns the `count` rows of the graph nearest to the query, with the copies of each, best first;
    /// `None` if `stop` returns `true` before the search begins. The scores come from the graph's own
    /// rows, and a copy has the score of the row that it is a copy of.
    ///
    /// # Errors
    /// If the library reports an error, or returns a row that does not exist.
    pub fn search(
        &self,
        query: &[f32],
        count: usize,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Vec<Hit>>, UsearchError> {
        let Some(_permit) = self.gate.enter(stop) else { return Ok(None) };
        let count = count.min(self.index.size());
        let matches = if self.shape.format == RowFormat::I8 {
            let mut numbers = Vec::new();
            round(query, largest(query), &mut numbers);
            self.index.search(&numbers, count)
        } else {
            self.index.search(query, count)
        };
        let matches = matches.map_err(refused)?;
        let hits = matches.keys.iter().zip(&matches.distances).map(|(&key, &distance)| {
            let row = u32::try_from(key).ok().filter(|&row| (row as usize) < self.shape.rows);
            let row = row.ok_or_else(|| UsearchError::Other {
                property: "the row of a hit",
                found: key.to_string(),
                expected: format!("a row below {}", self.shape.rows),
            })?;
            // The library's distance is 1 minus the inner product.
            Ok(Hit { row, score: 1.0 - distance })
        });
        let hits = hits.collect::<Result<Vec<_>, _>>()?;
        if self.copies.count() == 0 {
            return Ok(Some(hits));
        }
        let copies_max = COPIES_MAX.max(count);
        let with_copies = hits.into_iter().flat_map(|Hit { row, score }| {
            let copies = self.copies.of(row).take(copies_max);
            std::iter::once(row).chain(copies).map(move |row| Hit { row, score })
        });
        Ok(Some(with_copies.collect()))
    }
}

impl fmt::Debug for UsearchFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("UsearchFile").field("shape", &self.shape).finish_non_exhaustive()
    }
}

/// Returns the largest magnitude of the finite numbers.
fn largest(numbers: &[f32]) -> f32 {
    let finite = numbers.iter().filter(|number| number.is_finite());
    finite.fold(0.0, |largest, number| largest.max(number.abs()))
}

/// Rounds numbers to signed bytes, so that `largest` becomes the largest byte.
fn round(numbers: &[f32], largest: f32, rounded: &mut Vec<i8>) {
    let scale = if largest > 0.0 { I8_MAX / largest } else { 0.0 };
    rounded.clear();
    let round = |number: &f32| (number * scale).round().clamp(-I8_MAX, I8_MAX) as i8;
    rounded.extend(numbers.iter().map(round));
}
