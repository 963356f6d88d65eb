//! Regular expressions of adapters and of lists of modules, which are untrusted, in bounded time.
//!
//! PEFT and compressed-tensors define them as Python's `re`. An expression without look-around and back-references is
//! matched in time linear in the name; others are matched by backtracking with a bounded number of steps. All
//! expressions of a file share [`TIME_MAX`], compilation included.

use std::time::{Duration, Instant};

/// Time for all expressions of a file on all modules of a model. The largest take milliseconds.
const TIME_MAX: Duration = Duration::from_secs(5);
/// Bound on backtracking steps for a name; only expressions with exponential failure need more.
const STEPS_MAX: usize = 10_000;
/// Bound on the memory of a compiled expression.
const COMPILED_BYTES_MAX: usize = 4 << 20;

/// A regular expression that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PatternError {
    /// It is malformed or too large.
    #[error("{0}")]
    Compile(String),
    /// It exceeds the bound on backtracking.
    #[error("it needs more than {STEPS_MAX} steps for a module's name; write it without nested repetitions")]
    Steps,
    /// All expressions together exceed the time.
    #[error("the expressions of this file take more than {}s on this model; write fewer or simpler ones", TIME_MAX.as_secs())]
    Time,
}

/// Deadline for the expressions of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget(Instant);

impl Budget {
    pub(crate) fn new() -> Self {
        Self(Instant::now() + TIME_MAX)
    }

    fn check(self) -> Result<(), PatternError> {
        if Instant::now() < self.0 { Ok(()) } else { Err(PatternError::Time) }
    }
}

/// A compiled regular expression.
#[derive(Debug)]
pub(crate) struct Pattern {
    text: String,
    engine: Engine,
}

#[derive(Debug)]
enum Engine {
    /// Matches bytes: module names are ASCII, and Unicode classes would only take memory.
    Linear(regex::bytes::Regex),
    Backtracking(fancy_regex::Regex),
}

impl Pattern {
    /// Compiles `expression`.
    pub(crate) fn new(expression: &str, budget: Budget) -> Result<Self, PatternError> {
        budget.check()?;
        let expression = &*from_python(expression);
        let linear = regex::bytes::RegexBuilder::new(expression)
            .unicode(false)
            .size_limit(COMPILED_BYTES_MAX)
            .dfa_size_limit(COMPILED_BYTES_MAX)
            .build();
        let engine = match linear {
            Ok(regex) => Engine::Linear(regex),
            Err(error @ regex::Error::CompiledTooBig(_)) => return Err(PatternError::Compile(error.to_string())),
            // Look-around, a back-reference, or a syntax error.
            Err(_) => {
                let regex = fancy_regex::RegexBuilder::new(expression)
                    .backtrack_limit(STEPS_MAX)
                    .delegate_size_limit(COMPILED_BYTES_MAX)
                    .delegate_dfa_size_limit(COMPILED_BYTES_MAX)
                    .build();
                Engine::Backtracking(regex.map_err(|error| PatternError::Compile(error.to_string()))?)
            }
        };
        Ok(Self { text: expression.to_owned(), engine })
    }

    /// The expression.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it matches in `name`.
    pub(crate) fn is_match(&self, name: &str, budget: Budget) -> Result<bool, PatternError> {
        budget.check()?;
        match &self.engine {
            Engine::Linear(regex) => Ok(regex.is_match(name.as_bytes())),
            Engine::Backtracking(regex) => regex.is_match(name).map_err(|error| failed(&error)),
        }
    }

    /// Content of its group `group` in `name`.
    pub(crate) fn group<'n>(
        &self,
        group: &str,
        name: &'n str,
        budget: Budget,
    ) -> Result<Option<&'n str>, PatternError> {
        budget.check()?;
        let range = match &self.engine {
            Engine::Linear(regex) => {
                regex.captures(name.as_bytes()).and_then(|found| found.name(group).map(|part| part.range()))
            }
            Engine::Backtracking(regex) => {
                let found = regex.captures(name).map_err(|error| failed(&error))?;
                found.and_then(|found| found.name(group).map(|part| part.range()))
            }
        };
        Ok(range.and_then(|range| name.get(range)))
    }
}

/// Translates Python's `\Z` to `\z`.
fn from_python(expression: &str) -> String {
    let mut escaped = false;
    let convert = |c| {
        let end = escaped && c == 'Z';
        escaped = !escaped && c == '\\';
        if end { 'z' } else { c }
    };
    expression.chars().map(convert).collect()
}

fn failed(error: &fancy_regex::Error) -> PatternError {
    match error {
        fancy_regex::Error::RuntimeError(_) => PatternError::Steps,
        other => PatternError::Compile(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "model.layers.11.self_attn.q_proj";

    fn is_match(expression: &str) -> Result<bool, String> {
        let budget = Budget::new();
        let pattern = Pattern::new(expression, budget).map_err(|error| error.to_string())?;
        pattern.is_match(NAME, budget).map_err(|error| error.to_string())
    }

    #[test]
    fn what_python_takes_is_taken() {
        for (expression, expected) in [
            (r"\A(?:.*\.)?(?:q_proj)\z", true),
            (r"\A(?:.*\.(q|k|v)_proj)\z", true),
            (r"\A(?:model\.layers\.(\d|1[0-5])\..*)\z", true),
            (r"\A(?:(?!.*lm_head).*_proj)\z", true),
            (r"\A(?:(?!.*self_attn).*_proj)\z", false),
            (r"\A(?:.*(?<=attn\.)q_proj)\z", true),
            (r"\A(?:.*(1)\1\..*)\z", true),
            (r"\A(?:.*\.(?i:Q_PROJ))\Z", true),
            (r"\A(?:[\w.]+)\z", true),
        ] {
            assert_eq!(is_match(expression), Ok(expected), "{expression}");
        }
        assert!(is_match("(").unwrap_err().contains("parenthes"));
        let budget = Budget::new();
        for expression in [r"\A(?:|.*?\.)layers\.(?P<idx>\d+)\.", r"\A(?=m).*?\.layers\.(?P<idx>\d+)\."] {
            let pattern = Pattern::new(expression, budget).unwrap();
            assert_eq!(pattern.group("idx", NAME, budget).unwrap(), Some("11"), "{expression}");
        }
    }

    #[test]
    fn what_explodes_in_python_does_not_here() {
        for expression in [r"\A(?:(.*.*)*x)\z", r"\A(?:([a-z_.0-9]+)+!)\z", r"\A(?:(a|a|model)*.*(.*)*y)\z"] {
            assert_eq!(is_match(expression), Ok(false), "{expression}");
        }
        for expression in [r"\A(?:(?=m)([a-z_.0-9]+)+!)\z", r"\A(?:(.*)*\1(.*)*x)\z"] {
            let refused = is_match(expression).unwrap_err();
            assert!(refused.starts_with("it needs more than 10000 steps"), "{expression}: {refused}");
        }
        for expression in [r"\A(?:(?:\w{1000}){1000})\z", r"\A(?:(?=m)(?:\w{1000}){1000})\z"] {
            let refused = is_match(expression).unwrap_err();
            assert!(refused.contains("size limit") || refused.contains("building NFA"), "{expression}: {refused}");
        }
    }

    #[test]
    fn a_file_has_no_more_than_its_time() {
        let over = Budget(Instant::now());
        let pattern = Pattern::new("x", Budget::new()).unwrap();
        assert!(matches!(pattern.is_match(NAME, over), Err(PatternError::Time)));
        assert!(matches!(Pattern::new("x", over), Err(PatternError::Time)));
    }
}
