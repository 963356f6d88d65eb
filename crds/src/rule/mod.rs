//! The conditions of a route: CEL expressions, compiled once and evaluated for each request.
//!
//! What can be found out without a request is found out when the rule is compiled: syntax, names that do not exist,
//! regular expressions that do not parse, an expression that yields no boolean. Literal regular expressions are
//! compiled then, too, because CEL's `matches` would otherwise compile them again for each request, which costs more
//! than the rest of the routing together.

mod inspect;

use std::{collections::HashMap, sync::Arc};

use cel::{Context, ExecutionError, Program, Value, extractors::This};
use regex::Regex;
use thiserror::Error;

/// What a rule may look at.
pub const VARIABLES: [&str; 4] = ["text", "messages", "metadata", "model"];

/// What a rule may call.
pub const FUNCTIONS: [&str; 14] = [
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "size",
    "lowerAscii",
    "upperAscii",
    "has",
    "string",
    "int",
    "uint",
    "double",
    "min",
    "max",
];

/// Why a rule cannot be used, or could not decide.
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
    /// The argument of `matches`.
    #[error("the regular expression {pattern:?} does not parse: {reason}")]
    Regex {
        /// As written.
        pattern: String,
        /// The parser's words, on one line.
        reason: String,
    },
    /// A rule that says neither yes nor no.
    #[error("the expression yields {0}, but a rule has to yield true or false")]
    NotBoolean(String),
    /// Failed on this request, such as a key that its metadata lacks.
    #[error("could not be evaluated: {0}")]
    Evaluation(String),
}

/// Bytes of one expression, as the schema has it.
pub const EXPRESSION_BYTES_MAX: usize = 4096;

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
    program: Program,
    patterns: HashMap<String, Regex>,
}

/// What one request shows to rules. Made once a request, cheap to share between rules.
#[derive(Clone, Debug)]
pub struct Facts {
    values: [Value; 4],
}

/// One turn of a conversation, as rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// `user`, `assistant`, `system`, …
    pub role: &'a str,
    /// What was said.
    pub content: &'a str,
}

impl Facts {
    /// `text` is the last user message or the raw prompt; `model` what the caller named.
    pub fn new<'a>(
        model: &str,
        text: &str,
        messages: impl IntoIterator<Item = Turn<'a>>,
        metadata: &HashMap<String, String>,
    ) -> Self {
        let messages: Vec<Value> = messages
            .into_iter()
            .map(|turn| {
                Value::from(HashMap::from([("role", Value::from(turn.role)), ("content", turn.content.into())]))
            })
            .collect();
        Self { values: [text.into(), messages.into(), Value::from(metadata.clone()), model.into()] }
    }
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
        let program = Program::compile(expression).map_err(|errors| RuleError::Syntax(inspect::syntax(&errors)))?;
        let patterns = inspect::inspect(program.expression())?;
        let rule = Self { expression: expression.to_owned(), program, patterns };
        // A dry run on an empty request: what it yields may be wrong, but its type is not. Errors may depend on what is
        // missing from an empty request and prove nothing.
        let empty = Facts::new("", "", [], &HashMap::new());
        match rule.holds(&empty) {
            Err(error @ RuleError::NotBoolean(_)) => Err(error),
            _ => Ok(rule),
        }
    }

    /// As written.
    #[must_use]
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// Whether the rule holds for a request.
    ///
    /// # Errors
    /// [`RuleError::Evaluation`] or [`RuleError::NotBoolean`], which a router counts as "does not hold".
    pub fn holds(&self, facts: &Facts) -> Result<bool, RuleError> {
        let mut context = context(&self.patterns);
        for (name, value) in VARIABLES.into_iter().zip(&facts.values) {
            context.add_variable_from_value(name, value.clone());
        }
        match self.program.execute(&context) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(other) => Err(RuleError::NotBoolean(inspect::type_name(&other).to_owned())),
            Err(error) => Err(RuleError::Evaluation(one_line(&error.to_string()))),
        }
    }
}

