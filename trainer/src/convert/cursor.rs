//! Reads little-endian values one after the other out of a byte slice. Owns the rule that nothing is
//! read or allocated past the end of the file, whatever lengths the file states.

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

    /// Bytes from the start of the file to the next value.
    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    pub(super) fn remaining(&self) -> usize {
        self.bytes.len() - self.offset
    }

    pub(super) fn take(&mut self, length: usize, what: &str) -> Result<&'a [u8], GgufError> {
        let end = self.offset.checked_add(length).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else {
            let found = format!("{} bytes up to the end of the file", self.remaining());
            return Err(GgufError::form(self.offset, format!("{what} ({length} bytes)"), found));
        };
        let taken = &self.bytes[self.offset..end];
        self.offset = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self, what: &str) -> Result<u8, GgufError> {
        Ok(u8::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u16(&mut self, what: &str) -> Result<u16, GgufError> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    pub(super) fn f32(&mut self, what: &str) -> Result<f32, GgufError> {
        Ok(f32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn f64(&mut self, what: &str) -> Result<f64, GgufError> {
        Ok(f64::from_le_bytes(self.array(what)?))
    }

    /// A count of things that take at least `least_bytes` bytes each: refused when the rest of the
    /// file cannot hold them, or when there are more than `count_max`.
    pub(super) fn count(
        &mut self,
        what: &str,
        least_bytes: usize,
        count_max: usize,
    ) -> Result<usize, GgufError> {
        let offset = self.offset;
        let stated = self.u64(what)?;
        let limit = (self.remaining() / least_bytes).min(count_max);
        match usize::try_from(stated) {
            Ok(count) if count <= limit => Ok(count),
            _ => Err(GgufError::form(
                offset,
                format!("{what} of at most {limit}"),
                stated.to_string(),
            )),
        }
    }

    /// A string: its length in bytes as a 64-bit number, then its bytes in UTF-8.
    pub(super) fn text(&mut self, what: &str) -> Result<&'a str, GgufError> {
        let length = self.count(what, 1, usize::MAX)?;
        let offset = self.offset;
        std::str::from_utf8(self.take(length, what)?).map_err(|error| {
            GgufError::form(offset + error.valid_up_to(), format!("{what} in UTF-8"), "other bytes")
        })
    }
}
