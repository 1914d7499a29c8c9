//! The filter `tojson` of chat templates: Python's `json.dumps`.

use super::arguments::Given;
use super::characters::push_formatted;
use super::error::{Result, failed, unsupported};
use super::value::{self, Dict, Value, float_text};

const NESTING_MAX: usize = 100;

struct Writer {
    out: String,
    /// The indentation of one level.
    indent: Option<String>,
    item: String,
    key: String,
    ensure_ascii: bool,
    sort_keys: bool,
}

/// Returns the JSON of a value. Without `indent`, a space follows `,` and `:`. With it, every element has its own
/// line.
pub(super) fn to_json(value: &Value, given: Given) -> Result<Value> {
    let mut bound = given.bind("tojson", "/ ensure_ascii? indent? separators? sort_keys?")?;
    let ensure_ascii = bound.flag(0);
    let indent = match bound.unless_none(1) {
        None => None,
        Some(indent) => Some(if let Some(text) = indent.as_text() {
            text.to_owned()
        } else {
            let width = super::arguments::int(&indent)?.max(0);
            value::check_size(usize::try_from(width).unwrap_or(usize::MAX))?;
            " ".repeat(width as usize)
        }),
    };
    let (item, key) = match bound.unless_none(2) {
        None => ((if indent.is_some() { "," } else { ", " }).to_owned(), ": ".to_owned()),
        Some(pair) => {
            let pair = value::iterated(&pair)?;
            match pair.iter().map(Value::as_text).collect::<Option<Vec<_>>>().as_deref() {
                Some([item, key]) => ((*item).to_owned(), (*key).to_owned()),
                _ => return failed("the separators of tojson must be two texts"),
            }
        }
    };
    let sort_keys = bound.flag(3);
    let mut writer = Writer { out: String::new(), indent, item, key, ensure_ascii, sort_keys };
    writer.write(value, 0)?;
    Ok(Value::from(writer.out))
}

impl Writer {
    fn write(&mut self, value: &Value, depth: usize) -> Result<()> {
        if depth > NESTING_MAX {
            return unsupported(format!("JSON of more than {NESTING_MAX} levels"));
        }
        value::check_size(self.out.len())?;
        match value {
            Value::None => self.out.push_str("null"),
            Value::Bool(value) => self.out.push_str(if *value { "true" } else { "false" }),
            Value::Int(number) => self.out.push_str(&number.to_string()),
            Value::Float(number) => self.out.push_str(&json_float(*number)),
            Value::Text(text) | Value::Markup(text) => self.text(text),
            Value::List(items) | Value::Tuple(items) | Value::Group(items) => {
                self.out.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.separate(index, depth + 1);
                    self.write(item, depth + 1)?;
                }
                self.close(items.is_empty(), depth);
                self.out.push(']');
            }
            Value::Dict(dict) => self.dict(dict, depth)?,
            _ => {
                return failed(format!(
                    "Object of type {} is not JSON serializable",
                    value.type_name()
                ));
            }
        }
        Ok(())
    }

    fn dict(&mut self, dict: &Dict, depth: usize) -> Result<()> {
        let mut pairs = dict.pairs().to_vec();
        if self.sort_keys {
            let keys: Vec<Value> = pairs.iter().map(|(key, _)| key.clone()).collect();
            let order = super::filters::sorted_order(&keys)?;
            pairs = order.into_iter().map(|index| pairs[index].clone()).collect();
        }
        self.out.push('{');
        for (index, (key, value)) in pairs.iter().enumerate() {
            self.separate(index, depth + 1);
            let key = match key {
                Value::Text(text) | Value::Markup(text) => text.to_string(),
                Value::Float(number) => json_float(*number),
                Value::Bool(value) => (if *value { "true" } else { "false" }).to_owned(),
                Value::None => "null".to_owned(),
                Value::Int(number) => number.to_string(),
                _ => {
                    return failed(format!(
                        "keys must be str, int, float, bool or None, not {}",
                        key.type_name()
                    ));
                }
            };
            self.text(&key);
            self.out.push_str(&self.key);
            self.write(value, depth + 1)?;
        }
        self.close(pairs.is_empty(), depth);
        self.out.push('}');
        Ok(())
    }

    fn separate(&mut self, index: usize, depth: usize) {
        if index > 0 {
            self.out.push_str(&self.item);
        }
        self.break_line(depth);
    }

    fn close(&mut self, is_empty: bool, depth: usize) {
        if !is_empty {
            self.break_line(depth);
        }
    }

    fn break_line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            self.out.push_str(&indent.repeat(depth));
        }
    }

    fn text(&mut self, text: &str) {
        self.out.push('"');
        for letter in text.chars() {
            match letter {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                '\0'..='\u{1f}' => {
                    push_formatted(&mut self.out, format_args!("\\u{:04x}", u32::from(letter)));
                }
                _ if self.ensure_ascii && letter > '~' => {
                    for unit in letter.encode_utf16(&mut [0; 2]) {
                        push_formatted(&mut self.out, format_args!("\\u{unit:04x}"));
                    }
                }
                _ => self.out.push(letter),
            }
        }
        self.out.push('"');
    }
}

fn json_float(number: f64) -> String {
    if number.is_nan() {
        "NaN".to_owned()
    } else if number.is_infinite() {
        (if number > 0.0 { "Infinity" } else { "-Infinity" }).to_owned()
    } else {
        float_text(number)
    }
}
