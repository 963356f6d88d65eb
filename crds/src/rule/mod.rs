//! The conditions of a route: CEL expressions, compiled once and evaluated for each request.
//!
//! The syntax is parsed by the `cel` crate; types, evaluation and its cost are our own, because a rule meets two
//! strangers: the author of a manifest and the caller of an endpoint. Neither may stop a process or keep a core busy, so
//! evaluation is total (no input panics) and counted (a [`Budget`] of operations for all rules of one request).
//!
//! What can be found out without a request is found out when the rule is compiled: syntax, unknown names, types, and
//! literal regular expressions, which are compiled then as well.
//!
//! - `parse`: text to the syntax tree of `cel`, contained; `compile`: that tree to a typed `Node`;
//! - `types`, `functions`, `pattern`: what operators, functions and regular expressions accept;
//! - `facts`: what one request shows to rules; `evaluate`: the value of a node; `budget`: what it may cost.

mod budget;
mod compile;
mod evaluate;
mod facts;
mod functions;
mod node;
mod operators;
mod parse;
mod pattern;
mod types;
mod value;

use thiserror::Error;

pub use self::{
    budget::{Budget, OPERATIONS_MAX},
    facts::{Facts, MESSAGES_MAX, TEXT_BYTES_MAX, Turn},
    functions::FUNCTIONS,
};
use self::{evaluate::Scope, node::Node, types::Type, value::Value};

/// The variables of a rule.
pub const VARIABLES: [&str; 4] = ["text", "messages", "metadata", "model"];

/// Bytes of one expression, as the schema has it.
pub const EXPRESSION_BYTES_MAX: usize = 4096;

/// Why a rule cannot be used, or could not be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RuleError {
    /// Not CEL.
    #[error("not a CEL expression: {0}")]
    Syntax(String),
    /// A variable that no request has.
    #[error("unknown variable `{name}`{suggestion} Rules see text, messages, metadata and model")]
    UnknownVariable {
        /// As written.
        name: String,
        /// The end of the first sentence.
        suggestion: String,
    },
    /// A function that CEL here does not have.
    #[error("unknown function `{name}`{suggestion} Rules may call {}", FUNCTIONS.join(", "))]
    UnknownFunction {
        /// As written.
        name: String,
        /// The end of the first sentence.
        suggestion: String,
    },
    /// CEL that rules do not support.
    #[error("{0}")]
    Unsupported(String),
    /// An operator or a function that does not take these operands.
    #[error("{0}")]
    Type(String),
    /// The argument of `matches`.
    #[error("the regular expression {pattern:?} does not parse: {reason}")]
    Regex {
        /// As written.
        pattern: String,
        /// The parser's words, on one line.
        reason: String,
    },
    /// A rule that yields neither true nor false.
    #[error("the expression yields {0}, but a rule has to yield true or false")]
    NotBoolean(String),
    /// Failed on this request, such as a key that its metadata lacks.
    #[error("could not be evaluated: {0}")]
    Evaluation(String),
    /// The rules of this request cost more than a request may.
    #[error("could not be evaluated: the rules need more than {OPERATIONS_MAX} operations for this request")]
    Cost,
}

/// Whether `expression` could stand in a rule's `when`.
///
/// # Errors
/// What is wrong with it.
pub fn check(expression: &str) -> Result<(), RuleError> {
    Rule::compile(expression).map(|_| ())
}

/// A compiled rule.
#[derive(Debug)]
pub struct Rule {
    expression: String,
    condition: Node,
}

impl Rule {
    /// Compiles and checks an expression.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn compile(expression: &str) -> Result<Self, RuleError> {
        // Bounds the parser's recursion, too.
        if expression.len() > EXPRESSION_BYTES_MAX {
            return Err(RuleError::Syntax(format!("longer than {EXPRESSION_BYTES_MAX} bytes")));
        }
        let (condition, yields) = compile::compile(&parse::parse(expression)?)?;
        match yields {
            Type::Bool | Type::Any => Ok(Self { expression: expression.to_owned(), condition }),
            other => Err(RuleError::NotBoolean(other.to_string())),
        }
    }

    /// As written.
    #[must_use]
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// Whether the rule holds for a request. What it costs is taken from `budget`, which all rules of a request share.
    ///
    /// # Errors
    /// [`RuleError::Evaluation`], [`RuleError::NotBoolean`] or [`RuleError::Cost`], which a router counts as "does not
    /// hold".
    pub fn holds(&self, facts: &Facts, budget: &mut Budget) -> Result<bool, RuleError> {
        match Scope::new(facts, budget).evaluate(&self.condition)? {
            Value::Bool(holds) => Ok(holds),
            other => Err(RuleError::NotBoolean(other.kind().to_string())),
        }
    }
}

/// On one line: parsers and regular expressions draw their errors over several.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
