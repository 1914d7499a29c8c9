//! A graph in a file, in the layout of faiss. Every row is on one or more levels, and has a fixed
//! number of slots for links on each. The first negative slot ends the links of a level.

use tantivy::directory::OwnedBytes;

use super::{Entry, Links, NONE, SLOT_BYTES};
use crate::vector::faiss_file::FormatFault;
use crate::vector::faiss_file::cursor::{FieldReader, Items};

const OFFSET_BYTES: usize = size_of::<u64>();

/// The extent of the checks when a graph is opened. A search is safe either way, because it does not
/// follow a link to a row that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vector) enum Check {
    /// Only sizes, which takes no time.
    Sizes,
    /// Every level, offset and link.
    Links,
}

/// Links between rows, and the row where a search starts.
#[derive(Debug)]
pub(in crate::vector) struct Graph {
    /// The number of slots that a row has below each level: 32-bit integers.
    slots_below: OwnedBytes,
    /// The first slot of each row, and the end of the last row's slots: 64-bit integers.
    offsets: OwnedBytes,
    slots: OwnedBytes,
    /// The number of levels of each row: 32-bit integers.
    levels: OwnedBytes,
    entry: Option<Entry>,
}

impl Graph {
    /// Reads the graph of `rows` vectors.
    pub(in crate::vector) fn read(
        cursor: &mut FieldReader,
        rows: u32,
        check: Check,
    ) -> Result<Self, FormatFault> {
        // Only a build needs these.
        cursor.items("probabilities of levels", size_of::<f64>())?;
        let slots_below = cursor.items("slots below each level", SLOT_BYTES)?;
        check_slots_below(&slots_below)?;
        let levels = cursor.exactly("levels of rows", SLOT_BYTES, u128::from(rows))?;
        let offsets = cursor.exactly("offsets of rows", OFFSET_BYTES, u128::from(rows) + 1)?;
        let slots = if check == Check::Links {
            let slot_count = check_rows(&levels, &offsets, &slots_below)?;
            let slots = cursor.exactly("neighbours", SLOT_BYTES, slot_count)?;
            check_slots(&slots, rows)?;
            slots
        } else {
            cursor.items("neighbours", SLOT_BYTES)?
        };
        let highest = slots_below.bytes.len() / SLOT_BYTES;
        let entry = read_entry(cursor, &levels, highest)?;
        for field in ["efConstruction", "efSearch", "upper_beam"] {
            cursor.i32(field)?;
        }
        let graph = Self {
            slots_below: slots_below.bytes,
            offsets: offsets.bytes,
            slots: slots.bytes,
            levels: levels.bytes.clone(),
            entry,
        };
        if check == Check::Links {
            graph.check_upper_links(&levels, slots.offset_bytes)?;
        }
        Ok(graph)
    }

    /// Returns the number of levels of a row; 0 if there is no such row.
    pub(super) fn height(&self, row: u32) -> usize {
        let height = signed(&self.levels, row as usize).unwrap_or_default();
        usize::try_from(height).unwrap_or_default()
    }

    fn slot_range(&self, row: u32, level: usize) -> Option<(usize, usize)> {
        let offset = usize::try_from(unsigned(&self.offsets, row as usize)?).ok()?;
        let below = |level| usize::try_from(signed(&self.slots_below, level)?).ok();
        Some((offset.checked_add(below(level)?)?, offset.checked_add(below(level + 1)?)?))
    }

