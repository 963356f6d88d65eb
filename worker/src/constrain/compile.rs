//! From a rule to a parser over tokens.

use std::{
    fmt::Write as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

use llguidance::{Matcher, ParserFactory, TokenParser, api::TopLevelGrammar};
use serde_json::{Value, json};

use super::{ConstraintError, Guide, Rule, error::foreign, rule::ToolsRule, schema};

/// Stack of the thread that compiles: parsers of foreign text descend by recursion. Only what is touched takes memory.
const STACK_BYTES: usize = 256 << 20;
/// Bound on the brackets that are open at once in a grammar, for the same reason.
const BRACKETS_MAX: usize = 100;
/// White space between the parts of a JSON document: a few spaces, or a line break and an indent. Small models would go on with more
/// for ever.
const WHITE_SPACE: &str = r"[ \t]{1,4}|\r?\n[ \t]{0,40}";
/// Subschemas that are compiled by themselves in search of the one at fault.
const SEARCH_MAX: usize = 64;

/// A compiled rule.
pub struct Prototype {
    rule: Rule,
    parser: Mutex<Parser>,
    /// Whether an answer overran the bounds of what is learnt for all answers of the rule.
    spoiled: AtomicBool,
}

struct Parser {
    matcher: Matcher,
    /// Shares what its lexer learnt with the matcher.
    tokens: TokenParser,
}

impl Prototype {
    /// A guide for one answer, which may end with `stops` where it is complete.
    #[must_use]
    pub fn guide(self: &Arc<Self>, stops: &[u32]) -> Guide {
        let matcher = self.lock().matcher.clone();
        Guide::new(matcher, self.clone(), stops)
    }

    /// Name of the request's field.
    pub(super) fn field(&self) -> &'static str {
        self.rule.field()
    }

    /// Bytes of what its lexer learnt so far.
    pub(super) fn learnt_bytes(&self) -> usize {
        self.lock().tokens.parser.lexer_stats().num_bytes
    }

    pub(super) fn spoil(&self) {
        self.spoiled.store(true, Relaxed);
    }

    pub(super) fn is_spoiled(&self) -> bool {
        self.spoiled.load(Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Parser> {
        self.parser.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Prototype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prototype").field("field", &self.field()).finish_non_exhaustive()
    }
}

/// Compiles a rule.
pub(super) fn compile(rule: &Rule, factory: &ParserFactory) -> Result<Arc<Prototype>, ConstraintError> {
    let refused = |why: String| ConstraintError::Refused { field: rule.field(), why };
    let compiled = thread::scope(|scope| {
        let thread = thread::Builder::new().name("grammar".into()).stack_size(STACK_BYTES);
        let compiling = thread.spawn_scoped(scope, || parser(rule, factory));
        let compiling = compiling.map_err(|error| refused(format!("starting a thread for it: {error}")))?;
        compiling.join().unwrap_or_else(|_| Err(refused("its parser panicked; the log says where".to_owned())))
    });
    let tokens = compiled?;
    let matcher = Matcher::new(Ok(tokens.clone()));
    if let Some(error) = matcher.get_error() {
        return Err(refused(foreign(&error)));
    }
    let parser = Mutex::new(Parser { matcher, tokens });
    Ok(Arc::new(Prototype { rule: rule.clone(), parser, spoiled: AtomicBool::new(false) }))
}

fn parser(rule: &Rule, factory: &ParserFactory) -> Result<TokenParser, ConstraintError> {
    let refused = |why: String| ConstraintError::Refused { field: rule.field(), why };
    let grammar = match rule {
        Rule::Object => return document(&json!({"type": "object"}), factory).map_err(refused),
        Rule::Schema(text) => {
            let asked: Value =
                serde_json::from_str(text).map_err(|error| refused(format!("it is not JSON: {error}")))?;
            let schema = schema::check(&asked)?;
            return document(&schema, factory).map_err(|why| {
                let pointer = culprit(&schema, &why, factory);
                ConstraintError::Schema { pointer, why: hint(why) }
            });
        }
        Rule::Regex(text) => TopLevelGrammar::from_regex(whole(text)),
        Rule::Grammar(text) => {
            if let Some(open) = open_brackets(text).filter(|open| *open > BRACKETS_MAX) {
                return Err(refused(format!("{open} brackets are open at once; at most {BRACKETS_MAX} may be")));
            }
            TopLevelGrammar::from_lark(text.clone())
        }
        Rule::Tools(rule) => return calls(rule, factory),
        Rule::Choice(strings) => TopLevelGrammar::from_lark(alternatives(strings)),
    };
    factory.create_parser(grammar).map_err(|error| refused(foreign(&error.to_string())))
}

/// A parser of answers with calls.
fn calls(rule: &ToolsRule, factory: &ParserFactory) -> Result<TokenParser, ConstraintError> {
    let parser = factory.create_parser(TopLevelGrammar::from_lark(rule.grammar.clone()));
    parser.map_err(|error| {
        for (index, schema) in &rule.schemas {
            let Ok(schema) = serde_json::from_str(schema) else { continue };
            if let Err(why) = document(&schema, factory) {
                let pointer = culprit(&schema, &why, factory);
                return ConstraintError::Tool { index: *index, pointer, why: hint(why) };
            }
        }
        ConstraintError::Refused { field: "tools", why: foreign(&error.to_string()) }
    })
}

/// A parser of JSON documents of a checked schema.
fn document(schema: &Value, factory: &ParserFactory) -> Result<TokenParser, String> {
    let parser = factory.create_parser(TopLevelGrammar::from_json_schema(with_bounded_space(schema)));
    parser.map_err(|error| foreign(&error.to_string()))
}

/// The schema, with little white space between the parts of a document.
pub(crate) fn with_bounded_space(schema: &Value) -> Value {
    let mut schema = match schema {
        // An object has room for options.
        Value::Bool(true) => json!({}),
        schema => schema.clone(),
    };
    if let Some(keywords) = schema.as_object_mut() {
        keywords.insert("x-guidance".to_owned(), json!({"whitespace_pattern": WHITE_SPACE}));
    }
    schema
}

/// JSON pointer of the innermost subschema that is refused for the same reason.
fn culprit(schema: &Value, why: &str, factory: &ParserFactory) -> String {
    let (mut at, mut pointer, mut left) = (schema, String::new(), SEARCH_MAX);
    'down: loop {
        for (path, child) in schema::children(at) {
            if left == 0 {
                return pointer;
            }
            left -= 1;
            let mut alone = child.clone();
            if let (Some(keywords), Some(definitions)) = (alone.as_object_mut(), schema.get("$defs")) {
                keywords.insert("$defs".to_owned(), definitions.clone());
            }
            if document(&alone, factory).is_err_and(|error| error == why) {
                (at, pointer) = (child, pointer + &path);
                continue 'down;
            }
        }
        return pointer;
    }
}

fn hint(why: String) -> String {
    if why.contains("oneOf constraints are not supported") {
        return "`oneOf` is supported where no two of its schemas have a value in common that is seen at once: of different types, or \
                objects with different `const` values of a required property; use `anyOf`"
            .to_owned();
    }
    why
}

/// Without the anchors of its two ends, which say what is so anyway.
fn whole(regex: &str) -> &str {
    let regex = regex.strip_prefix('^').unwrap_or(regex);
    match regex.strip_suffix('$') {
        Some(rest) if rest.chars().rev().take_while(|c| *c == '\\').count() % 2 == 0 => rest,
        _ => regex,
    }
}

/// A grammar of one of these strings.
fn alternatives(strings: &[String]) -> String {
    let mut grammar = "start: ".to_owned();
    for (index, string) in strings.iter().enumerate() {
        let between = if index == 0 { "" } else { " | " };
        // Writing to a string does not fail.
        let _ = write!(grammar, "{between}{}", Value::String(string.clone()));
    }
    grammar
}

/// The most brackets that are open at once in a grammar, outside strings, regular expressions and comments. `None` without any.
fn open_brackets(grammar: &str) -> Option<usize> {
    let (mut open, mut most) = (0_usize, None);
    let mut letters = grammar.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => skip(&mut letters, '"'),
            '/' if letters.peek() == Some(&'/') => skip(&mut letters, '\n'),
            '/' => skip(&mut letters, '/'),
            '(' | '[' | '{' => {
                open += 1;
                most = most.max(Some(open));
            }
            ')' | ']' | '}' => open = open.saturating_sub(1),
            _ => {}
        }
    }
    most
}

/// Skips to after the next `end` that no backslash precedes.
fn skip(letters: &mut impl Iterator<Item = char>, end: char) {
    while let Some(letter) = letters.next() {
        if letter == end {
            return;
        }
        if letter == '\\' {
            letters.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_of_both_ends_go_and_escaped_ones_stay() {
        assert_eq!((whole("^a+$"), whole(r"a\$"), whole(r"a\\$"), whole("$")), ("a+", r"a\$", r"a\\", ""));
    }

    #[test]
    fn brackets_count_outside_of_texts() {
        assert_eq!(open_brackets("start: (a | (b \"((((\"))"), Some(2));
        assert_eq!(open_brackets("start: /((\\/((/ // ((\n"), None);
        assert_eq!(open_brackets(&"(".repeat(1000)), Some(1000));
    }

    #[test]
    fn choices_are_quoted() {
        assert_eq!(alternatives(&["a\"b".into(), "c\n".into()]), r#"start: "a\"b" | "c\n""#);
    }
}
