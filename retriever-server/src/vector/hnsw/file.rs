//! A graph in a file of its own, complete or partial. A build writes it when it is done, and from time
//! to time before.
//!
//! ```text
//! "RSnw", format, M, efConstruction: 32 bits each     seed: 64 bits
//! rows, rows inserted: 32 bits each                   padding: a count of 64 bits and zeros
//! the graph in the layout of faiss, with its slots aligned to a cache line
//! the copies: a count of 64 bits, then a leader and its copy, 32 bits each
//! ```
//!
//! Format 1 ends before the copies: every row has links of its own.
//!
//! All numbers are little endian. No content of a file makes this module panic. A file must not change
//! while it is open.

use std::io::{self, Write};
use std::path::Path;

use super::build::{BuildSettings, Builder};
use super::growing::GrowingGraph;
use super::{Check, Graph, GraphSearchSize, Links, NONE, SLOT_BYTES, Workspaces, nearest};
use crate::processor::mapped::map;
use crate::query::Hit;
use crate::vector::copies::{COPIES_MAX, Copies, PAIR_BYTES, with_copies};
use crate::vector::faiss_file::cursor::FieldReader;
use crate::vector::faiss_file::{FaissError, FormatFault};
use crate::vector::gather::Scorer;

const CODE: [u8; 4] = *b"RSnw";
/// The version of the format. Raise it with every change that old readers would misread.
const FORMAT: i32 = 2;
/// The first version, without copies. Such a graph can be searched, but no build resumes from it.
const FORMAT_WITHOUT_COPIES: i32 = 1;
/// The bytes of a cache line: 16 links.
const LINE_BYTES: usize = 64;
/// The bytes before the items of the padding.
const HEADER_BYTES: usize = 4 * size_of::<i32>() + 2 * size_of::<u64>() + 2 * size_of::<u32>();
/// The largest numbers that a header may contain.
const LINKS_MAX: i32 = 1 << 12;
const EF_MAX: i32 = 1 << 24;

/// A graph in a mapped file. Its memory is that of the page cache.
#[derive(Debug)]
pub struct GraphFile {
    graph: Graph,
    /// `None` in the first format.
    copies: Option<Copies>,
    settings: BuildSettings,
    rows: u32,
    inserted: u32,
    workspaces: Workspaces,
}

impl GraphFile {
    /// Maps the file. With `checks_links` every link is checked, which reads the whole file once. A
    /// search is safe either way.
    pub fn open(path: &Path, checks_links: bool) -> Result<Self, FaissError> {
        let check = if checks_links { Check::Links } else { Check::Sizes };
        let mut cursor = FieldReader::new(map(path)?);
        let read = Self::read(&mut cursor, check).and_then(|file| cursor.finish().map(|()| file));
        read.map_err(|fault| FaissError::Format { path: path.to_owned(), fault })
    }

    pub(super) fn read(cursor: &mut FieldReader, check: Check) -> Result<Self, FormatFault> {
        let code = u32::from_le_bytes(cursor.array("kind of file")?);
        if code.to_le_bytes() != CODE {
            let expected = format!("{} (a graph)", u32::from_le_bytes(CODE));
            return Err(FormatFault::value("kind of file", 0, code, expected));
        }
        let format = ranged(cursor, "format", FORMAT_WITHOUT_COPIES..=FORMAT)?;
        let links = ranged(cursor, "links of a row", 1..=LINKS_MAX)? as usize;
        let ef = ranged(cursor, "efConstruction", 1..=EF_MAX)? as usize;
        let seed = u64::from_le_bytes(cursor.array("seed")?);
        let rows = ranged(cursor, "number of rows", 0..=i32::MAX)?;
        let inserted = ranged(cursor, "rows inserted", 0..=rows)? as u32;
        let rows = rows as u32;
        cursor.items("padding", 1)?;
        let graph = Graph::read(cursor, rows, check)?;
        let copies = if format == FORMAT { Some(read_copies(cursor, rows, check)?) } else { None };
        let settings = BuildSettings { links, ef, seed };
        let workspaces = Workspaces::new(rows as usize);
        Ok(Self { graph, copies, settings, rows, inserted, workspaces })
    }

