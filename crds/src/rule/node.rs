//! A compiled expression.

use std::sync::Arc;

use super::{functions::Function, operators::Binary, pattern::Pattern, value::Value};

/// Node of a compiled expression. Names are resolved: a variable is its index in the scope.
#[derive(Debug)]
pub(super) enum Node {
    Literal(Value),
    Variable(usize),
    List(Vec<Self>),
    Map(Vec<(Self, Self)>),
    /// `operand.field`.
    Field(Box<Self>, Arc<str>),
    /// `has(operand.field)`.
    Has(Box<Self>, Arc<str>),
    Not(Box<Self>),
    Negate(Box<Self>),
    And(Box<[Self; 2]>),
    Or(Box<[Self; 2]>),
    Conditional(Box<[Self; 3]>),
    Binary(Binary, Box<[Self; 2]>),
    /// A method's target is its first argument.
    Call(Function, Vec<Self>),
    /// `matches` with a literal regular expression.
    Matches(Box<Self>, Pattern),
    Macro(Macro, Box<[Self; 2]>),
}

/// A macro over the elements of a list or the keys of a map: range, then body, with the element as the innermost
/// variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Macro {
    All,
    Exists,
    ExistsOne,
    Filter,
    Map,
}
