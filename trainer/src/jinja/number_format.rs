//! Numbers and texts in a width, with a precision and a sign: what Python's two ways of formatting share.

use super::error::{Result, failed, unsupported};
use super::value::{SIZE_MAX, Value, float_text};

/// How a value is formatted: `[[fill]align][sign][#][0][width][,][.precision][type]`.
#[derive(Clone, Debug)]
pub(super) struct Specification {
    pub(super) fill: char,
    pub(super) align: Option<char>,
    pub(super) sign: char,
    pub(super) is_alternate: bool,
    pub(super) grouping: Option<char>,
    pub(super) width: usize,
    pub(super) precision: Option<usize>,
    pub(super) kind: Option<char>,
}

impl Default for Specification {
    fn default() -> Self {
        Self {
            fill: ' ',
            align: None,
            sign: '-',
            is_alternate: false,
            grouping: None,
            width: 0,
            precision: None,
            kind: None,
        }
    }
}

impl Specification {
    /// Reads a specification of `str.format`.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut specification = Self::default();
        let letters: Vec<char> = text.chars().collect();
        let mut at = 0;
        let is_align = |letter: Option<&char>| letter.is_some_and(|mark| "<>=^".contains(*mark));
        let mut has_fill = false;
        if is_align(letters.get(1)) {
            (specification.fill, specification.align) = (letters[0], Some(letters[1]));
            has_fill = true;
            at = 2;
        } else if is_align(letters.first()) {
            specification.align = Some(letters[0]);
            at = 1;
        }
        if let Some(sign) = letters.get(at).filter(|mark| "+- ".contains(**mark)) {
            specification.sign = *sign;
            at += 1;
        }
        if letters.get(at) == Some(&'#') {
            specification.is_alternate = true;
            at += 1;
        }
        if letters.get(at) == Some(&'0') {
            if !has_fill {
                specification.fill = '0';
                specification.align = specification.align.or(Some('='));
            }
            at += 1;
        }
        specification.width = read_number(&letters, &mut at)?.unwrap_or(0);
        if let Some(mark) = letters.get(at).filter(|mark| ",_".contains(**mark)) {
            specification.grouping = Some(*mark);
            at += 1;
        }
        if letters.get(at) == Some(&'.') {
            at += 1;
            let Some(precision) = read_number(&letters, &mut at)? else {
                return failed("Format specifier missing precision");
            };
            specification.precision = Some(precision);
        }
        if at < letters.len() {
            specification.kind = Some(letters[at]);
            at += 1;
        }
        if at < letters.len() {
            return failed(format!("Invalid format specifier '{text}'"));
        }
        Ok(specification)
    }

    /// Fills a text up to the width.
    pub(super) fn padded(&self, text: &str, default_align: char) -> String {
        let length = text.chars().count();
        let missing = self.width.saturating_sub(length);
        let fill = |count: usize| -> String { std::iter::repeat_n(self.fill, count).collect() };
        match self.align.unwrap_or(default_align) {
            '<' => text.to_owned() + &fill(missing),
            '^' => fill(missing / 2) + text + &fill(missing - missing / 2),
            '=' => {
                let digits = text.trim_start_matches(['+', '-', ' ']);
                let (sign, digits) = text.split_at(text.len() - digits.len());
                format!("{sign}{}{digits}", fill(missing))
            }
            _ => fill(missing) + text,
        }
    }

    /// Formats a text.
    pub(super) fn text(&self, text: &str) -> Result<String> {
        if self.kind.is_some_and(|kind| kind != 's') {
            return self.unknown("str");
        }
        if self.sign != '-' || self.is_alternate || self.grouping.is_some() {
            return failed("this format specifier is not allowed for text");
        }
        if self.align == Some('=') {
            if self.fill != '0' || self.width == 0 {
                return failed("'=' alignment not allowed in string format specifier");
            }
            // A zero before the width fills at the end of a text.
            let left = Self { align: Some('<'), ..self.clone() };
            return left.text(text);
        }
        let cut: String = text.chars().take(self.precision.unwrap_or(usize::MAX)).collect();
        Ok(self.padded(&cut, '<'))
    }

    fn unknown<T>(&self, name: &str) -> Result<T> {
        let kind = self.kind.unwrap_or_default();
        failed(format!("Unknown format code '{kind}' for object of type '{name}'"))
    }

    fn signed(&self, is_negative: bool, digits: &str) -> String {
        let sign = match (is_negative, self.sign) {
            (true, _) => "-",
            (false, '+') => "+",
            (false, ' ') => " ",
            _ => "",
        };
        format!("{sign}{digits}")
    }

    /// Formats a whole number.
    pub(super) fn whole(&self, number: i128) -> Result<String> {
        let magnitude = number.unsigned_abs();
        let (prefix, digits, group) = match self.kind {
            None | Some('d' | 'n') => ("", magnitude.to_string(), 3),
            Some('b') => ("0b", format!("{magnitude:b}"), 4),
            Some('o') => ("0o", format!("{magnitude:o}"), 4),
            Some('x') => ("0x", format!("{magnitude:x}"), 4),
            Some('X') => ("0X", format!("{magnitude:X}"), 4),
            Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%') => return self.float(number as f64),
            Some('c') => return unsupported("the format code 'c'"),
            Some(_) => return self.unknown("int"),
        };
        if self.precision.is_some() {
            return failed("Precision not allowed in integer format specifier");
        }
        if self.grouping == Some(',') && group == 4 {
            return failed("Cannot specify ',' with this format code");
        }
        let prefix = if self.is_alternate { prefix } else { "" };
        let digits = self.grouped(&digits, group, "");
        if self.fill == '0'
            && self.align == Some('=')
            && (!prefix.is_empty() || self.grouping.is_some())
        {
            return unsupported("zeros before a number with a prefix or separators");
        }
        Ok(self.padded(&self.signed(number < 0, &format!("{prefix}{digits}")), '>'))
    }

    fn grouped(&self, digits: &str, group: usize, rest: &str) -> String {
        let Some(mark) = self.grouping else { return format!("{digits}{rest}") };
        let mut out = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(group) {
                out.push(mark);
            }
            out.push(digit);
        }
        out + rest
    }

    /// Formats a float.
    pub(super) fn float(&self, number: f64) -> Result<String> {
        let precision = self.precision;
        if precision.is_some_and(|precision| precision > 10_000) {
            return unsupported("a precision above 10000");
        }
        let magnitude = number.abs();
        let is_upper = self.kind.is_some_and(|kind| kind.is_ascii_uppercase());
        let mut digits = if magnitude.is_nan() {
            "nan".to_owned()
        } else if magnitude.is_infinite() {
            "inf".to_owned()
        } else {
            match self.kind {
                Some('f' | 'F') => format!("{magnitude:.*}", precision.unwrap_or(6)),
                Some('e' | 'E') => scientific(magnitude, precision.unwrap_or(6)),
                Some('%') => format!("{:.*}", precision.unwrap_or(6), magnitude * 100.0),
                Some('g' | 'G' | 'n') => {
                    general(magnitude, precision.unwrap_or(6), self.is_alternate)
                }
                None => match precision {
                    None => float_text(magnitude),
                    Some(precision) => {
                        let text = general(magnitude, precision, false);
                        let is_whole = !text.contains(['.', 'e']);
                        if is_whole && text.len() >= precision.max(1) {
                            // Without a type there is always a digit after the point, or an exponent.
                            return unsupported("a precision without a type for a whole float");
                        }
                        if is_whole { text + ".0" } else { text }
                    }
                },
                Some(_) => return self.unknown("float"),
            }
        };
        if self.is_alternate && !digits.contains('.') && magnitude.is_finite() {
            match digits.find('e') {
                Some(at) => digits.insert(at, '.'),
                None => digits.push('.'),
            }
        }
        let end = digits.find(['.', 'e']).unwrap_or(digits.len());
        if self.grouping.is_some() && self.fill == '0' && self.align == Some('=') {
            return unsupported("zeros before a number with separators");
        }
        let mut digits = if magnitude.is_finite() {
            self.grouped(&digits[..end], 3, &digits[end..])
        } else {
            digits
        };
        if is_upper {
            digits = digits.to_ascii_uppercase();
        }
        if self.kind == Some('%') {
            digits.push('%');
        }
        let is_negative = number.is_sign_negative() && !number.is_nan();
        Ok(self.padded(&self.signed(is_negative, &digits), '>'))
    }

    /// Formats a value as `format(value, specification)` does; `text` is `str(value)`.
    pub(super) fn value(&self, value: &Value, text: &str, is_empty: bool) -> Result<String> {
        if is_empty {
            return Ok(text.to_owned());
        }
        match value {
            Value::Text(_) | Value::Markup(_) => self.text(text),
            Value::Int(number) => self.whole(*number),
            Value::Bool(_) if self.kind.is_none() => unsupported("a width for true or false"),
            Value::Bool(value) => self.whole(i128::from(*value)),
            Value::Float(number) => self.float(*number),
            _ => failed(format!(
                "unsupported format string passed to {}.__format__",
                value.type_name()
            )),
        }
    }
}

