//! A reader of successive fields. Each field has a name, and errors report the name and the offset.

use tantivy::directory::OwnedBytes;

use super::{FormatFault, Metric};

/// The codes of the metrics in faiss. Other metrics carry an argument and are not supported.
const INNER_PRODUCT: i32 = 0;
const L2: i32 = 1;

/// A reader that starts at the beginning of a file.
#[derive(Debug)]
pub(in crate::vector) struct FieldReader {
    bytes: OwnedBytes,
    offset_bytes: usize,
}

/// The items of a vector in the file.
#[derive(Debug)]
pub(in crate::vector) struct Items {
    pub(in crate::vector) bytes: OwnedBytes,
    /// The offset of the first item in the file.
    pub(in crate::vector) offset_bytes: usize,
}

/// The fields at the start of every index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vector) struct Header {
    pub(in crate::vector) dimension: usize,
    pub(in crate::vector) count: u32,
    pub(in crate::vector) metric: Metric,
}

impl FieldReader {
    pub(in crate::vector) fn new(bytes: OwnedBytes) -> Self {
        Self { bytes, offset_bytes: 0 }
    }

    /// Returns the offset of the next field.
    pub(in crate::vector) fn offset_bytes(&self) -> usize {
        self.offset_bytes
    }

    pub(in crate::vector) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], FormatFault> {
        let mut array = [0; N];
        array.copy_from_slice(&self.take(field, N as u128)?);
        Ok(array)
    }

    pub(in crate::vector) fn i32(&mut self, field: &'static str) -> Result<i32, FormatFault> {
        self.array(field).map(i32::from_le_bytes)
    }

    /// Reads a 64-bit number that must be `expected`.
    pub(in crate::vector) fn number(
        &mut self,
        field: &'static str,
        expected: u64,
    ) -> Result<(), FormatFault> {
        let offset_bytes = self.offset_bytes;
        let found = u64::from_le_bytes(self.array(field)?);
        let fault = || FormatFault::value(field, offset_bytes, found, expected.to_string());
        if found == expected { Ok(()) } else { Err(fault()) }
    }

    /// Reads a vector of items of `item_bytes` each.
    pub(in crate::vector) fn items(
        &mut self,
        field: &'static str,
        item_bytes: usize,
    ) -> Result<Items, FormatFault> {
        let count = u64::from_le_bytes(self.array(field)?);
        let offset_bytes = self.offset_bytes;
        let bytes = self.take(field, u128::from(count) * item_bytes as u128)?;
        Ok(Items { bytes, offset_bytes })
    }

    /// Reads a vector that must have `count` items.
    pub(in crate::vector) fn exactly(
        &mut self,
        field: &'static str,
        item_bytes: usize,
        count: u128,
    ) -> Result<Items, FormatFault> {
        let offset_bytes = self.offset_bytes;
        let stored_count = u64::from_le_bytes(self.array(field)?);
        if u128::from(stored_count) != count {
            let expected = format!("{count} items");
            return Err(FormatFault::value(field, offset_bytes, stored_count, expected));
        }
        self.offset_bytes = offset_bytes;
        self.items(field, item_bytes)
    }

    /// Reads the start of an index. `named` is the metric that the kind of index implies, if any.
    pub(in crate::vector) fn header(
        &mut self,
        named: Option<Metric>,
    ) -> Result<Header, FormatFault> {
        let start = self.offset_bytes;
        let number = self.i32("dimension")?;
        let dimension = usize::try_from(number).ok().filter(|&dimension| dimension > 0);
        let dimension =
            dimension.ok_or_else(|| FormatFault::value("dimension", start, number, "1 or more"))?;

        let start = self.offset_bytes;
        let number = i64::from_le_bytes(self.array("number of vectors")?);
        let count = u32::try_from(number).map_err(|_| {
            FormatFault::value("number of vectors", start, number, "0 to 4294967295")
        })?;
        // Two numbers that faiss does not read any more either.
        let _: [u8; 16] = self.array("reserved numbers")?;

        let start = self.offset_bytes;
        let [trained] = self.array("trained")?;
        if trained != 1 {
            return Err(FormatFault::value("trained", start, trained, "1"));
        }

        let start = self.offset_bytes;
        let code = self.i32("metric")?;
        let metric = match (code, named) {
            (INNER_PRODUCT, None | Some(Metric::InnerProduct)) => Metric::InnerProduct,
            (L2, None | Some(Metric::L2)) => Metric::L2,
            _ => {
                let expected = match named {
                    None => "0 (inner product) or 1 (L2)",
                    Some(Metric::InnerProduct) => "0 (inner product)",
                    Some(Metric::L2) => "1 (L2)",
                };
                return Err(FormatFault::value("metric", start, code, expected));
            }
        };
        Ok(Header { dimension, count, metric })
    }

    /// Returns an error if there are bytes after the last field.
    pub(in crate::vector) fn finish(self) -> Result<(), FormatFault> {
        let (end_bytes, size_bytes) = (self.offset_bytes, self.bytes.len());
        if end_bytes == size_bytes {
            Ok(())
        } else {
            Err(FormatFault::Trailing { end_bytes, size_bytes })
        }
    }

    /// Reads bytes.
    pub(in crate::vector) fn take(
        &mut self,
        field: &'static str,
        needed_bytes: u128,
    ) -> Result<OwnedBytes, FormatFault> {
        let (offset_bytes, size_bytes) = (self.offset_bytes, self.bytes.len());
        let end =
            usize::try_from(needed_bytes).ok().and_then(|bytes| bytes.checked_add(offset_bytes));
        match end.filter(|&end| end <= size_bytes) {
            Some(end) => {
                self.offset_bytes = end;
                Ok(self.bytes.slice(offset_bytes..end))
            }
            None => Err(FormatFault::Truncated { field, offset_bytes, needed_bytes, size_bytes }),
        }
    }
}