/// The functions a rule may call, with its regular expressions compiled already.
fn context(patterns: &HashMap<String, Regex>) -> Context<'static> {
    let mut context = Context::empty();
    context.add_function("contains", cel::functions::contains);
    context.add_function("startsWith", cel::functions::starts_with);
    context.add_function("endsWith", cel::functions::ends_with);
    context.add_function("size", cel::functions::size);
    context.add_function("string", cel::functions::string);
    context.add_function("int", cel::functions::int);
    context.add_function("uint", cel::functions::uint);
    context.add_function("double", cel::functions::double);
    context.add_function("min", cel::functions::min);
    context.add_function("max", cel::functions::max);
    context.add_function("lowerAscii", |This(text): This<Arc<String>>| text.to_ascii_lowercase());
    context.add_function("upperAscii", |This(text): This<Arc<String>>| text.to_ascii_uppercase());
    // Regexes are reference-counted: this clones pointers.
    let patterns = patterns.clone();
    context.add_function("matches", move |This(text): This<Arc<String>>, pattern: Arc<String>| {
        matches(&patterns, &text, &pattern)
    });
    context
}

fn matches(patterns: &HashMap<String, Regex>, text: &str, pattern: &str) -> Result<bool, ExecutionError> {
    if let Some(regex) = patterns.get(pattern) {
        return Ok(regex.is_match(text));
    }
    let regex = inspect::regex(pattern).map_err(|error| ExecutionError::function_error("matches", error))?;
    Ok(regex.is_match(text))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(text: &str) -> Facts {
        let metadata = HashMap::from([("lang".to_owned(), "de".to_owned())]);
        let turns = [Turn { role: "system", content: "Be brief." }, Turn { role: "user", content: text }];
        Facts::new("assistant", text, turns, &metadata)
    }

    #[test]
    fn rules_hold() {
        let request = facts("Book a FLIGHT to Oslo");
        let cases = [
            (r#"text.matches("(?i)\\b(flight|hotel)\\b")"#, true),
            (r#"text.matches(r"(?i)\b(train|bus)\b")"#, false),
            (r#"text.lowerAscii().contains("flight")"#, true),
            (r#"text.contains("flight")"#, false),
            (r#"metadata.lang == "de""#, true),
            (r#"has(metadata.tier) && metadata.tier == "gold""#, false),
            (r#""lang" in metadata"#, true),
            ("size(messages) == 2", true),
            (r#"messages.exists(m, m.role == "system" && m.content.startsWith("Be"))"#, true),
            (r#"messages.all(m, size(m.content) < 5)"#, false),
            (r#"model == "assistant" && size(text) < 100"#, true),
            (r#"text.matches("(?i)" + metadata.lang)"#, false),
            ("true", true),
        ];
        for (expression, holds) in cases {
            let rule = Rule::compile(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
            assert_eq!(rule.holds(&request), Ok(holds), "{expression}");
        }
    }

    #[test]
    fn rules_are_refused() {
        let cases = [
            ("text.matches(", "not a CEL expression"),
            ("", "not a CEL expression"),
            ("txt.contains('a')", "unknown variable `txt`; did you mean `text`?"),
            ("text.match('a')", "unknown function `match`; did you mean `matches`?"),
            ("text.matches('(')", "regular expression \"(\" does not parse"),
            ("size(text)", "yields an integer, but a rule has to yield true or false"),
            ("messages.exists(m, n.role == 'x')", "unknown variable `n`"),
            ("messages.exists(m, m.content.matches('['))", "does not parse"),
        ];
        for (expression, message) in cases {
            let error = check(expression).expect_err(expression).to_string();
            assert!(error.contains(message), "{expression}: {error}");
            assert!(!error.contains('\n'), "{expression}: {error}");
        }
    }

    #[test]
    fn no_text_breaks_the_parser() {
        let mut texts: Vec<String> = [
            "\\", "'", "\"", "🙂", "[", "{", "}", "a.", ".a", "1u", "0x", "?:", "text[", "'\\u'", "r'", "b'\\xff'",
            "\0",
        ]
        .map(str::to_owned)
        .into();
        for part in ["(", "[", "{'a':", "!", "-", "text.", "true?", "1+", "a&&"] {
            texts.push(part.repeat(EXPRESSION_BYTES_MAX / part.len()));
        }
        texts.push(format!("{}true{}", "(".repeat(2000), ")".repeat(2000)));
        texts.push("true &&".repeat(500) + "true");
        for text in texts {
            let _ = check(&text);
        }
    }

    #[test]
    fn a_missing_key_is_an_error_of_that_request() {
        let rule = Rule::compile("metadata.tier == 'gold'").expect("compiles");
        let error = rule.holds(&facts("hello")).expect_err("no such key");
        assert!(error.to_string().contains("tier"), "{error}");
    }
}
