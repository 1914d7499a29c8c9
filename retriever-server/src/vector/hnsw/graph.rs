//! A graph as it stands in a file, in the layout of faiss. Every row lives on one or more levels,
//! and has a fixed number of slots for links on each; the first negative slot ends the links of a
//! level.

use tantivy::directory::OwnedBytes;

use super::{Entry, Links, NONE, SLOT_BYTES};
use crate::vector::faiss_file::FormatFault;
use crate::vector::faiss_file::cursor::{Cursor, Items};

const OFFSET_BYTES: usize = size_of::<u64>();

/// How much of a graph is looked at when it is opened. A search is safe either way: a link that
/// leads nowhere is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vector) enum Check {
    /// Sizes alone, which takes no time.
    Sizes,
    /// Every level, offset and link.
    Links,
}

/// Links between rows, and where a search starts.
#[derive(Debug)]
pub(in crate::vector) struct Graph {
    /// Slots that a row has below each level: 32-bit integers.
    slots_below: OwnedBytes,
    /// First slot of each row, and the end of the last: 64-bit integers.
    offsets: OwnedBytes,
    slots: OwnedBytes,
    /// How many levels each row lives on: 32-bit integers.
    levels: OwnedBytes,
    entry: Option<Entry>,
}

impl Graph {
    /// Reads the graph of `rows` vectors.
    pub(in crate::vector) fn read(
        cursor: &mut Cursor,
        rows: u32,
        check: Check,
    ) -> Result<Self, FormatFault> {
        // Only building draws from these.
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

    /// How many levels a row lives on; 0 if there is no such row.
    pub(super) fn height(&self, row: u32) -> usize {
        let height = signed(&self.levels, row as usize).unwrap_or_default();
        usize::try_from(height).unwrap_or_default()
    }

    fn slot_range(&self, row: u32, level: usize) -> Option<(usize, usize)> {
        let offset = usize::try_from(unsigned(&self.offsets, row as usize)?).ok()?;
        let below = |level| usize::try_from(signed(&self.slots_below, level)?).ok();
        Some((offset.checked_add(below(level)?)?, offset.checked_add(below(level + 1)?)?))
    }

    /// A link above the lowest level leads to a row that lives there too.
    fn check_upper_links(
        &self,
        levels: &Items,
        slots_offset_bytes: usize,
    ) -> Result<(), FormatFault> {
        for (row, height) in numbers(&levels.bytes).enumerate() {
            for level in 1..height as usize {
                for (index, other) in self.links(row as u32, level).enumerate() {
                    let Some(found) = signed(&levels.bytes, other as usize) else { continue };
                    if found as usize <= level {
                        let start = self.slot_range(row as u32, level).unwrap_or_default().0;
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

/// From 0 on, never falling.
fn check_slots_below(slots_below: &Items) -> Result<(), FormatFault> {
    let mut least = 0;
    for (level, found) in numbers(&slots_below.bytes).enumerate() {
        if found < least || level == 0 && found != 0 {
            let offset_bytes = slots_below.offset_bytes + level * SLOT_BYTES;
            let expected = if level == 0 { "0".to_owned() } else { format!("{least} or more") };
            return Err(FormatFault::value("slots below a level", offset_bytes, found, expected));
        }
        least = found;
    }
    Ok(())
}

/// Rows follow each other, each with the slots of its levels. Returns how many slots there are.
fn check_rows(levels: &Items, offsets: &Items, slots_below: &Items) -> Result<u128, FormatFault> {
    let highest = (slots_below.bytes.len() / SLOT_BYTES).saturating_sub(1);
    let mut end: u64 = 0;
    let fault_of_offset = |row: usize, found: u64, end: u64| {
        let offset_bytes = offsets.offset_bytes + row * OFFSET_BYTES;
        FormatFault::value("offset of a row", offset_bytes, found, end.to_string())
    };
    for (row, (found, height)) in
        offsets.bytes.as_chunks().0.iter().zip(numbers(&levels.bytes)).enumerate()
    {
        let found = u64::from_le_bytes(*found);
        if found != end {
            return Err(fault_of_offset(row, found, end));
        }
        let slots = usize::try_from(height).ok().filter(|&height| height > 0);
        let Some(slots) = slots.and_then(|height| signed(&slots_below.bytes, height)) else {
            let offset_bytes = levels.offset_bytes + row * SLOT_BYTES;
            let expected = format!("1 to {highest}");
            return Err(FormatFault::value("levels of a row", offset_bytes, height, expected));
        };
        // Not negative, and at most 2^32 rows of 2^31 slots: it cannot overflow.
        end += slots as u64;
    }
    let row = levels.bytes.len() / SLOT_BYTES;
    match unsigned(&offsets.bytes, row) {
        Some(found) if found != end => Err(fault_of_offset(row, found, end)),
        _ => Ok(u128::from(end)),
    }
}

fn check_slots(slots: &Items, rows: u32) -> Result<(), FormatFault> {
    let accepted = i64::from(NONE)..i64::from(rows);
    match numbers(&slots.bytes).position(|found| !accepted.contains(&i64::from(found))) {
        None => Ok(()),
        Some(index) => {
            let offset_bytes = slots.offset_bytes + index * SLOT_BYTES;
            let found = signed(&slots.bytes, index).unwrap_or_default();
            let expected = format!("a row below {rows}, or {NONE} for none");
            Err(FormatFault::value("a neighbour", offset_bytes, found, expected))
        }
    }
}

fn read_entry(
    cursor: &mut Cursor,
    levels: &Items,
    highest: usize,
) -> Result<Option<Entry>, FormatFault> {
    let rows = levels.bytes.len() / SLOT_BYTES;
    let start = cursor.offset_bytes();
    let found = cursor.i32("entry point")?;
    let level_start = cursor.offset_bytes();
    let level = cursor.i32("max_level")?;
    if rows == 0 && found == NONE {
        return Ok(None);
    }
    let Some((row, height)) =
        u32::try_from(found).ok().and_then(|row| Some((row, signed(&levels.bytes, row as usize)?)))
    else {
        let expected = if rows == 0 { NONE.to_string() } else { format!("a row below {rows}") };
        return Err(FormatFault::value("entry point", start, found, expected));
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
