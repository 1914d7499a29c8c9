//! The variables that a template sets.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::jinja::value::Value;

/// Variables of a template, a loop or a macro, within those of another scope.
pub(in crate::jinja) struct Scope {
    names: RefCell<BTreeMap<String, Value>>,
    parent: Option<Rc<Scope>>,
}

impl std::fmt::Debug for Scope {
    // A macro is in the scope that it refers to, so the derived form would not end.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Scope").finish_non_exhaustive()
    }
}

impl Scope {
    /// Creates the scope of a template.
    pub(super) fn root() -> Rc<Self> {
        Rc::new(Self { names: RefCell::default(), parent: None })
    }

    /// Creates a scope within another.
    pub(super) fn inside(parent: &Rc<Self>) -> Rc<Self> {
        Rc::new(Self { names: RefCell::default(), parent: Some(Rc::clone(parent)) })
    }

    pub(super) fn set(&self, name: &str, value: Value) {
        self.names.borrow_mut().insert(name.to_owned(), value);
    }

    /// Returns the value of a name in this scope or in one around it.
    pub(super) fn get(&self, name: &str) -> Option<Value> {
        let mut scope = self;
        loop {
            if let Some(value) = scope.names.borrow().get(name) {
                return Some(value.clone());
            }
            scope = scope.parent.as_deref()?;
        }
    }
}
