//! Rules of routes: CEL expressions, compiled once and evaluated for each request.
//!
//! The `cel` crate parses the syntax. Types, evaluation and cost are our own, because a rule combines two untrusted
//! inputs: a manifest and a request. Neither may stop a process or occupy a core, so evaluation is total (no input
//! panics) and metered (a [`Budget`] of operations for all rules of a request).
//!
//! Compilation checks all that is known without a request: syntax, names, types, and literal regular expressions, which
//! are compiled too.
//!
//! - `parse`: text to the syntax tree of `cel`, with panics contained; `compile`: that tree to a typed `Node`;
//! - `types`, `functions`, `pattern`: operators, functions and regular expressions;
//! - `facts`: variables of a request; `evaluate`: the value of a node; `budget`: its cost.

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

/// Names of the variables.
pub const VARIABLES: [&str; 4] = ["text", "messages", "metadata", "model"];

/// Bound on the bytes of an expression, as in the schema.
pub const EXPRESSION_BYTES_MAX: usize = 4096;

/// Reason why a rule is invalid, or could not be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RuleError {
    /// Invalid CEL.
    #[error("not a CEL expression: {0}")]
    Syntax(String),
    /// An unknown variable.
    #[error("unknown variable `{name}`{suggestion} Rules see text, messages, metadata and model")]
    UnknownVariable {
        /// Name in the expression.
        name: String,
        /// "Did you mean", or the end of the sentence.
        suggestion: String,
    },
    /// An unknown function.
    #[error("unknown function `{name}`{suggestion} Rules may call {}", FUNCTIONS.join(", "))]
    UnknownFunction {
        /// Name in the expression.
        name: String,
        /// "Did you mean", or the end of the sentence.
        suggestion: String,
    },
    /// CEL features that rules do not support.
    #[error("{0}")]
    Unsupported(String),
    /// Operands of the wrong type.
    #[error("{0}")]
    Type(String),
    /// An invalid regular expression in `matches`.
    #[error("the regular expression {pattern:?} does not parse: {reason}")]
    Regex {
        /// The regular expression.
        pattern: String,
        /// Message of the parser, on one line.
        reason: String,
    },
    /// The result is not a boolean.
    #[error("the expression yields {0}, but a rule has to yield true or false")]
    NotBoolean(String),
    /// Evaluation failed for this request, for instance because of a missing key.
    #[error("could not be evaluated: {0}")]
    Evaluation(String),
    /// The request's budget is exceeded.
    #[error("could not be evaluated: the rules need more than {OPERATIONS_MAX} operations for this request")]
    Cost,
}

/// Checks that `expression` is a valid `when`.
///
/// # Errors
/// The reason why it is invalid.
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
    /// The reason why it is invalid.
    pub fn compile(expression: &str) -> Result<Self, RuleError> {
        // Also bounds the parser's recursion.
        if expression.len() > EXPRESSION_BYTES_MAX {
            return Err(RuleError::Syntax(format!("longer than {EXPRESSION_BYTES_MAX} bytes")));
        }
        let (condition, yields) = compile::compile(&parse::parse(expression)?)?;
        match yields {
            Type::Bool | Type::Any => Ok(Self { expression: expression.to_owned(), condition }),
            other => Err(RuleError::NotBoolean(other.to_string())),
        }
    }

    /// The expression's text.
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
