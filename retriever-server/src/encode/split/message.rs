//! Messages of Protocol Buffers, field after field (Protocol Buffers documentation, "Encoding").

/// A field of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    pub(super) number: u64,
    pub(super) value: Value<'a>,
    /// All of its bytes, its number and length included.
    pub(super) whole: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Four or eight bytes.
    Fixed,
}

impl<'a> Field<'a> {
    pub(super) fn bytes(&self) -> Option<&'a [u8]> {
        match self.value {
            Value::Bytes(bytes) => Some(bytes),
            Value::Number(_) | Value::Fixed => None,
        }
    }
}

/// The only field of this number.
pub(super) fn only<'a, 'b>(fields: &'b [Field<'a>], number: u64) -> Option<&'b Field<'a>> {
    let mut found = fields.iter().filter(|field| field.number == number);
    found.next().filter(|_| found.next().is_none())
}

/// The fields of a message; `None` if it is none.
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

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = bytes.split_at_checked(count)?;
    *bytes = left;
    Some(taken)
}

/// A number of seven bits a byte, the least first.
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

fn put_varint(message: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        message.push(number as u8 | 0x80);
        number >>= 7;
    }
    message.push(number as u8);
}

/// A field with a number.
pub(super) fn number_field(field: u64, number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_varint(&mut bytes, field << 3);
    put_varint(&mut bytes, number);
    bytes
}

/// A field with text, or with a message.
pub(super) fn bytes_field(field: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(content.len() + 16);
    put_varint(&mut bytes, field << 3 | 2);
    put_varint(&mut bytes, content.len() as u64);
    bytes.extend_from_slice(content);
    bytes
}
