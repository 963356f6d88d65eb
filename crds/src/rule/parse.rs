//! Parser: text to the syntax tree of the `cel` crate.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cel::{IdedExpr, ParseErrors, Program};

use super::{RuleError, one_line};

/// # Errors
/// [`RuleError::Syntax`] with the column, even if the parser itself panics.
pub(super) fn parse(text: &str) -> Result<IdedExpr, RuleError> {
    // The closure shares no state, so nothing can be left half-changed.
    match catch_unwind(AssertUnwindSafe(|| Program::compile(text))) {
        Ok(Ok(program)) => Ok(program.expression().clone()),
        Ok(Err(errors)) => Err(RuleError::Syntax(first(&errors))),
        Err(_) => Err(RuleError::Syntax("the parser cannot read it; write it in another way".to_owned())),
    }
}

/// The first error, on one line with its column.
fn first(errors: &ParseErrors) -> String {
    match errors.errors.first() {
        Some(error) => {
            // What follows is the parser's own structure, as Rust prints it.
            let message = one_line(&error.msg);
            let message = message.split(": OtherError(").next().unwrap_or_default();
            format!("column {}: {message}", error.pos.1)
        }
        None => "empty".to_owned(),
    }
}
