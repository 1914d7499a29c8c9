//! Renders the syntax tree. Statements are here, expressions in `expression`, loops in `iteration`, macros and
//! functions in `call`.

mod call;
mod expression;
mod iteration;
mod scope;

use std::cell::Cell;
use std::rc::Rc;

pub(super) use self::call::Macro;
pub(super) use self::iteration::LoopState;

use self::scope::Scope;
use super::arguments::Given;
use super::error::{JinjaError, Result, failed, unsupported};
use super::filters;
use super::syntax::{Arguments, Expr, MacroDefinition, Node, Target};
use super::value::{self, Dict, Value};

/// Formats the current time for `strftime_now`, or says why the format cannot be used.
pub type Clock<'c> = &'c dyn Fn(&str) -> std::result::Result<String, String>;

/// Most levels of statements, expressions and calls within each other.
const DEPTH_MAX: usize = 400;
/// Most statements and expressions that one rendering computes.
const STEPS_MAX: u64 = 5_000_000;

/// Where a statement leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

/// A rendering.
pub(super) struct Interpreter<'c> {
    context: Dict,
    clock: Clock<'c>,
    depth: Cell<usize>,
    steps: Cell<u64>,
}

/// Renders nodes.
pub(super) fn render(nodes: &[Node], context: Dict, clock: Clock<'_>) -> Result<String> {
    let interpreter = Interpreter { context, clock, depth: Cell::new(0), steps: Cell::new(0) };
    let mut out = String::new();
    interpreter.nodes(nodes, &Scope::root(), &mut out)?;
    Ok(out)
}

