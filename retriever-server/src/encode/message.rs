//! Messages of Protocol Buffers, which are sequences of fields (Protocol Buffers documentation,
//! "Encoding").

/// A field of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    pub(super) number: u64,
    pub(super) value: Value<'a>,
    /// All bytes of the field, including its number and length.
    pub(super) whole: &'a [u8],
}

/// The value of a field.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    /// A number in a varying number of bytes.
    Number(u64),
    /// A text or a message.
    Bytes(&'a [u8]),
    /// Four or eight bytes, which nothing here reads.
    Fixed,
}

impl<'a> Field<'a> {
    /// Returns the value if it is a text or a message.
    pub(super) fn bytes(&self) -> Option<&'a [u8]> {
        match self.value {
            Value::Bytes(bytes) => Some(bytes),
            Value::Number(_) | Value::Fixed => None,
        }
    }
}

/// Returns the only field of this number, or `None` if there is none or more than one.
pub(super) fn only<'a, 'b>(fields: &'b [Field<'a>], number: u64) -> Option<&'b Field<'a>> {
    let mut matches = fields.iter().filter(|field| field.number == number);
    matches.next().filter(|_| matches.next().is_none())
}

/// Parses the fields of a message. Returns `None` if the bytes are not a message.
pub(super) fn fields(mut message: &[u8]) -> Option<Vec<Field<'_>>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let start = message;
        let tag = take_number(&mut message)?;
        let value = match tag & 7 {
            0 => Value::Number(take_number(&mut message)?),
            1 => take(&mut message, 8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(take_number(&mut message)?).ok()?;
                Value::Bytes(take(&mut message, length)?)
            }
            5 => take(&mut message, 4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        let whole = start.get(..start.len() - message.len())?;
        fields.push(Field { number: tag >> 3, value, whole });
    }
    Some(fields)
}

/// Splits the first `count` bytes off `bytes`.
fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

/// Splits a number off `bytes`. It has seven bits in each byte, the least significant first.
pub(super) fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for position in 0..10 {
        let byte = *take(bytes, 1)?.first()?;
        number |= u64::from(byte & 0x7f) << (7 * position);
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// Appends a number in the format of [`take_number`].
fn push_number(message: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        message.push(number as u8 | 0x80);
        number >>= 7;
    }
    message.push(number as u8);
}

/// Encodes a field with a number.
pub(super) fn number_field(field: u64, number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_number(&mut bytes, field << 3);
    push_number(&mut bytes, number);
    bytes
}

/// Encodes a field with a text or a message.
pub(super) fn bytes_field(field: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(content.len() + 16);
    push_number(&mut bytes, field << 3 | 2);
    push_number(&mut bytes, content.len() as u64);
    bytes.extend_from_slice(content);
    bytes
}