/// Reads a width or precision.
fn read_number(letters: &[char], at: &mut usize) -> Result<Option<usize>> {
    let digits: String =
        letters[*at..].iter().take_while(|letter| letter.is_ascii_digit()).collect();
    *at += digits.len();
    if digits.is_empty() {
        return Ok(None);
    }
    match digits.parse() {
        Ok(number) if number <= SIZE_MAX => Ok(Some(number)),
        _ => unsupported(format!("a width or precision of {digits}")),
    }
}

/// Writes `d.ddde+xx`.
pub(super) fn scientific(magnitude: f64, precision: usize) -> String {
    let text = format!("{magnitude:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// Writes the shorter of the two forms with `precision` digits, without zeros at the end.
pub(super) fn general(magnitude: f64, precision: usize, keeps_zeros: bool) -> String {
    let precision = precision.max(1);
    let text = format!("{magnitude:.*e}", precision - 1);
    let exponent: i32 =
        text.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or_default();
    let trimmed = |digits: &str| {
        if keeps_zeros || !digits.contains('.') {
            digits.to_owned()
        } else {
            digits.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    };
    if exponent < -4 || exponent >= precision as i32 {
        let text = scientific(magnitude, precision - 1);
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "+00"));
        return format!("{}e{exponent}", trimmed(digits));
    }
    let decimals = (precision as i32 - 1 - exponent).max(0) as usize;
    trimmed(&format!("{magnitude:.decimals$}"))
}