impl Interpreter<'_> {
    /// Runs a part one level deeper, within the limits.
    fn deeper<T>(&self, run: impl FnOnce() -> Result<T>) -> Result<T> {
        let (depth, steps) = (self.depth.get(), self.steps.get());
        if depth >= DEPTH_MAX {
            return unsupported(format!("more than {DEPTH_MAX} levels of calls and expressions"));
        }
        if steps >= STEPS_MAX {
            return unsupported(format!("a template that takes more than {STEPS_MAX} steps"));
        }
        self.depth.set(depth + 1);
        self.steps.set(steps + 1);
        let result = run();
        self.depth.set(depth);
        result
    }

    fn nodes(&self, nodes: &[Node], scope: &Rc<Scope>, out: &mut String) -> Result<Flow> {
        for node in nodes {
            let flow = self.deeper(|| self.node(node, scope, out))?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn node(&self, node: &Node, scope: &Rc<Scope>, out: &mut String) -> Result<Flow> {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Output(line, expression) => {
                let text = self.expression(expression, scope).and_then(|value| value::text(&value));
                out.push_str(&text.map_err(|error| error.at(*line))?);
                value::check_size(out.len())?;
            }
            Node::Set(line, target, expression) => {
                let set = self
                    .expression(expression, scope)
                    .and_then(|value| self.assign(target, value, scope));
                set.map_err(|error| error.at(*line))?;
            }
            Node::SetBlock(line, target, filter, body) => {
                let inner = Scope::inside(scope);
                let mut text = String::new();
                let flow = self.nodes(body, &inner, &mut text)?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                let mut value = Value::from(text);
                if let Some(filter) = filter {
                    value = self
                        .filter_block(filter, value, &inner)
                        .map_err(|error| error.at(*line))?;
                }
                self.assign(target, value, scope).map_err(|error| error.at(*line))?;
            }
            Node::For(for_loop) => return self.for_loop(for_loop, scope, out),
            Node::If(line, branches, otherwise) => {
                for (test, body) in branches {
                    let test = self.expression(test, scope).map_err(|error| error.at(*line))?;
                    if test.is_true() {
                        return self.nodes(body, scope, out);
                    }
                }
                return self.nodes(otherwise, scope, out);
            }
            Node::With(line, values, body) => {
                let inner = Scope::inside(scope);
                for (target, expression) in values {
                    let set = self
                        .expression(expression, scope)
                        .and_then(|value| self.assign(target, value, &inner));
                    set.map_err(|error| error.at(*line))?;
                }
                return self.nodes(body, &inner, out);
            }
            Node::Macro(definition) => {
                let value = Value::Macro(Rc::new(Macro::new(definition, scope)));
                scope.set(&definition.name, value);
            }
            Node::CallBlock(line, caller, call) => {
                let text = self.call_block(caller, call, scope).map_err(|error| error.at(*line))?;
                out.push_str(&text);
            }
            Node::FilterBlock(line, filter, body) => {
                let inner = Scope::inside(scope);
                let mut text = String::new();
                let flow = self.nodes(body, &inner, &mut text)?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                let value = self.filter_block(filter, Value::from(text), &inner);
                let text = value.and_then(|value| value::text(&value));
                out.push_str(&text.map_err(|error| error.at(*line))?);
            }
            Node::Generation(body) => {
                self.nodes(body, &Scope::inside(scope), out)?;
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    /// Applies filters that have no input of their own.
    fn filter_block(&self, filter: &Expr, input: Value, scope: &Rc<Scope>) -> Result<Value> {
        let Expr::Filter(inner, name, arguments) = filter else { return Ok(input) };
        let input = match inner {
            Some(inner) => self.filter_block(inner, input, scope)?,
            None => input,
        };
        filters::apply(name, &input, self.arguments(arguments, scope)?)
    }

    fn call_block(
        &self,
        caller: &std::sync::Arc<MacroDefinition>,
        call: &Expr,
        scope: &Rc<Scope>,
    ) -> Result<String> {
        let Expr::Call(callee, arguments) = call else { return failed("expected a call") };
        let callee = self.expression(callee, scope)?;
        let mut given = self.arguments(arguments, scope)?;
        let body = Value::Macro(Rc::new(Macro::new(caller, scope)));
        given.named.push(("caller".to_owned(), body));
        value::text(&self.call(&callee, given)?)
    }

    fn assign(&self, target: &Target, value: Value, scope: &Rc<Scope>) -> Result<()> {
        match target {
            Target::Name(name) => scope.set(name, value),
            Target::Tuple(targets) => {
                let values = value::iterated(&value)?;
                if values.len() != targets.len() {
                    return failed(format!(
                        "cannot unpack {} values into {} names",
                        values.len(),
                        targets.len()
                    ));
                }
                for (target, value) in targets.iter().zip(values) {
                    self.assign(target, value, scope)?;
                }
            }
            Target::Attribute(name, attribute) => {
                let Value::Namespace(names) = self.name(name, scope)? else {
                    return failed("cannot assign attribute on non-namespace object");
                };
                check_name(attribute)?;
                names.borrow_mut().insert(Value::from(attribute.as_str()), value);
            }
        }
        Ok(())
    }

    fn arguments(&self, arguments: &Arguments, scope: &Rc<Scope>) -> Result<Given> {
        let mut given = Given::default();
        for argument in &arguments.positional {
            given.positional.push(self.expression(argument, scope)?);
        }
        for (name, argument) in &arguments.named {
            given.named.push((name.clone(), self.expression(argument, scope)?));
        }
        if let Some(spread) = &arguments.spread {
            given.positional.extend(value::iterated(&self.expression(spread, scope)?)?);
        }
        if let Some(spread) = &arguments.spread_named {
            let spread = self.expression(spread, scope)?;
            spread.check_defined()?;
            let Value::Dict(dict) = &spread else {
                return failed(format!(
                    "argument after ** must be a mapping, not {}",
                    spread.type_name()
                ));
            };
            for (key, value) in dict.pairs() {
                let Some(name) = key.as_text() else { return failed("keywords must be strings") };
                if given.named.iter().any(|(known, _)| known == name) {
                    return failed(format!("got multiple values for keyword argument '{name}'"));
                }
                given.named.push((name.to_owned(), value.clone()));
            }
        }
        Ok(given)
    }
}

/// Refuses names that a namespace may not have.
fn check_name(name: &str) -> Result<()> {
    if name.starts_with('_') {
        return Err(JinjaError::Failed(format!("a namespace cannot store the attribute '{name}'")));
    }
    Ok(())
}
