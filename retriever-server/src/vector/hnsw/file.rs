//! A graph in a file of its own, complete or not: what a build writes when it is done, and from
//! time to time before.
//!
//! ```text
//! "RSnw", format, M, efConstruction: 32 bits each     seed: 64 bits
//! rows, rows inserted: 32 bits each                   padding: a count of 64 bits and zeros
//! the graph in the layout of faiss, its slots on a cache line
//! ```
//!
//! Little endian. Nothing in a file makes this module panic. A file must not change while it is
//! open.

use std::io::{self, Write};
use std::path::Path;

use super::build::{BuildSettings, Builder};
use super::growing::Growing;
use super::{Check, Graph, Links, NONE, SLOT_BYTES, Workspaces, nearest};
use crate::processor::mapped::map;
use crate::query::Hit;
use crate::vector::faiss_file::cursor::Cursor;
use crate::vector::faiss_file::{FaissError, FormatFault};
use crate::vector::gather::Scorer;

const CODE: [u8; 4] = *b"RSnw";
/// Raise it with every change that old readers misread.
const FORMAT: i32 = 1;
/// Links of 16 rows.
const LINE_BYTES: usize = 64;
/// Bytes before the padding's items.
const HEADER_BYTES: usize = 4 * size_of::<i32>() + 2 * size_of::<u64>() + 2 * size_of::<u32>();
/// Largest numbers that a header may name.
const LINKS_MAX: i32 = 1 << 12;
const EF_MAX: i32 = 1 << 24;

/// A graph in a mapped file. Its memory is the page cache's.
#[derive(Debug)]
pub struct GraphFile {
    graph: Graph,
    settings: BuildSettings,
    rows: u32,
    inserted: u32,
    workspaces: Workspaces,
}

impl GraphFile {
    /// Maps the file. With `checks_links` every link is looked at, which reads the file once; a
    /// search is safe either way.
    pub fn open(path: &Path, checks_links: bool) -> Result<Self, FaissError> {
        let check = if checks_links { Check::Links } else { Check::Sizes };
        let mut cursor = Cursor::new(map(path)?);
        let read = Self::read(&mut cursor, check).and_then(|file| cursor.finish().map(|()| file));
        read.map_err(|fault| FaissError::Format { path: path.to_owned(), fault })
    }

    pub(super) fn read(cursor: &mut Cursor, check: Check) -> Result<Self, FormatFault> {
        let code = u32::from_le_bytes(cursor.array("kind of file")?);
        if code.to_le_bytes() != CODE {
            let expected = format!("{} (a graph)", u32::from_le_bytes(CODE));
            return Err(FormatFault::value("kind of file", 0, code, expected));
        }
        ranged(cursor, "format", FORMAT..=FORMAT)?;
        let links = ranged(cursor, "links of a row", 1..=LINKS_MAX)? as usize;
        let ef = ranged(cursor, "efConstruction", 1..=EF_MAX)? as usize;
        let seed = u64::from_le_bytes(cursor.array("seed")?);
        let rows = ranged(cursor, "number of rows", 0..=i32::MAX)?;
        let inserted = ranged(cursor, "rows inserted", 0..=rows)? as u32;
        let rows = rows as u32;
        cursor.items("padding", 1)?;
        let graph = Graph::read(cursor, rows, check)?;
        let settings = BuildSettings { links, ef, seed };
        let workspaces = Workspaces::new(rows as usize);
        Ok(Self { graph, settings, rows, inserted, workspaces })
    }

    /// Rows that have links.
    pub fn inserted(&self) -> u32 {
        self.inserted
    }

    /// Rows in all.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// What the graph is like.
    pub fn settings(&self) -> BuildSettings {
        self.settings
    }

