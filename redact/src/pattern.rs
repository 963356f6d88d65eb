//! Patterns, compiled.
//!
//! They are constants, and yet an error of them is an error of the constructor: going on without one would let out what it finds.

use regex::Regex;
use thiserror::Error;

/// A pattern of this crate that does not compile.
#[derive(Debug, Error)]
#[error("the pattern of {what} does not compile: {source}")]
pub struct PatternError {
    what: &'static str,
    #[source]
    source: Box<regex::Error>,
}

/// Compiles the pattern of `what`.
///
/// # Errors
/// The pattern is wrong or too large.
pub(crate) fn compile(what: &'static str, pattern: &str) -> Result<Regex, PatternError> {
    Regex::new(pattern).map_err(|source| PatternError { what, source: Box::new(source) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_pattern_is_named() {
        let told = compile("tests", "(").expect_err("refused").to_string();
        assert!(told.starts_with("the pattern of tests does not compile: "), "{told}");
    }
}
