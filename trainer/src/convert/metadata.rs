//! The metadata of a GGUF file: typed values by key. Error texts name the key. Owns the value types of the
//! format, not the meaning of any key.

use std::collections::BTreeMap;

use super::cursor::Cursor;
use super::error::GgufError;

/// Longest array: far above any vocabulary or merge table, far below the size of memory.
const ARRAY_LENGTH_MAX: usize = 16_777_216;

/// One metadata value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(&'a str),
    Texts(Vec<&'a str>),
    Integers(Vec<i64>),
    /// An array of a kind that no conversion needs; its values are skipped.
    OtherArray,
}

/// The kind of a value, as the format numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    /// All kinds in the order of their codes, from 0.
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::Text,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    fn parse(cursor: &mut Cursor<'_>) -> Result<Self, GgufError> {
        let offset = cursor.offset();
        let code = cursor.u32("a value type")?;
        Self::ALL
            .get(code as usize)
            .copied()
            .ok_or_else(|| GgufError::form(offset, "a value type of 0 to 12", code.to_string()))
    }

    /// Returns the fewest bytes of a value of this kind.
    fn least_bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::Text | Self::U64 | Self::I64 | Self::F64 => 8,
            Self::Array => 12,
        }
    }
}

impl<'a> Value<'a> {
    /// Reads a value type and a value of that type.
    pub(super) fn parse(cursor: &mut Cursor<'a>) -> Result<Self, GgufError> {
        let kind = Kind::parse(cursor)?;
        if kind == Kind::Array {
            Self::parse_array(cursor)
        } else {
            Self::parse_scalar(cursor, kind)
        }
    }

    fn parse_scalar(cursor: &mut Cursor<'a>, kind: Kind) -> Result<Self, GgufError> {
        let item = "a metadata value";
        Ok(match kind {
            Kind::U8 => Self::Unsigned(cursor.u8(item)?.into()),
            Kind::U16 => Self::Unsigned(cursor.u16(item)?.into()),
            Kind::U32 => Self::Unsigned(cursor.u32(item)?.into()),
            Kind::U64 => Self::Unsigned(cursor.u64(item)?),
            Kind::I8 => Self::Signed(cursor.u8(item)?.cast_signed().into()),
            Kind::I16 => Self::Signed(cursor.u16(item)?.cast_signed().into()),
            Kind::I32 => Self::Signed(cursor.u32(item)?.cast_signed().into()),
            Kind::I64 => Self::Signed(cursor.u64(item)?.cast_signed()),
            Kind::F32 => Self::Float(cursor.f32(item)?.into()),
            Kind::F64 => Self::Float(cursor.f64(item)?),
            Kind::Bool => Self::Bool(cursor.u8(item)? != 0),
            Kind::Text => Self::Text(cursor.text(item)?),
            Kind::Array => {
                return Err(GgufError::form(cursor.offset(), "no array in an array", "one"));
            }
        })
    }

    fn parse_array(cursor: &mut Cursor<'a>) -> Result<Self, GgufError> {
        let kind = Kind::parse(cursor)?;
        let length = cursor.count("an array length", kind.least_bytes(), ARRAY_LENGTH_MAX)?;
        match kind {
            Kind::Text => {
                let texts: Result<_, _> = (0..length).map(|_| cursor.text("a string")).collect();
                Ok(Self::Texts(texts?))
            }
            Kind::U8 | Kind::I8 | Kind::U16 | Kind::I16 | Kind::U32 | Kind::I32 | Kind::I64 => {
                let mut integers = Vec::with_capacity(length);
                for _ in 0..length {
                    let value = Self::parse_scalar(cursor, kind)?;
                    integers.push(value.as_integer().expect("this kind is an integer"));
                }
                Ok(Self::Integers(integers))
            }
            Kind::F32 | Kind::F64 | Kind::Bool | Kind::U64 | Kind::Array => {
                for _ in 0..length {
                    Self::parse_scalar(cursor, kind)?;
                }
                Ok(Self::OtherArray)
            }
        }
    }

    fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Unsigned(value) => Some(value.cast_signed()),
            Self::Signed(value) => Some(*value),
            _ => None,
        }
    }

    /// Describes the value for a message.
    fn describe(&self) -> String {
        const SHOWN_CHARS_MAX: usize = 40;
        match self {
            Self::Unsigned(value) => value.to_string(),
            Self::Signed(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Bool(value) => value.to_string(),
            Self::Text(text) => {
                format!("{:?}", text.chars().take(SHOWN_CHARS_MAX).collect::<String>())
            }
            Self::Texts(texts) => format!("{} strings", texts.len()),
            Self::Integers(integers) => format!("{} integers", integers.len()),
            Self::OtherArray => "an array".to_owned(),
        }
    }
}

/// All metadata of a file. The accessors without `optional_` fail if the key is absent.
#[derive(Debug, Default)]
pub(super) struct Metadata<'a>(BTreeMap<&'a str, Value<'a>>);

impl<'a> Metadata<'a> {
    /// Adds a value; returns `true` if the key already existed.
    pub(super) fn insert(&mut self, key: &'a str, value: Value<'a>) -> bool {
        self.0.insert(key, value).is_some()
    }

    /// Returns all keys, in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.0.keys().copied()
    }

    /// Creates the error that names the value of `key`.
    pub(super) fn wrong(&self, key: &str, expected: &str) -> GgufError {
        let value = self.0.get(key).map_or_else(|| "nothing".to_owned(), Value::describe);
        GgufError::metadata(key, expected, value)
    }

    pub(super) fn optional_unsigned(&self, key: &str) -> Result<Option<u64>, GgufError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Unsigned(value)) => Ok(Some(*value)),
            Some(Value::Signed(value)) if *value >= 0 => Ok(Some(value.cast_unsigned())),
            Some(_) => Err(self.wrong(key, "a whole number")),
        }
    }

    /// Returns a whole number from 1 to `max`.
    pub(super) fn size(&self, key: &str, max: usize) -> Result<usize, GgufError> {
        self.optional_size(key, max)?
            .ok_or_else(|| self.wrong(key, &format!("a whole number from 1 to {max}")))
    }

    pub(super) fn optional_size(&self, key: &str, max: usize) -> Result<Option<usize>, GgufError> {
        match self.optional_unsigned(key)? {
            None => Ok(None),
            Some(value) if (1..=max as u64).contains(&value) => Ok(Some(value as usize)),
            Some(_) => Err(self.wrong(key, &format!("a whole number from 1 to {max}"))),
        }
    }

    /// Returns a finite number above 0.
    pub(super) fn optional_positive(&self, key: &str) -> Result<Option<f64>, GgufError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Float(value)) if value.is_finite() && *value > 0.0 => Ok(Some(*value)),
            Some(_) => Err(self.wrong(key, "a finite number above 0")),
        }
    }

    pub(super) fn positive(&self, key: &str) -> Result<f64, GgufError> {
        self.optional_positive(key)?.ok_or_else(|| self.wrong(key, "a finite number above 0"))
    }

    pub(super) fn optional_bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    pub(super) fn optional_text(&self, key: &str) -> Result<Option<&'a str>, GgufError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(key, "a string")),
        }
    }

    /// Returns a string that is one of `accepted`.
    pub(super) fn one_of(&self, key: &str, accepted: &[&str]) -> Result<&'a str, GgufError> {
        match self.optional_text(key)? {
            Some(text) if accepted.contains(&text) => Ok(text),
            _ => Err(self.wrong(key, &accepted.join(" or "))),
        }
    }

    pub(super) fn texts(&self, key: &str) -> Result<&[&'a str], GgufError> {
        match self.0.get(key) {
            Some(Value::Texts(texts)) => Ok(texts),
            _ => Err(self.wrong(key, "an array of strings")),
        }
    }

    pub(super) fn integers(&self, key: &str) -> Result<&[i64], GgufError> {
        match self.0.get(key) {
            Some(Value::Integers(integers)) => Ok(integers),
            _ => Err(self.wrong(key, "an array of integers")),
        }
    }
}