    /// The `top_k` of the scorer's rows nearest to the query, best first, with at least `ef` rows
    /// in sight; `None` once `stop` says so. There may be fewer hits, where the graph leads to
    /// fewer rows.
    pub fn search(
        &self,
        scorer: &Scorer<'_>,
        query: &[f32],
        (top_k, ef): (usize, usize),
        stop: &dyn Fn() -> bool,
    ) -> Option<Vec<Hit>> {
        nearest((&self.graph, scorer, &self.workspaces), query, top_k, ef.max(top_k), stop)
    }
}

fn ranged(
    cursor: &mut Cursor,
    field: &'static str,
    accepted: std::ops::RangeInclusive<i32>,
) -> Result<i32, FormatFault> {
    let offset_bytes = cursor.offset_bytes();
    let found = cursor.i32(field)?;
    if accepted.contains(&found) {
        return Ok(found);
    }
    let expected = format!("{} to {}", accepted.start(), accepted.end());
    Err(FormatFault::value(field, offset_bytes, found, expected))
}

impl<'a> Builder<'a> {
    /// Goes on from a file that was written before. `None` if that was another graph.
    pub fn from_file(
        scorer: Scorer<'a>,
        settings: BuildSettings,
        threads: usize,
        file: &GraphFile,
    ) -> Option<Self> {
        if file.settings != settings || file.rows as usize != scorer.rows().count() {
            return None;
        }
        let graph = Growing::from_file(&file.graph, file.rows, settings.links, settings.seed)?;
        Some(Self::resume(scorer, settings, threads, (graph, file.inserted)))
    }

    /// Writes the graph as it is.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let (graph, BuildSettings { links, ef, seed }) = (self.graph(), self.settings());
        out.write_all(&CODE)?;
        for number in [FORMAT, links as i32, ef as i32] {
            out.write_all(&number.to_le_bytes())?;
        }
        out.write_all(&seed.to_le_bytes())?;
        for number in [self.rows(), self.inserted()] {
            out.write_all(&number.to_le_bytes())?;
        }
        let (rows, levels) = (self.rows() as usize, graph.highest() + 1);
        // The counts of five vectors, and the items of three before the slots.
        let before = HEADER_BYTES
            + 4 * size_of::<u64>()
            + (levels + 1 + rows) * SLOT_BYTES
            + (rows + 1) * size_of::<u64>();
        let padding = before.next_multiple_of(LINE_BYTES) - before;
        write_count(out, padding)?;
        out.write_all(&[0; LINE_BYTES][..padding])?;
        write_graph(out, graph)?;
        let entry = graph.entry();
        let (row, level) = entry.map_or((NONE, NONE), |one| (one.row as i32, one.level as i32));
        for number in [row, level, ef as i32, 0, 0] {
            out.write_all(&number.to_le_bytes())?;
        }
        Ok(())
    }
}

/// Levels, offsets and slots, as [`Graph::read`] reads them.
fn write_graph(out: &mut impl Write, graph: &Growing) -> io::Result<()> {
    // No probabilities of levels.
    write_count(out, 0)?;
    let levels = graph.highest() + 1;
    let slots_below = |level: usize| (0..level).map(|below| graph.capacity(below)).sum::<usize>();
    write_count(out, levels + 1)?;
    for level in 0..=levels {
        out.write_all(&(slots_below(level) as i32).to_le_bytes())?;
    }
    write_count(out, graph.rows() as usize)?;
    for row in 0..graph.rows() {
        out.write_all(&(graph.level(row) as i32 + 1).to_le_bytes())?;
    }
    write_count(out, graph.rows() as usize + 1)?;
    let mut end = 0;
    out.write_all(&0u64.to_le_bytes())?;
    for row in 0..graph.rows() {
        end += slots_below(graph.level(row) + 1);
        out.write_all(&(end as u64).to_le_bytes())?;
    }
    write_count(out, end)?;
    for row in 0..graph.rows() {
        for level in 0..=graph.level(row) {
            out.write_all(graph.slots(row, level).as_flattened())?;
        }
    }
    Ok(())
}

fn write_count(out: &mut impl Write, count: usize) -> io::Result<()> {
    out.write_all(&(count as u64).to_le_bytes())
}