    /// Checks that every link above the lowest level leads to a row that is on the same level.
    fn check_upper_links(
        &self,
        levels: &Items,
        slots_offset_bytes: usize,
    ) -> Result<(), FormatFault> {
        for (row, height) in numbers(&levels.bytes).enumerate() {
            for level in 1..height as usize {
                for (index, other) in self.links(row as u32, level).enumerate() {
                    let other_height = signed(&levels.bytes, other as usize)
                        .expect("every link was checked to lead to a row");
                    if other_height as usize <= level {
                        let (start, _) = self
                            .slot_range(row as u32, level)
                            .expect("the row has slots on this level");
                        let offset_bytes = slots_offset_bytes + SLOT_BYTES * (start + index);
                        let expected = format!("a row that lives on level {level}");
                        return Err(FormatFault::value(
                            "a neighbour",
                            offset_bytes,
                            other,
                            expected,
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}

impl Links for Graph {
    fn entry(&self) -> Option<Entry> {
        self.entry
    }

    fn slots(&self, row: u32, level: usize) -> &[[u8; SLOT_BYTES]] {
        let slots = self.slot_range(row, level).and_then(|(start, end)| {
            self.slots.get(start.checked_mul(SLOT_BYTES)?..end.checked_mul(SLOT_BYTES)?)
        });
        slots.unwrap_or_default().as_chunks().0
    }
}

/// Checks that the numbers begin with 0 and never fall.
fn check_slots_below(slots_below: &Items) -> Result<(), FormatFault> {
    let mut least = 0;
    for (level, slots) in numbers(&slots_below.bytes).enumerate() {
        if slots < least || level == 0 && slots != 0 {
            let offset_bytes = slots_below.offset_bytes + level * SLOT_BYTES;
            let expected = if level == 0 { "0".to_owned() } else { format!("{least} or more") };
            return Err(FormatFault::value("slots below a level", offset_bytes, slots, expected));
        }
        least = slots;
    }
    Ok(())
}

/// Checks that the rows follow each other without gaps, each with the slots of its levels. Returns the
/// number of all slots.
fn check_rows(levels: &Items, offsets: &Items, slots_below: &Items) -> Result<u128, FormatFault> {
    let highest = (slots_below.bytes.len() / SLOT_BYTES).saturating_sub(1);
    let mut end: u64 = 0;
    let offset_fault = |row: usize, offset: u64, end: u64| {
        let offset_bytes = offsets.offset_bytes + row * OFFSET_BYTES;
        FormatFault::value("offset of a row", offset_bytes, offset, end.to_string())
    };
    for (row, (offset, height)) in
        offsets.bytes.as_chunks().0.iter().zip(numbers(&levels.bytes)).enumerate()
    {
        let offset = u64::from_le_bytes(*offset);
        if offset != end {
            return Err(offset_fault(row, offset, end));
        }
        let slots = usize::try_from(height).ok().filter(|&height| height > 0);
        let Some(slots) = slots.and_then(|height| signed(&slots_below.bytes, height)) else {
            let offset_bytes = levels.offset_bytes + row * SLOT_BYTES;
            let expected = format!("1 to {highest}");
            return Err(FormatFault::value("levels of a row", offset_bytes, height, expected));
        };
        // The sum cannot overflow: it has at most 2^32 rows of at most 2^31 slots, none negative.
        end += slots as u64;
    }
    let row = levels.bytes.len() / SLOT_BYTES;
    let last = unsigned(&offsets.bytes, row).expect("there is one more offset than rows");
    if last == end { Ok(u128::from(end)) } else { Err(offset_fault(row, last, end)) }
}

fn check_slots(slots: &Items, rows: u32) -> Result<(), FormatFault> {
    let accepted = i64::from(NONE)..i64::from(rows);
    let mut links = numbers(&slots.bytes).enumerate();
    match links.find(|&(_, link)| !accepted.contains(&i64::from(link))) {
        None => Ok(()),
        Some((index, link)) => {
            let offset_bytes = slots.offset_bytes + index * SLOT_BYTES;
            let expected = format!("a row below {rows}, or {NONE} for none");
            Err(FormatFault::value("a neighbour", offset_bytes, link, expected))
        }
    }
}

fn read_entry(
    cursor: &mut FieldReader,
    levels: &Items,
    highest: usize,
) -> Result<Option<Entry>, FormatFault> {
    let rows = levels.bytes.len() / SLOT_BYTES;
    let start = cursor.offset_bytes();
    let entry = cursor.i32("entry point")?;
    let level_start = cursor.offset_bytes();
    let level = cursor.i32("max_level")?;
    if rows == 0 && entry == NONE {
        return Ok(None);
    }
    let Some((row, height)) =
        u32::try_from(entry).ok().and_then(|row| Some((row, signed(&levels.bytes, row as usize)?)))
    else {
        let expected = if rows == 0 { NONE.to_string() } else { format!("a row below {rows}") };
        return Err(FormatFault::value("entry point", start, entry, expected));
    };
    let height = height.min(i32::try_from(highest).unwrap_or(i32::MAX));
    if !(0..height).contains(&level) {
        let expected = format!("a level of row {row}, 0 to {}", height - 1);
        return Err(FormatFault::value("max_level", level_start, level, expected));
    }
    Ok(Some(Entry { row, level: level as usize }))
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = i32> {
    bytes.as_chunks().0.iter().map(|number| i32::from_le_bytes(*number))
}

fn signed(bytes: &[u8], index: usize) -> Option<i32> {
    bytes.as_chunks().0.get(index).map(|number| i32::from_le_bytes(*number))
}

fn unsigned(bytes: &[u8], index: usize) -> Option<u64> {
    bytes.as_chunks().0.get(index).map(|number| u64::from_le_bytes(*number))
}
