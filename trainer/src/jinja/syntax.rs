//! The syntax tree of a template.

use std::sync::Arc;

/// A constant in the source.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Constant {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
}

/// A binary operator of arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Modulo,
    Power,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Unequal,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    NotIn,
}

#[derive(Debug)]
pub(super) enum Expr {
    Constant(Constant),
    Name(String),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Attribute(Box<Expr>, String),
    Item(Box<Expr>, Box<Expr>),
    /// Start, stop and step.
    Slice(Box<Expr>, Box<[Option<Expr>; 3]>),
    Call(Box<Expr>, Box<Arguments>),
    /// A filter; without an input in `{% filter … %}` and in `{% set x | … %}`.
    Filter(Option<Box<Expr>>, String, Box<Arguments>),
    Test(Box<Expr>, String, Box<Arguments>),
    Negative(Box<Expr>),
    Positive(Box<Expr>),
    Not(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Binary(Operator, Box<Expr>, Box<Expr>),
    Compare(Box<Expr>, Vec<(Comparison, Expr)>),
    Concat(Vec<Expr>),
    Condition {
        test: Box<Expr>,
        then: Box<Expr>,
        otherwise: Option<Box<Expr>>,
    },
}

/// The arguments of a call.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub(super) positional: Vec<Expr>,
    pub(super) named: Vec<(String, Expr)>,
    /// The expression after `*`.
    pub(super) spread: Option<Expr>,
    /// The expression after `**`.
    pub(super) spread_named: Option<Expr>,
}

/// Something that a value is assigned to.
#[derive(Debug)]
pub(super) enum Target {
    Name(String),
    Tuple(Vec<Target>),
    /// An attribute of a namespace.
    Attribute(String, String),
}

#[derive(Debug)]
pub(super) struct For {
    pub(super) line: usize,
    pub(super) target: Target,
    pub(super) iterable: Expr,
    pub(super) condition: Option<Expr>,
    pub(super) is_recursive: bool,
    pub(super) body: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

/// A macro, or the body of a `call` block.
#[derive(Debug)]
pub(super) struct MacroDefinition {
    pub(super) name: String,
    pub(super) parameters: Vec<String>,
    /// Default values of the last parameters.
    pub(super) defaults: Vec<Expr>,
    pub(super) body: Vec<Node>,
    /// `true` for each of `caller`, `kwargs` and `varargs` that the body names.
    pub(super) names: SpecialNames,
}

/// The names with a meaning inside macros.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SpecialNames {
    pub(super) caller: bool,
    pub(super) kwargs: bool,
    pub(super) varargs: bool,
}

#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Output(usize, Expr),
    Set(usize, Target, Expr),
    SetBlock(usize, Target, Option<Expr>, Vec<Node>),
    For(Arc<For>),
    If(usize, Vec<(Expr, Vec<Node>)>, Vec<Node>),
    With(usize, Vec<(Target, Expr)>, Vec<Node>),
    Macro(Arc<MacroDefinition>),
    CallBlock(usize, Arc<MacroDefinition>, Expr),
    FilterBlock(usize, Expr, Vec<Node>),
    /// A `generation` block, which has its own scope.
    Generation(Vec<Node>),
    Break,
    Continue,
}