    /// Returns the number of rows that have links.
    pub fn inserted(&self) -> u32 {
        self.inserted
    }

    /// Returns the number of all rows.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Returns the parameters of the graph.
    pub fn settings(&self) -> BuildSettings {
        self.settings
    }

    /// Returns the `top_k` linked rows nearest to the query, with the copies of each, best first; `None`
    /// once `stop` returns `true`. `ef` is raised to `top_k`. There are fewer hits if the graph leads to
    /// fewer rows.
    pub fn search(
        &self,
        scorer: &Scorer<'_>,
        query: &[f32],
        size: GraphSearchSize,
        stop: &dyn Fn() -> bool,
    ) -> Option<Vec<Hit>> {
        let size = GraphSearchSize { ef: size.ef.max(size.top_k), ..size };
        let hits = nearest(&self.graph, scorer, &self.workspaces, query, size, stop)?;
        Some(match &self.copies {
            Some(copies) if copies.count() > 0 => {
                let copies_max = COPIES_MAX.max(size.top_k);
                let rows = scorer.rows().count() as u32;
                with_copies(hits, copies, copies_max, rows, |rows, scores| {
                    let mut prepared = Vec::new();
                    scorer.prepare(query, &mut prepared);
                    scorer.score(&prepared, rows, scores);
                })
            }
            _ => hits,
        })
    }
}

fn read_copies(cursor: &mut FieldReader, rows: u32, check: Check) -> Result<Copies, FormatFault> {
    let items = cursor.items("copies", PAIR_BYTES)?;
    match check {
        Check::Sizes => Ok(Copies::unchecked(items.bytes)),
        Check::Links => {
            let (count, offset_bytes) = (items.bytes.len() / PAIR_BYTES, items.offset_bytes);
            Copies::from_bytes(items.bytes, rows).ok_or_else(|| {
                let expected = format!("pairs of rows below {rows} in order");
                FormatFault::value("a list of copies", offset_bytes, count as i128, expected)
            })
        }
    }
}

fn ranged(
    cursor: &mut FieldReader,
    field: &'static str,
    accepted: std::ops::RangeInclusive<i32>,
) -> Result<i32, FormatFault> {
    let offset_bytes = cursor.offset_bytes();
    let number = cursor.i32(field)?;
    if accepted.contains(&number) {
        return Ok(number);
    }
    let expected = format!("{} to {}", accepted.start(), accepted.end());
    Err(FormatFault::value(field, offset_bytes, number, expected))
}

impl<'a> Builder<'a> {
    /// Resumes the build of a graph from its file. Returns `None` if the file holds another graph.
    pub fn from_file(
        scorer: Scorer<'a>,
        settings: BuildSettings,
        threads: usize,
        file: &GraphFile,
    ) -> Option<Self> {
        if file.settings != settings || file.rows as usize != scorer.rows().count() {
            return None;
        }
        let copies = file.copies.clone()?;
        let graph = GrowingGraph::from_file(&file.graph, file.rows, settings.links, settings.seed)?;
        Some(Self::resume(scorer, settings, threads, graph, copies).after(file.inserted))
    }

    /// Writes the graph in its current state.
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
        // The header, four further counts, and the items of the three vectors before the slots.
        let before = HEADER_BYTES
            + 4 * size_of::<u64>()
            + (levels + 1 + rows) * SLOT_BYTES
            + (rows + 1) * size_of::<u64>();
        let padding = before.next_multiple_of(LINE_BYTES) - before;
        write_count(out, padding)?;
        out.write_all(&[0; LINE_BYTES][..padding])?;
        write_graph(out, graph)?;
        let entry = graph.entry();
        let (row, level) =
            entry.map_or((NONE, NONE), |entry| (entry.row as i32, entry.level as i32));
        for number in [row, level, ef as i32, 0, 0] {
            out.write_all(&number.to_le_bytes())?;
        }
        write_count(out, self.copies().count())?;
        out.write_all(self.copies().bytes())
    }
}

/// Writes levels, offsets and slots, as [`Graph::read`] reads them.
fn write_graph(out: &mut impl Write, graph: &GrowingGraph) -> io::Result<()> {
    // The probabilities of levels, which this project does not need.
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
