//! Types of configuration values: conversion from TOML, accepted values in words, and the nearest accepted value
//! for a wrong one. It does not know keys, files or sections.

use std::path::PathBuf;

use toml::Spanned;
use toml::de::DeValue;

/// A value as it was written, before it is converted to its key's type.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum RawValue {
    Text(String),
    Integer(i128),
    Float(f64),
    Bool(bool),
    /// A day or a time, as TOML writes it without quotes.
    Date(String),
    /// A list of texts.
    Texts(Vec<String>),
    /// A value that no key accepts, such as a table or a list of other values: the name of its type.
    Other(&'static str),
}

impl RawValue {
    /// Converts a parsed TOML value.
    pub(super) fn from_toml(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Self::Text(text.to_string()),
            DeValue::Integer(integer) => {
                match i128::from_str_radix(integer.as_str(), integer.radix()) {
                    Ok(integer) => Self::Integer(integer),
                    Err(_) => Self::Other("an integer out of range"),
                }
            }
            DeValue::Float(float) => match float.as_str().parse() {
                Ok(float) => Self::Float(float),
                Err(_) => Self::Other("a number out of range"),
            },
            DeValue::Boolean(flag) => Self::Bool(*flag),
            DeValue::Datetime(date) => Self::Date(date.to_string()),
            DeValue::Array(values) => {
                let text = |value: &Spanned<DeValue<'_>>| match value.get_ref() {
                    DeValue::String(text) => Some(text.to_string()),
                    _ => None,
                };
                let texts: Option<Vec<String>> = values.iter().map(text).collect();
                texts.map_or(Self::Other("a list"), Self::Texts)
            }
            DeValue::Table(_) => Self::Other("a table"),
        }
    }

    /// Returns the value as a message shows it.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Text(text) => quoted(text),
            Self::Integer(integer) => integer.to_string(),
            Self::Float(float) => float.to_string(),
            Self::Bool(flag) => flag.to_string(),
            Self::Date(date) => date.clone(),
            Self::Texts(_) => "a list".to_owned(),
            Self::Other(name) => (*name).to_owned(),
        }
    }
}

/// The numbers that a key accepts. Bounds are exact: all in use are far below 2^53.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Range {
    low: f64,
    low_open: bool,
    high: f64,
    high_open: bool,
}

impl Range {
    pub(super) const ANY: Self =
        Self { low: f64::NEG_INFINITY, low_open: false, high: f64::INFINITY, high_open: false };

    pub(super) const fn at_least(low: f64) -> Self {
        Self { low, ..Self::ANY }
    }

    pub(super) const fn above(low: f64) -> Self {
        Self { low, low_open: true, ..Self::ANY }
    }

    pub(super) const fn between(low: f64, high: f64) -> Self {
        Self { low, high, ..Self::ANY }
    }

    pub(super) const fn above_up_to(low: f64, high: f64) -> Self {
        Self { low, low_open: true, high, high_open: false }
    }

    pub(super) const fn from_below(low: f64, high: f64) -> Self {
        Self { low, low_open: false, high, high_open: true }
    }

    /// Returns the range without negative numbers, for counts.
    fn without_negatives(&self) -> Self {
        if self.low < 0.0 { Self { low: 0.0, low_open: false, ..*self } } else { *self }
    }

    fn contains(&self, number: f64) -> bool {
        let above = if self.low_open { number > self.low } else { number >= self.low };
        let below = if self.high_open { number < self.high } else { number <= self.high };
        above && below && number.is_finite()
    }

    /// Returns the bound nearest to a number outside the range, if the range includes that bound.
    fn nearest(&self, number: f64) -> Option<f64> {
        if number.is_nan() {
            return None;
        }
        let (bound, open) = if number <= self.low {
            (self.low, self.low_open)
        } else {
            (self.high, self.high_open)
        };
        (bound.is_finite() && !open).then_some(bound)
    }

    /// Returns the range in words, such as `", at least 1"`; empty if it includes all numbers.
    fn in_words(&self) -> String {
        let low = match (self.low.is_finite(), self.low_open) {
            (false, _) => None,
            (true, false) => Some(format!("at least {}", self.low)),
            (true, true) => Some(format!("above {}", self.low)),
        };
        let high = match (self.high.is_finite(), self.high_open) {
            (false, _) => None,
            (true, false) => Some(format!("at most {}", self.high)),
            (true, true) => Some(format!("below {}", self.high)),
        };
        match (low, high) {
            (None, None) => String::new(),
            (Some(low), Some(high)) => format!(", {low} and {high}"),
            (Some(bound), None) | (None, Some(bound)) => format!(", {bound}"),
        }
    }
}

/// A refused value: the nearest accepted one as TOML, if there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rejection {
    pub nearest: Option<String>,
}

/// The type of a configuration key.
pub(super) trait ConfigValue: Sized {
    /// Returns the accepted values in words, such as `an integer, at least 1`.
    fn accepts(range: &Range) -> String;
    /// Converts the value, or returns the nearest accepted one.
    fn parse(raw: &RawValue, range: &Range) -> Result<Self, Rejection>;
    /// Returns the value as TOML, or `None` if the key is not set.
    fn to_toml(&self) -> Option<String>;
}

