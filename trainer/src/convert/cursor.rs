//! Reads consecutive little-endian values from a byte slice. Owns the rule that nothing is read or
//! allocated beyond the end of the file, whatever lengths the file states.

use super::error::GgufError;

#[derive(Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// Returns the number of bytes before the next value.
    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    pub(super) fn remaining(&self) -> usize {
        self.bytes.len() - self.offset
    }

    pub(super) fn take(&mut self, length: usize, item: &str) -> Result<&'a [u8], GgufError> {
        let end = self.offset.checked_add(length).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else {
            let rest = format!("{} bytes up to the end of the file", self.remaining());
            return Err(GgufError::form(self.offset, format!("{item} ({length} bytes)"), rest));
        };
        let taken = &self.bytes[self.offset..end];
        self.offset = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, item: &str) -> Result<[u8; N], GgufError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, item)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self, item: &str) -> Result<u8, GgufError> {
        Ok(u8::from_le_bytes(self.array(item)?))
    }

    pub(super) fn u16(&mut self, item: &str) -> Result<u16, GgufError> {
        Ok(u16::from_le_bytes(self.array(item)?))
    }

    pub(super) fn u32(&mut self, item: &str) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(item)?))
    }

    pub(super) fn u64(&mut self, item: &str) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(item)?))
    }

    pub(super) fn f32(&mut self, item: &str) -> Result<f32, GgufError> {
        Ok(f32::from_le_bytes(self.array(item)?))
    }

    pub(super) fn f64(&mut self, item: &str) -> Result<f64, GgufError> {
        Ok(f64::from_le_bytes(self.array(item)?))
    }

    /// Reads a count of items of at least `least_bytes` bytes each. Refuses a count above `count_max`, or one
    /// whose items do not fit into the rest of the file.
    pub(super) fn count(
        &mut self,
        item: &str,
        least_bytes: usize,
        count_max: usize,
    ) -> Result<usize, GgufError> {
        let offset = self.offset;
        let stated = self.u64(item)?;
        let limit = (self.remaining() / least_bytes).min(count_max);
        match usize::try_from(stated) {
            Ok(count) if count <= limit => Ok(count),
            _ => Err(GgufError::form(
                offset,
                format!("{item} of at most {limit}"),
                stated.to_string(),
            )),
        }
    }

    /// Reads a string: its length in bytes as a 64-bit number, then its bytes in UTF-8.
    pub(super) fn text(&mut self, item: &str) -> Result<&'a str, GgufError> {
        let length = self.count(item, 1, usize::MAX)?;
        let offset = self.offset;
        std::str::from_utf8(self.take(length, item)?).map_err(|error| {
            GgufError::form(offset + error.valid_up_to(), format!("{item} in UTF-8"), "other bytes")
        })
    }
}
