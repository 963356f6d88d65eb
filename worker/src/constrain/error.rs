//! Refusals of constraints, and failures of constrained answers.

use std::{borrow::Cow, time::Duration};

use super::Rule;

/// A constraint that cannot be served. The message begins with the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// Nothing is in the field.
    #[error("{field} is empty; {expected}")]
    Empty {
        /// Name of the request's field.
        field: &'static str,
        /// What to send.
        expected: &'static str,
    },
    /// A choice of nothing.
    #[error("choice has an empty string at index {index}; send strings of at least one character")]
    EmptyChoice {
        /// Place of the string.
        index: usize,
    },
    /// Too much text.
    #[error("{field} has {found} bytes; at most {most} are accepted")]
    Bytes {
        /// Name of the request's field.
        field: &'static str,
        /// Bytes of the text.
        found: usize,
        /// Accepted bytes.
        most: usize,
    },
    /// Too many strings.
    #[error("choice has {found} entries; at most {most} are accepted")]
    Choices {
        /// Number of strings.
        found: usize,
        /// Accepted strings.
        most: usize,
    },
    /// A part of a JSON Schema.
    #[error("json_schema at {}: {why}", shown(.pointer))]
    Schema {
        /// JSON pointer of the keyword or the subschema.
        pointer: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// A part of the JSON Schema of a tool's parameters.
    #[error("tools[{index}].parameters at {}: {why}", shown(.pointer))]
    Tool {
        /// Index of the tool.
        index: usize,
        /// JSON pointer of the keyword or the subschema.
        pointer: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The text is wrong, too complex or not supported.
    #[error("{field} cannot be used: {why}")]
    Refused {
        /// Name of the request's field.
        field: &'static str,
        /// What is wrong.
        why: String,
    },
    /// It takes too long.
    #[error("{field} was not compiled within {limit:?}; make it simpler, or retry when there is less load")]
    Slow {
        /// Name of the request's field.
        field: &'static str,
        /// Time that it had.
        limit: Duration,
    },
    /// The model has no text.
    #[error("{field} needs a tokenizer, and model `{model}` has none")]
    NoTokenizer {
        /// Name of the request's field.
        field: &'static str,
        /// Name of the base model.
        model: String,
    },
}

/// A constrained answer that cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintFailure {
    /// Nothing of the vocabulary may follow.
    #[error(
        "{field} has led to where no token of the model's vocabulary may follow; loosen it, or name characters that the model has"
    )]
    DeadEnd {
        /// Name of the request's field.
        field: &'static str,
    },
    /// The parser gave up.
    #[error(
        "{field} became too complex while the answer was made: make it simpler, such as with fewer optional properties ({why})"
    )]
    Parser {
        /// Name of the request's field.
        field: &'static str,
        /// The parser's words.
        why: String,
    },
    /// A defect of the worker's.
    #[error("the code for constrained answers panicked; the log says where: report it with the constraint")]
    Panicked,
    /// The thread that computes what may follow is gone.
    #[error("the thread for constrained answers ended; restart the worker")]
    Stopped,
}

impl ConstraintFailure {
    /// Name of the request's field, of a failure that is the request's.
    #[must_use]
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::DeadEnd { field } | Self::Parser { field, .. } => Some(field),
            Self::Panicked | Self::Stopped => None,
        }
    }
}

impl ConstraintError {
    /// Name of the request's field.
    #[must_use]
    pub fn field(&self) -> Cow<'static, str> {
        match self {
            Self::Choices { .. } | Self::EmptyChoice { .. } => "choice".into(),
            Self::Schema { .. } => "json_schema".into(),
            Self::Tool { index, .. } => format!("tools[{index}].parameters").into(),
            Self::Empty { field, .. }
            | Self::Bytes { field, .. }
            | Self::Refused { field, .. }
            | Self::Slow { field, .. }
            | Self::NoTokenizer { field, .. } => (*field).into(),
        }
    }

    /// The same of a tool's parameters.
    pub(crate) fn of_tool(self, index: usize) -> Self {
        match self {
            Self::Schema { pointer, why } => Self::Tool { index, pointer, why },
            other => other,
        }
    }

    pub(super) fn vocabulary(rule: &Rule, why: &str) -> Self {
        Self::Refused { field: rule.field(), why: format!("the model's vocabulary cannot be searched: {why}") }
    }
}

/// Bytes of a foreign message that are passed on.
const FOREIGN_BYTES_MAX: usize = 300;

/// llguidance's message on one line, bounded.
pub(super) fn foreign(message: &str) -> String {
    if message.contains("missing special token prefix") {
        return "a grammar cannot name control tokens; they are no text".to_owned();
    }
    let message = message.split("<backtrace>").next().unwrap_or_default();
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut end = line.len().min(FOREIGN_BYTES_MAX);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line[..end].to_owned()
}

/// A JSON pointer; the whole document has an empty one.
fn shown(pointer: &str) -> &str {
    if pointer.is_empty() { "its root" } else { pointer }
}