/// Returns `text` as a TOML string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Returns the candidate that `text` is most likely a misspelling of, if any is close.
pub(super) fn nearest_word<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let text = text.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&text, candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance <= candidate.chars().count().max(text.chars().count()).div_ceil(2)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Returns the number that was probably meant, such as that of a quoted number.
fn number_in_quotes(raw: &RawValue) -> Option<f64> {
    match raw {
        RawValue::Text(text) => text.trim().replace('_', "").parse().ok(),
        RawValue::Float(float) => Some(*float),
        RawValue::Integer(integer) => Some(*integer as f64),
        RawValue::Bool(_) | RawValue::Date(_) | RawValue::Texts(_) | RawValue::Other(_) => None,
    }
}

fn parse_integer(raw: &RawValue, range: &Range) -> Result<i128, Rejection> {
    if let RawValue::Integer(integer) = raw
        && range.contains(*integer as f64)
    {
        return Ok(*integer);
    }
    let nearest = number_in_quotes(raw).and_then(|number| {
        let rounded = number.round();
        if range.contains(rounded) { Some(rounded) } else { range.nearest(rounded) }
    });
    Err(Rejection { nearest: nearest.map(|number| format!("{number:.0}")) })
}

macro_rules! integer_value {
    ($($integer:ty),+) => {$(
        impl ConfigValue for $integer {
            fn accepts(range: &Range) -> String {
                format!("an integer{}", range.without_negatives().in_words())
            }

            fn parse(raw: &RawValue, range: &Range) -> Result<Self, Rejection> {
                let integer = parse_integer(raw, &range.without_negatives())?;
                Self::try_from(integer).map_err(|_| Rejection::default())
            }

            fn to_toml(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )+};
}

integer_value!(u64, usize);

impl ConfigValue for f64 {
    fn accepts(range: &Range) -> String {
        format!("a number{}", range.in_words())
    }

    fn parse(raw: &RawValue, range: &Range) -> Result<Self, Rejection> {
        let number = match raw {
            RawValue::Float(float) => Some(*float),
            RawValue::Integer(integer) => Some(*integer as Self),
            RawValue::Text(_)
            | RawValue::Bool(_)
            | RawValue::Date(_)
            | RawValue::Texts(_)
            | RawValue::Other(_) => None,
        };
        if let Some(number) = number
            && range.contains(number)
        {
            return Ok(number);
        }
        let nearest = number_in_quotes(raw).and_then(|number| {
            if range.contains(number) { Some(number) } else { range.nearest(number) }
        });
        Err(Rejection { nearest: nearest.and_then(|number| number.to_toml()) })
    }

    fn to_toml(&self) -> Option<String> {
        // Small learning rates are easier to read as 1e-6 than as 0.000001.
        let small = *self != 0.0 && self.abs() < 1e-3;
        Some(if small { format!("{self:e}") } else { format!("{self:?}") })
    }
}

impl ConfigValue for bool {
    fn accepts(_range: &Range) -> String {
        "true or false".to_owned()
    }

    fn parse(raw: &RawValue, _range: &Range) -> Result<Self, Rejection> {
        let nearest = match raw {
            RawValue::Bool(flag) => return Ok(*flag),
            RawValue::Text(text) => match text.to_lowercase().as_str() {
                "yes" | "on" | "1" => Some("true"),
                "no" | "off" | "0" => Some("false"),
                other => nearest_word(other, ["true", "false"]),
            },
            RawValue::Integer(0) => Some("false"),
            RawValue::Integer(1) => Some("true"),
            RawValue::Integer(_)
            | RawValue::Float(_)
            | RawValue::Date(_)
            | RawValue::Texts(_)
            | RawValue::Other(_) => None,
        };
        Err(Rejection { nearest: nearest.map(str::to_owned) })
    }

    fn to_toml(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl ConfigValue for String {
    fn accepts(_range: &Range) -> String {
        "a text".to_owned()
    }

    fn parse(raw: &RawValue, _range: &Range) -> Result<Self, Rejection> {
        match raw {
            RawValue::Text(text) => Ok(text.clone()),
            RawValue::Texts(_) | RawValue::Other(_) => Err(Rejection::default()),
            RawValue::Integer(_) | RawValue::Float(_) | RawValue::Bool(_) | RawValue::Date(_) => {
                Err(Rejection { nearest: Some(quoted(&raw.shown())) })
            }
        }
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(self))
    }
}

/// Addresses with commas between them, which may also be written as a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses(pub String);

impl Addresses {
    /// Returns the addresses with commas between them.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ConfigValue for Addresses {
    fn accepts(_range: &Range) -> String {
        "a text, or a list of texts".to_owned()
    }

    fn parse(raw: &RawValue, range: &Range) -> Result<Self, Rejection> {
        match raw {
            RawValue::Texts(addresses) => Ok(Self(addresses.join(", "))),
            other => String::parse(other, range).map(Self),
        }
    }

    fn to_toml(&self) -> Option<String> {
        self.0.to_toml()
    }
}

impl ConfigValue for PathBuf {
    fn accepts(_range: &Range) -> String {
        "a path".to_owned()
    }

    fn parse(raw: &RawValue, range: &Range) -> Result<Self, Rejection> {
        String::parse(raw, range).map(Self::from)
    }

    fn to_toml(&self) -> Option<String> {
        (!self.as_os_str().is_empty()).then(|| quoted(&self.to_string_lossy()))
    }
}

impl ConfigValue for Option<PathBuf> {
    fn accepts(_range: &Range) -> String {
        "a path, or nothing".to_owned()
    }

    fn parse(raw: &RawValue, range: &Range) -> Result<Self, Rejection> {
        PathBuf::parse(raw, range).map(|path| (!path.as_os_str().is_empty()).then_some(path))
    }

    fn to_toml(&self) -> Option<String> {
        self.as_ref().and_then(ConfigValue::to_toml)
    }
}
