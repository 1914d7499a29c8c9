//! Behaviour of the whole, one module a behaviour.

mod tidy;
