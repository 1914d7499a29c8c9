//! Vectors with identifiers of their own: `IndexIDMap`, `IndexIDMap2`, and the inverted lists of
//! `IndexIVFFlat`. The identifiers are passage rows, so each row must occur once.

use tantivy::directory::OwnedBytes;

use super::FormatFault;
use super::cursor::{FieldReader, Header, Items};
use super::flat::FlatFile;
use crate::vector::rows::RowFormat;

/// The bytes of an identifier: a signed 64-bit integer.
pub(super) const ID_BYTES: usize = size_of::<i64>();

/// Reads the identifiers of `count` vectors in their order.
pub(super) fn read(cursor: &mut FieldReader, count: u32) -> Result<Vec<u32>, FormatFault> {
    let items = cursor.exactly("identifiers", ID_BYTES, u128::from(count))?;
    let mut taken = vec![false; count as usize];
    let mut rows = Vec::with_capacity(count as usize);
    append(&items, &mut rows, &mut taken)?;
    Ok(rows)
}

/// Appends identifiers to `rows`. `taken` marks those that have occurred.
fn append(items: &Items, rows: &mut Vec<u32>, taken: &mut [bool]) -> Result<(), FormatFault> {
    for (index, id) in items.bytes.as_chunks().0.iter().enumerate() {
        let (id, offset_bytes) = (i64::from_le_bytes(*id), items.offset_bytes + index * ID_BYTES);
        let fault = |expected: String| {
            Err(FormatFault::value("the identifier of a vector", offset_bytes, id, expected))
        };
        let row = usize::try_from(id).ok().filter(|&row| row < taken.len());
        let Some(row) = row else {
            let count = taken.len();
            return fault(format!("a passage row below {count}, the number of vectors"));
        };
        if std::mem::replace(&mut taken[row], true) {
            return fault("a row that no other vector has".to_owned());
        }
        rows.push(row as u32);
    }
    Ok(())
}

/// Returns `true` if every vector is at the place of its row.
pub(super) fn is_in_order(rows: &[u32]) -> bool {
    rows.iter().enumerate().all(|(place, &row)| place == row as usize)
}

/// Copies rows of `row_bytes` each to the places that `rows` names. Each place must be named once.
pub(super) fn reordered(stored: &[u8], rows: &[u32], row_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0; stored.len()];
    for (vector, &row) in stored.chunks_exact(row_bytes).zip(rows) {
        bytes[row as usize * row_bytes..][..row_bytes].copy_from_slice(vector);
    }
    bytes
}

/// Reads the fields of an `IndexIVFFlat` after `header`. All lists are searched, so its clusters are not
/// needed.
pub(super) fn read_lists(
    cursor: &mut FieldReader,
    header: Header,
    skip_clusters: impl FnOnce(&mut FieldReader) -> Result<(), FormatFault>,
) -> Result<FlatFile, FormatFault> {
    let list_count = u64::from_le_bytes(cursor.array("number of lists")?);
    let _: [u8; 8] = cursor.array("lists to visit")?;
    skip_clusters(cursor)?;
    let [map_kind] = cursor.array("kind of direct map")?;
    cursor.items("direct map", ID_BYTES)?;
    if map_kind == HASHED {
        cursor.items("hashed direct map", 2 * ID_BYTES)?;
    }
    let code = cursor.array("kind of inverted lists")?;
    if &code != b"ilar" {
        return Err(FormatFault::kind(code));
    }
    cursor.number("number of inverted lists", list_count)?;
    let row_bytes = RowFormat::F32.row_bytes(header.dimension);
    cursor.number("bytes of a code", row_bytes as u64)?;
    let sizes = list_sizes(cursor, list_count)?;
    let mut taken = vec![false; header.count as usize];
    let (mut stored, mut rows) = (Vec::new(), Vec::new());
    for size in sizes {
        stored.push(cursor.take("codes of a list", u128::from(size) * row_bytes as u128)?);
        let offset_bytes = cursor.offset_bytes();
        let bytes = cursor.take("identifiers of a list", u128::from(size) * ID_BYTES as u128)?;
        append(&Items { bytes, offset_bytes }, &mut rows, &mut taken)?;
    }
    if rows.len() != taken.len() {
        let (count, offset_bytes) = (rows.len() as i128, cursor.offset_bytes());
        let expected = format!("{}, the number of vectors", taken.len());
        return Err(FormatFault::value("vectors in all lists", offset_bytes, count, expected));
    }
    let mut bytes = vec![0; rows.len() * row_bytes];
    let vectors = stored.iter().flat_map(|list| list.chunks_exact(row_bytes));
    for (vector, row) in vectors.zip(rows) {
        bytes[row as usize * row_bytes..][..row_bytes].copy_from_slice(vector);
    }
    let note = format!(
        "all {list_count} inverted lists are compared: the hits are exact, unlike those of faiss with a \
         small nprobe; the vectors are copied to {} bytes of memory",
        bytes.len()
    );
    Ok(FlatFile::new(OwnedBytes::new(bytes), RowFormat::F32, header)?.with_note(note))
}

/// The kind of a direct map that is a table.
const HASHED: u8 = 2;

/// Reads the number of vectors in each list.
fn list_sizes(cursor: &mut FieldReader, list_count: u64) -> Result<Vec<u64>, FormatFault> {
    let form: [u8; 4] = cursor.array("form of the sizes")?;
    let number = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    match &form {
        b"full" => {
            let sizes =
                cursor.exactly("sizes of lists", size_of::<u64>(), u128::from(list_count))?;
            Ok(sizes.bytes.as_chunks().0.iter().map(number).collect())
        }
        // Pairs of a list's number and its size, in the order of the lists.
        b"sprs" => {
            let pairs = cursor.items("sizes of lists", size_of::<u64>())?;
            let pairs = pairs.bytes.as_chunks().0.iter().map(number).collect::<Vec<u64>>();
            Ok(pairs.chunks_exact(2).map(|pair| pair[1]).collect())
        }
        _ => Err(FormatFault::kind(form)),
    }
}
