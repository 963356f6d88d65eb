//! Regular expressions with bounded cost.

use regex::{Regex, RegexBuilder};

use super::{RuleError, budget::Budget, one_line};

/// Bounds on a compiled program in bytes, with the relative cost of matching: time is linear in the text, times the
/// program's size in the worst case.
const SIZES: [(usize, u64); 4] = [(16 << 10, 1), (64 << 10, 4), (256 << 10, 16), (1 << 20, 64)];

/// Bound on the bytes of a regular expression that comes with a request. It may compile to no more than the first of
/// [`SIZES`].
const LATE_BYTES_MAX: usize = 1024;
const LATE_COST: u64 = 10_000;

/// A compiled regular expression.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    regex: Regex,
    weight: u64,
}

impl Pattern {
    /// A regular expression in a rule.
    pub(super) fn new(pattern: &str) -> Result<Self, RuleError> {
        Self::build(pattern, &SIZES)
    }

    /// A regular expression that comes with a request.
    pub(super) fn late(pattern: &str, budget: &mut Budget) -> Result<Self, RuleError> {
        budget.spend(LATE_COST)?;
        if pattern.len() > LATE_BYTES_MAX {
            let length = pattern.len();
            let why = format!("a regular expression of {length} bytes; one that a request brings has {LATE_BYTES_MAX}");
            return Err(RuleError::Evaluation(why));
        }
        Self::build(pattern, &SIZES[..1])
    }

    fn build(pattern: &str, sizes: &[(usize, u64)]) -> Result<Self, RuleError> {
        let mut last = None;
        for (bytes, weight) in sizes {
            match RegexBuilder::new(pattern).size_limit(*bytes).dfa_size_limit(1 << 20).build() {
                Ok(regex) => return Ok(Self { regex, weight: *weight }),
                Err(error @ regex::Error::CompiledTooBig(_)) => last = Some(error),
                Err(error) => return Err(refused(pattern, &error)),
            }
        }
        Err(last.map_or_else(|| RuleError::Unsupported("no size".to_owned()), |error| refused(pattern, &error)))
    }

    pub(super) fn matches(&self, text: &str, budget: &mut Budget) -> Result<bool, RuleError> {
        budget.read(text.len(), self.weight)?;
        Ok(self.regex.is_match(text))
    }
}

fn refused(pattern: &str, error: &regex::Error) -> RuleError {
    // The regex crate's message has several lines; the last one is the reason.
    let text = error.to_string();
    let reason = one_line(text.lines().last().unwrap_or_default()).trim_start_matches("error: ").to_owned();
    RuleError::Regex { pattern: pattern.to_owned(), reason }
}
