//! Expressions.

use std::rc::Rc;

use super::Interpreter;
use super::scope::Scope;
use crate::jinja::error::{Result, unsupported};
use crate::jinja::filters;
use crate::jinja::methods;
use crate::jinja::syntax::{Comparison, Constant, Expr};
use crate::jinja::tests_of_values;
use crate::jinja::value::{self, Dict, Value};

/// Functions and classes that every template has.
const FUNCTIONS: [&str; 8] =
    ["range", "dict", "namespace", "cycler", "joiner", "lipsum", "raise_exception", "strftime_now"];

impl Interpreter<'_> {
    pub(super) fn expression(&self, expression: &Expr, scope: &Rc<Scope>) -> Result<Value> {
        self.deeper(|| self.evaluated(expression, scope))
    }

    fn evaluated(&self, expression: &Expr, scope: &Rc<Scope>) -> Result<Value> {
        match expression {
            Expr::Constant(constant) => Ok(constant_value(constant)),
            Expr::Name(name) => self.name(name, scope),
            Expr::List(items) => self.all(items, scope).map(Value::from),
            Expr::Tuple(items) => self.all(items, scope).map(Value::tuple),
            Expr::Dict(pairs) => {
                let mut dict = Dict::default();
                for (key, value) in pairs {
                    let key = self.expression(key, scope)?;
                    dict.insert_checked(key, self.expression(value, scope)?)?;
                }
                Ok(Value::from(dict))
            }
            Expr::Attribute(inner, name) => {
                let inner = self.expression(inner, scope)?;
                if let Value::Loop(state) = &inner {
                    self.look_ahead(state, name)?;
                }
                methods::attribute_or_item(&inner, name)
            }
            Expr::Item(inner, key) => {
                let inner = self.expression(inner, scope)?;
                let key = self.expression(key, scope)?;
                if let (Value::Loop(state), Some(name)) = (&inner, key.as_text()) {
                    self.look_ahead(state, name)?;
                }
                methods::item_or_attribute(&inner, &key)
            }
            Expr::Slice(inner, parts) => {
                let inner = self.expression(inner, scope)?;
                let mut bounds = [Value::None, Value::None, Value::None];
                for (bound, part) in bounds.iter_mut().zip(parts.iter()) {
                    if let Some(part) = part {
                        *bound = self.expression(part, scope)?;
                    }
                }
                value::slice(&inner, &bounds)
            }
            Expr::Call(callee, arguments) => {
                let callee = self.expression(callee, scope)?;
                let given = self.arguments(arguments, scope)?;
                self.call(&callee, given)
            }
            Expr::Filter(inner, name, arguments) => {
                let input = match inner {
                    Some(inner) => self.expression(inner, scope)?,
                    None => return unsupported("a filter without an input"),
                };
                filters::apply(name, &input, self.arguments(arguments, scope)?)
            }
            Expr::Test(inner, name, arguments) => {
                let value = self.expression(inner, scope)?;
                let given = self.arguments(arguments, scope)?;
                tests_of_values::apply(name, &value, given).map(Value::Bool)
            }
            Expr::Negative(inner) => value::negative(&self.expression(inner, scope)?),
            Expr::Positive(inner) => value::positive(&self.expression(inner, scope)?),
            Expr::Binary(operator, left, right) => {
                let left = self.expression(left, scope)?;
                value::binary(*operator, &left, &self.expression(right, scope)?)
            }
            Expr::Concat(items) => self.concatenated(items, scope),
            _ => self.decided(expression, scope),
        }
    }

    /// Evaluates expressions that decide something: conditions and comparisons.
    fn decided(&self, expression: &Expr, scope: &Rc<Scope>) -> Result<Value> {
        match expression {
            Expr::Not(inner) => Ok(Value::Bool(!self.expression(inner, scope)?.is_true())),
            Expr::And(left, right) => {
                let left = self.expression(left, scope)?;
                if left.is_true() { self.expression(right, scope) } else { Ok(left) }
            }
            Expr::Or(left, right) => {
                let left = self.expression(left, scope)?;
                if left.is_true() { Ok(left) } else { self.expression(right, scope) }
            }
            Expr::Compare(first, others) => self.compared(first, others, scope),
            Expr::Condition { test, then, otherwise } => {
                if self.expression(test, scope)?.is_true() {
                    return self.expression(then, scope);
                }
                match otherwise {
                    Some(otherwise) => self.expression(otherwise, scope),
                    None => Ok(Value::undefined(
                        "the inline if-expression evaluated to false and no else section was defined.",
                    )),
                }
            }
            _ => unsupported("an unknown expression"),
        }
    }

    fn all(&self, items: &[Expr], scope: &Rc<Scope>) -> Result<Vec<Value>> {
        items.iter().map(|item| self.expression(item, scope)).collect()
    }

    fn concatenated(&self, items: &[Expr], scope: &Rc<Scope>) -> Result<Value> {
        let mut text = String::new();
        for item in self.all(items, scope)? {
            text.push_str(&value::text(&item)?);
            value::check_size(text.len())?;
        }
        Ok(Value::from(text))
    }

    /// Evaluates a chain such as `a < b < c`, up to the first comparison that does not hold.
    fn compared(
        &self,
        first: &Expr,
        others: &[(Comparison, Expr)],
        scope: &Rc<Scope>,
    ) -> Result<Value> {
        let mut left = self.expression(first, scope)?;
        for (comparison, right) in others {
            let right = self.expression(right, scope)?;
            if !value::compare(*comparison, &left, &right)? {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }

    pub(super) fn name(&self, name: &str, scope: &Rc<Scope>) -> Result<Value> {
        if let Some(value) = scope.get(name) {
            return Ok(value);
        }
        if let Some(value) = self.context.get_text(name) {
            return Ok(value.clone());
        }
        if let Some(function) = FUNCTIONS.iter().find(|known| **known == name) {
            return Ok(Value::Function(function));
        }
        if name == "self" {
            return unsupported("the name 'self'");
        }
        Ok(Value::undefined(format!("'{name}' is undefined")))
    }
}

fn constant_value(constant: &Constant) -> Value {
    match constant {
        Constant::None => Value::None,
        Constant::Bool(value) => Value::Bool(*value),
        Constant::Int(number) => Value::Int(*number),
        Constant::Float(number) => Value::Float(*number),
        Constant::Text(text) => Value::from(text.as_str()),
    }
}
