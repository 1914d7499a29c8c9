//! Values of templates. They behave as the Python values that a template sees: numbers, texts, lists, dictionaries,
//! undefined values with the error that their use gives. All but namespaces, loops and iterators are immutable.

mod arithmetic;
mod compare;
mod from_json;
mod iterate;
mod print;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

pub(super) use self::arithmetic::{binary, check_size, negative, positive};
pub(super) use self::compare::{check_hashable, compare, equal, is_same, less};
pub(super) use self::iterate::{item, iterated, length, slice};
pub(super) use self::print::{float_text, is_printable, repr, text};

use super::error::{JinjaError, Result};
use super::eval::{LoopState, Macro};

/// Most bytes of a text, and most items of a list, that an expression may make.
pub(super) const SIZE_MAX: usize = 32 * 1024 * 1024;

/// A value.
#[derive(Clone, Debug)]
pub enum Value {
    /// No value; holds the message of the error that its use gives.
    Undefined(Rc<str>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Rc<str>),
    /// A text that is marked as HTML, by `safe` and `escape`.
    Markup(Rc<str>),
    List(Rc<Vec<Value>>),
    Tuple(Rc<Vec<Value>>),
    /// A pair of `groupby`: a tuple with the attributes `grouper` and `list`.
    Group(Rc<Vec<Value>>),
    Dict(Rc<Dict>),
    /// The keys, values or items of a dictionary.
    View(View, Rc<Dict>),
    Range(Range),
    /// Values that are read once, such as the result of `map`.
    Iterator(Rc<Iterated>),
    Namespace(Rc<RefCell<Dict>>),
    /// A function or class of the environment.
    Function(&'static str),
    /// A method of a value.
    Method(Rc<(Value, &'static str)>),
    Macro(Rc<Macro>),
    Loop(Rc<LoopState>),
    Cycler(Rc<Cycler>),
    Joiner(Rc<Joiner>),
}

/// A dictionary in the order of insertion.
#[derive(Clone, Debug, Default)]
pub struct Dict {
    pairs: Vec<(Value, Value)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    Keys,
    Values,
    Items,
}

/// A range of whole numbers; the step is not 0.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    pub(super) start: i128,
    pub(super) stop: i128,
    pub(super) step: i128,
}

/// The rest of an iterator. An error ends it: Python computes such values only when they are read.
#[derive(Debug)]
pub struct Iterated {
    /// The rest in reverse order.
    pub(super) rest: RefCell<Vec<Value>>,
    pub(super) error: RefCell<Option<JinjaError>>,
}

/// The object of `cycler`.
#[derive(Debug)]
pub struct Cycler {
    pub(super) items: Vec<Value>,
    pub(super) position: Cell<usize>,
}

/// The object of `joiner`.
#[derive(Debug)]
pub struct Joiner {
    pub(super) separator: Value,
    pub(super) is_used: Cell<bool>,
}

impl Range {
    pub(super) fn length(self) -> i128 {
        let (start, stop) =
            if self.step > 0 { (self.start, self.stop) } else { (self.stop, self.start) };
        let step = self.step.abs();
        if start >= stop { 0 } else { (stop - start - 1) / step + 1 }
    }

    pub(super) fn values(self) -> Vec<Value> {
        (0..self.length()).map(|index| Value::Int(self.start + index * self.step)).collect()
    }
}

impl Dict {
    /// Creates a dictionary; keys are texts.
    pub fn from_texts(pairs: impl IntoIterator<Item = (String, Value)>) -> Self {
        Self { pairs: pairs.into_iter().map(|(key, value)| (key.into(), value)).collect() }
    }

    pub(super) fn pairs(&self) -> &[(Value, Value)] {
        &self.pairs
    }

    pub(super) fn len(&self) -> usize {
        self.pairs.len()
    }

    pub(super) fn get(&self, key: &Value) -> Option<&Value> {
        self.pairs.iter().find(|(known, _)| equal(known, key)).map(|(_, value)| value)
    }

    pub(super) fn get_text(&self, key: &str) -> Option<&Value> {
        let is_key = |known: &Value| matches!(known, Value::Text(text) if **text == *key);
        self.pairs.iter().find(|(known, _)| is_key(known)).map(|(_, value)| value)
    }

    /// Sets a value; a key that is there keeps its place.
    pub(super) fn insert(&mut self, key: Value, value: Value) {
        match self.pairs.iter_mut().find(|(known, _)| equal(known, &key)) {
            Some((_, old)) => *old = value,
            None => self.pairs.push((key, value)),
        }
    }

    /// Sets a value whose key may be of any type.
    pub(super) fn insert_checked(&mut self, key: Value, value: Value) -> Result<()> {
        check_hashable(&key)?;
        self.insert(key, value);
        Ok(())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<Vec<Value>> for Value {
    fn from(items: Vec<Value>) -> Self {
        Self::List(Rc::new(items))
    }
}

impl From<Dict> for Value {
    fn from(dict: Dict) -> Self {
        Self::Dict(Rc::new(dict))
    }
}

impl Value {
    pub(super) fn undefined(reason: impl Into<String>) -> Self {
        Self::Undefined(reason.into().into())
    }

    pub(super) fn int(number: usize) -> Self {
        Self::Int(number as i128)
    }

    pub(super) fn tuple(items: Vec<Value>) -> Self {
        Self::Tuple(Rc::new(items))
    }

    /// Creates an iterator over values; `error` ends it.
    pub(super) fn iterator(mut items: Vec<Value>, error: Option<JinjaError>) -> Self {
        items.reverse();
        Self::Iterator(Rc::new(Iterated { rest: RefCell::new(items), error: RefCell::new(error) }))
    }

    /// Returns the text of a text or markup.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Markup(text) => Some(text),
            _ => None,
        }
    }

    /// Returns a whole number; true and false are 1 and 0.
    pub(super) fn as_int(&self) -> Option<i128> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Bool(value) => Some(i128::from(*value)),
            _ => None,
        }
    }

    /// Returns a number as a float.
    pub(super) fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(number) => Some(*number),
            _ => self.as_int().map(|number| number as f64),
        }
    }

    pub(super) fn is_undefined(&self) -> bool {
        matches!(self, Self::Undefined(_))
    }

    /// Returns the truth of a value.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(value) => *value,
            Self::Int(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Text(text) | Self::Markup(text) => !text.is_empty(),
            Self::List(items) | Self::Tuple(items) | Self::Group(items) => !items.is_empty(),
            Self::Dict(dict) | Self::View(_, dict) => dict.len() > 0,
            Self::Range(range) => range.length() > 0,
            _ => true,
        }
    }

    /// Returns the name of the Python type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Text(_) => "str",
            Self::Markup(_) => "Markup",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Group(_) => "_GroupTuple",
            Self::Dict(_) => "dict",
            Self::View(View::Keys, _) => "dict_keys",
            Self::View(View::Values, _) => "dict_values",
            Self::View(View::Items, _) => "dict_items",
            Self::Range(_) => "range",
            Self::Iterator(_) => "generator",
            Self::Namespace(_) => "Namespace",
            Self::Function(_) => "function",
            Self::Method(_) => "builtin_function_or_method",
            Self::Macro(_) => "Macro",
            Self::Loop(_) => "LoopContext",
            Self::Cycler(_) => "Cycler",
            Self::Joiner(_) => "Joiner",
        }
    }

    /// Returns the error of using an undefined value.
    pub(super) fn check_defined(&self) -> Result<()> {
        match self {
            Self::Undefined(reason) => Err(JinjaError::Failed(reason.to_string())),
            _ => Ok(()),
        }
    }
}
