//! Fields one after the other, each with its name and place for the error that it may cause.

use tantivy::directory::OwnedBytes;

use super::{FormatFault, Metric};

/// faiss calls inner product 0 and L2 1; others carry an argument and are not read here.
const INNER_PRODUCT: i32 = 0;
const L2: i32 = 1;

/// Reads a file from its start.
#[derive(Debug)]
pub(in crate::vector) struct Cursor {
    bytes: OwnedBytes,
    offset_bytes: usize,
}

/// The items of a vector in the file.
#[derive(Debug)]
pub(in crate::vector) struct Items {
    pub(in crate::vector) bytes: OwnedBytes,
    /// Where the first item stands in the file.
    pub(in crate::vector) offset_bytes: usize,
}

/// What every index starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vector) struct Header {
    pub(in crate::vector) dimension: usize,
    pub(in crate::vector) count: u32,
    pub(in crate::vector) metric: Metric,
}

impl Cursor {
    pub(in crate::vector) fn new(bytes: OwnedBytes) -> Self {
        Self { bytes, offset_bytes: 0 }
    }

    /// Where the next field starts.
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

    /// A vector of items of `item_bytes` each.
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

    /// A vector that must have `count` items.
    pub(in crate::vector) fn exactly(
        &mut self,
        field: &'static str,
        item_bytes: usize,
        count: u128,
    ) -> Result<Items, FormatFault> {
        let offset_bytes = self.offset_bytes;
        let found = u64::from_le_bytes(self.array(field)?);
        if u128::from(found) != count {
            let expected = format!("{count} items");
            return Err(FormatFault::value(field, offset_bytes, found, expected));
        }
        self.offset_bytes = offset_bytes;
        self.items(field, item_bytes)
    }

    /// The start of an index. Some kinds of index have `named` their metric already.
    pub(in crate::vector) fn header(
        &mut self,
        named: Option<Metric>,
    ) -> Result<Header, FormatFault> {
        let start = self.offset_bytes;
        let found = self.i32("dimension")?;
        let dimension = usize::try_from(found).ok().filter(|&dimension| dimension > 0);
        let dimension =
            dimension.ok_or_else(|| FormatFault::value("dimension", start, found, "1 or more"))?;

        let start = self.offset_bytes;
        let found = i64::from_le_bytes(self.array("number of vectors")?);
        let count = u32::try_from(found).map_err(|_| {
            FormatFault::value("number of vectors", start, found, "0 to 4294967295")
        })?;
        // Two numbers that faiss no longer reads either.
        let _: [u8; 16] = self.array("reserved numbers")?;

        let start = self.offset_bytes;
        let [found] = self.array("trained")?;
        if found != 1 {
            return Err(FormatFault::value("trained", start, found, "1"));
        }

        let start = self.offset_bytes;
        let found = self.i32("metric")?;
        let metric = match (found, named) {
            (INNER_PRODUCT, None | Some(Metric::InnerProduct)) => Metric::InnerProduct,
            (L2, None | Some(Metric::L2)) => Metric::L2,
            _ => {
                let expected = match named {
                    None => "0 (inner product) or 1 (L2)",
                    Some(Metric::InnerProduct) => "0 (inner product)",
                    Some(Metric::L2) => "1 (L2)",
                };
                return Err(FormatFault::value("metric", start, found, expected));
            }
        };
        Ok(Header { dimension, count, metric })
    }

    /// Refuses bytes after the last field.
    pub(in crate::vector) fn finish(self) -> Result<(), FormatFault> {
        let (end_bytes, size_bytes) = (self.offset_bytes, self.bytes.len());
        if end_bytes == size_bytes {
            Ok(())
        } else {
            Err(FormatFault::Trailing { end_bytes, size_bytes })
        }
    }

    fn take(&mut self, field: &'static str, needed_bytes: u128) -> Result<OwnedBytes, FormatFault> {
        let (offset_bytes, size_bytes) = (self.offset_bytes, self.bytes.len());
        let end = usize::try_from(needed_bytes).ok().and_then(|one| one.checked_add(offset_bytes));
        match end.filter(|&end| end <= size_bytes) {
            Some(end) => {
                self.offset_bytes = end;
                Ok(self.bytes.slice(offset_bytes..end))
            }
            None => Err(FormatFault::Truncated { field, offset_bytes, needed_bytes, size_bytes }),
        }
    }
}
