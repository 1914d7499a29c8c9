//! Calls: macros, and the functions that every template has.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::scope::Scope;
use super::{Interpreter, check_name};
use crate::jinja::arguments::{self, Given};
use crate::jinja::error::{JinjaError, Result, failed, unsupported};
use crate::jinja::methods;
use crate::jinja::syntax::MacroDefinition;
use crate::jinja::value::{self, Cycler, Dict, Joiner, Range, Value};

/// Most numbers that `range` gives; the limit of jinja2's sandbox.
const RANGE_MAX: i128 = 100_000;

/// A macro with the scope in which it was defined.
#[derive(Debug)]
pub struct Macro {
    definition: Arc<MacroDefinition>,
    scope: Rc<Scope>,
}

impl Macro {
    pub(super) fn new(definition: &Arc<MacroDefinition>, scope: &Rc<Scope>) -> Self {
        Self { definition: Arc::clone(definition), scope: Rc::clone(scope) }
    }

    pub(in crate::jinja) fn name(&self) -> &str {
        &self.definition.name
    }
}

impl Interpreter<'_> {
    pub(super) fn call(&self, callee: &Value, given: Given) -> Result<Value> {
        callee.check_defined()?;
        match callee {
            Value::Function(name) => self.call_function(name, given),
            Value::Method(method) => methods::call(&method.0, method.1, given),
            Value::Macro(definition) => self.call_macro(definition, given).map(Value::from),
            Value::Loop(state) => {
                let iterable = given.bind("loop", "/ iterable")?.take(0);
                self.recurse(state, &iterable).map(Value::from)
            }
            Value::Joiner(joiner) => {
                given.bind("joiner", "")?;
                Ok(if joiner.is_used.replace(true) {
                    joiner.separator.clone()
                } else {
                    Value::from("")
                })
            }
            _ => failed(format!("'{}' object is not callable", callee.type_name())),
        }
    }

    fn call_function(&self, name: &str, given: Given) -> Result<Value> {
        match name {
            "raise_exception" => {
                let message = given.bind(name, "/ message")?.take(0);
                Err(JinjaError::Raised(value::text(&message)?))
            }
            "strftime_now" => {
                let format = given.bind(name, "/ format")?.take(0);
                let Some(format) = format.as_text() else {
                    return failed("strftime_now() argument must be str");
                };
                (self.clock)(format).map(Value::from).map_err(JinjaError::Unsupported)
            }
            "range" => range(given),
            "dict" => Ok(Value::from(dict(given)?)),
            "namespace" => {
                let names = dict(given)?;
                for (name, _) in names.pairs() {
                    if let Some(name) = name.as_text() {
                        check_name(name)?;
                    }
                }
                Ok(Value::Namespace(Rc::new(RefCell::new(names))))
            }
            "cycler" => {
                if given.positional.is_empty() || !given.named.is_empty() {
                    return failed("at least one item has to be provided");
                }
                let cycler = Cycler { items: given.positional, position: Cell::new(0) };
                Ok(Value::Cycler(Rc::new(cycler)))
            }
            "joiner" => {
                let separator = given.bind(name, "/ sep?")?.optional(0);
                let separator = separator.unwrap_or_else(|| Value::from(", "));
                Ok(Value::Joiner(Rc::new(Joiner { separator, is_used: Cell::new(false) })))
            }
            _ => unsupported(format!("the function '{name}'")),
        }
    }

    pub(super) fn call_macro(&self, called: &Macro, given: Given) -> Result<String> {
        let definition = &called.definition;
        let scope = Scope::inside(&called.scope);
        let count = definition.parameters.len();
        let name = &definition.name;
        if given.positional.len() > count && !definition.names.varargs {
            return failed(format!("macro '{name}' takes not more than {count} argument(s)"));
        }
        let mut positional = given.positional.into_iter();
        let mut named = given.named;
        let mut take_named = |wanted: &str| {
            let place = named.iter().position(|(name, _)| name == wanted)?;
            Some(named.remove(place).1)
        };
        let first_default = count - definition.defaults.len();
        for (index, parameter) in definition.parameters.iter().enumerate() {
            let value = match (positional.next(), take_named(parameter)) {
                (Some(_), Some(_)) => {
                    return failed(format!("macro '{name}' got multiple values for '{parameter}'"));
                }
                (Some(value), None) | (None, Some(value)) => value,
                (None, None) if index >= first_default => {
                    let default = &definition.defaults[index - first_default];
                    self.expression(default, &scope)?
                }
                (None, None) => {
                    Value::undefined(format!("parameter '{parameter}' was not provided"))
                }
            };
            scope.set(parameter, value);
        }
        let has_own_caller = definition.parameters.iter().any(|name| name == "caller");
        if definition.names.caller && !has_own_caller {
            let caller = take_named("caller");
            let none = || Value::undefined("No caller defined");
            scope.set("caller", caller.unwrap_or_else(none));
        }
        if definition.names.kwargs {
            scope.set("kwargs", Value::from(Dict::from_texts(named)));
        } else if let Some((unknown, _)) = named.first() {
            return failed(format!("macro '{name}' takes no keyword argument '{unknown}'"));
        }
        if definition.names.varargs {
            scope.set("varargs", Value::tuple(positional.collect()));
        }
        let mut out = String::new();
        self.nodes(&definition.body, &scope, &mut out)?;
        Ok(out)
    }
}

fn range(given: Given) -> Result<Value> {
    let mut bound = given.bind("range", "start stop? step?")?;
    let first = arguments::int(&bound.take(0))?;
    let stop = bound.optional(1);
    let step = bound.int(2, 1)?;
    let (start, stop) = match stop {
        Some(stop) => (first, arguments::int(&stop)?),
        None => (0, first),
    };
    if step == 0 {
        return failed("range() arg 3 must not be zero");
    }
    let range = Range { start, stop, step };
    if start.unsigned_abs() > 1 << 100
        || stop.unsigned_abs() > 1 << 100
        || range.length() > RANGE_MAX
    {
        return failed(format!(
            "Range too big. The sandbox blocks ranges larger than {RANGE_MAX}."
        ));
    }
    Ok(Value::Range(range))
}

/// Builds a dictionary from one mapping or list of pairs, and from names.
fn dict(given: Given) -> Result<Dict> {
    let mut positional = given.positional.into_iter();
    let mut dict = match positional.next() {
        None => Dict::default(),
        Some(Value::Dict(dict)) => (*dict).clone(),
        Some(pairs) => {
            let mut dict = Dict::default();
            for pair in value::iterated(&pairs)? {
                let [key, value]: [Value; 2] = match value::iterated(&pair)?.try_into() {
                    Ok(pair) => pair,
                    Err(_) => return failed("a dictionary is made of pairs"),
                };
                dict.insert_checked(key, value)?;
            }
            dict
        }
    };
    if positional.next().is_some() {
        return failed("dict expected at most 1 argument");
    }
    for (name, value) in given.named {
        dict.insert(Value::from(name), value);
    }
    Ok(dict)
}
