//! A compiled expression.

use std::sync::Arc;

use super::{functions::Function, operators::Binary, pattern::Pattern, value::Value};

/// What is evaluated. Names are resolved: a variable is its place in the scope.
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
    /// `matches` with a regular expression that stands in the rule.
    Matches(Box<Self>, Pattern),
    Macro(Macro, Box<[Self; 2]>),
}

/// The macros over the elements of a list or the keys of a map: range, then body, in which the element is the innermost
/// variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Macro {
    All,
    Exists,
    ExistsOne,
    Filter,
    Map,
}
