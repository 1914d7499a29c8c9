//! Loops and the name `loop`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::scope::Scope;
use super::{Flow, Interpreter};
use crate::jinja::arguments::Given;
use crate::jinja::error::{Result, failed};
use crate::jinja::syntax::For;
use crate::jinja::value::{self, Value};

/// The state of a running loop, which the name `loop` shows.
#[derive(Debug)]
pub struct LoopState {
    definition: Arc<For>,
    /// The scope around the loop.
    scope: Rc<Scope>,
    depth: usize,
    index: Cell<usize>,
    /// The items of the loop so far, at least up to the current one.
    items: RefCell<Vec<Value>>,
    /// The values that have not passed the condition of the loop yet, in reverse order.
    pending: RefCell<Vec<Value>>,
    changed: RefCell<Option<Vec<Value>>>,
}

impl LoopState {
    fn length(&self) -> usize {
        self.items.borrow().len()
    }

    fn neighbour(&self, index: Option<usize>, reason: &str) -> Value {
        let item = index.and_then(|index| self.items.borrow().get(index).cloned());
        item.unwrap_or_else(|| Value::undefined(reason))
    }

    pub(in crate::jinja) fn attribute(&self, name: &str) -> Option<Value> {
        let index = self.index.get();
        Some(match name {
            "index0" => Value::int(index),
            "index" => Value::int(index + 1),
            "revindex0" => Value::int(self.length() - 1 - index),
            "revindex" => Value::int(self.length() - index),
            "first" => Value::Bool(index == 0),
            "last" => Value::Bool(index + 1 == self.length()),
            "length" => Value::int(self.length()),
            "depth0" => Value::int(self.depth),
            "depth" => Value::int(self.depth + 1),
            "previtem" => self.neighbour(index.checked_sub(1), "there is no previous item"),
            "nextitem" => self.neighbour(Some(index + 1), "there is no next item"),
            _ => return None,
        })
    }

    pub(in crate::jinja) fn call(&self, name: &str, given: Given) -> Result<Value> {
        if !given.named.is_empty() {
            return failed(format!("loop.{name}() takes no keyword arguments"));
        }
        let values = given.positional;
        if name == "cycle" {
            if values.is_empty() {
                return failed("no items for cycling given");
            }
            return Ok(values[self.index.get() % values.len()].clone());
        }
        let new = Some(values);
        let mut known = self.changed.borrow_mut();
        let is_same = match (&*known, &new) {
            (Some(known), Some(new)) => {
                known.len() == new.len()
                    && known.iter().zip(new).all(|(known, new)| value::equal(known, new))
            }
            _ => false,
        };
        if is_same {
            return Ok(Value::Bool(false));
        }
        *known = new;
        Ok(Value::Bool(true))
    }

    pub(in crate::jinja) fn description(&self) -> String {
        format!("<LoopContext {}/{}>", self.index.get() + 1, self.length())
    }
}

impl Interpreter<'_> {
    pub(super) fn for_loop(
        &self,
        definition: &Arc<For>,
        scope: &Rc<Scope>,
        out: &mut String,
    ) -> Result<Flow> {
        let iterable = self
            .expression(&definition.iterable, scope)
            .map_err(|error| error.at(definition.line))?;
        self.iterate(definition, &iterable, scope, 0, out)?;
        Ok(Flow::Next)
    }

    /// Renders `loop(iterable)`: the loop again, one level deeper.
    pub(super) fn recurse(&self, state: &LoopState, iterable: &Value) -> Result<String> {
        if !state.definition.is_recursive {
            return failed("The loop must have the 'recursive' marker to be called recursively.");
        }
        let mut out = String::new();
        self.iterate(&state.definition, iterable, &state.scope, state.depth + 1, &mut out)?;
        Ok(out)
    }

    fn iterate(
        &self,
        definition: &Arc<For>,
        iterable: &Value,
        scope: &Rc<Scope>,
        depth: usize,
        out: &mut String,
    ) -> Result<()> {
        let items = value::iterated(iterable).map_err(|error| error.at(definition.line))?;
        let (items, mut pending) = match &definition.condition {
            None => (items, Vec::new()),
            Some(_) => (Vec::new(), items),
        };
        pending.reverse();
        let state = Rc::new(LoopState {
            definition: Arc::clone(definition),
            scope: Rc::clone(scope),
            depth,
            index: Cell::new(0),
            items: RefCell::new(items),
            pending: RefCell::new(pending),
            changed: RefCell::default(),
        });
        for index in 0.. {
            self.pull(&state, index)?;
            let Some(item) = state.items.borrow().get(index).cloned() else { break };
            state.index.set(index);
            let inner = Scope::inside(scope);
            inner.set("loop", Value::Loop(Rc::clone(&state)));
            self.assign(&definition.target, item, &inner)
                .map_err(|error| error.at(definition.line))?;
            if self.nodes(&definition.body, &inner, out)? == Flow::Break {
                break;
            }
        }
        if state.items.borrow().is_empty() {
            self.nodes(&definition.otherwise, &Scope::inside(scope), out)?;
        }
        Ok(())
    }

    /// Reads what an attribute of `loop` needs of the items to come.
    pub(super) fn look_ahead(&self, state: &LoopState, attribute: &str) -> Result<()> {
        match attribute {
            "last" | "nextitem" => self.pull(state, state.index.get() + 1),
            "length" | "revindex" | "revindex0" => self.pull(state, usize::MAX),
            _ => Ok(()),
        }
    }

    /// Applies the condition of a loop up to the item `index`, as late as Python does: it may depend on what the
    /// body has set.
    fn pull(&self, state: &LoopState, index: usize) -> Result<()> {
        let Some(condition) = &state.definition.condition else { return Ok(()) };
        let line = state.definition.line;
        while state.length() <= index {
            let Some(item) = state.pending.borrow_mut().pop() else { return Ok(()) };
            let inner = Scope::inside(&state.scope);
            self.assign(&state.definition.target, item.clone(), &inner)?;
            let holds = self.expression(condition, &inner).map_err(|error| error.at(line))?;
            if holds.is_true() {
                state.items.borrow_mut().push(item);
            }
        }
        Ok(())
    }
}
