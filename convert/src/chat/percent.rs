//! Python's `%` on strings: `"%s: %s" % (name, value)`.
//!
//! minijinja's `%` only takes numbers, and its operators cannot be extended. So the operation is rewritten as a filter
//! before parsing: `LEFT % RIGHT` becomes `(LEFT)|percent(RIGHT)`, which is a remainder for numbers and formats
//! strings. Line numbers are preserved.

use std::ops::Range;

use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, Value};

use super::printf::{self, Values};

/// A name that no template uses.
const FILTER: &str = "__percent__";
/// Bound on operations in a template; real ones have a handful.
const OPERATIONS_MAX: usize = 1000;
/// Keywords, which are not operands.
const WORDS: [&str; 13] =
    ["and", "or", "not", "in", "is", "if", "elif", "else", "for", "set", "call", "include", "recursive"];

pub(super) fn add(environment: &mut Environment<'_>) {
    environment.add_filter(FILTER, percent);
}

/// The template with every `%` operation rewritten as a filter.
pub(super) fn rewritten(mut source: String) -> String {
    for _ in 0..OPERATIONS_MAX {
        let Some((left, right)) = blocks(&source).into_iter().find_map(|block| operation(&source, block)) else {
            break;
        };
        let (a, between, b) = (&source[left.clone()], &source[left.end..right.start], &source[right.clone()]);
        let lines: String = between.chars().filter(|letter| *letter == '\n').collect();
        source = format!("{}({a})|{FILTER}({lines}{b}){}", &source[..left.start], &source[right.end..]);
    }
    source
}

/// The filter `format`: values by position, or by name.
pub(super) fn formatted(format: &str, args: &[Value]) -> Result<Value, Error> {
    let (args, named): (&[Value], Kwargs) = from_args(args)?;
    let names: Vec<String> = named.args().map(str::to_owned).collect();
    if names.is_empty() {
        return printf::format(format, &Values::Listed(args));
    }
    let pairs = names.iter().map(|name| Ok((name.clone(), named.get::<Value>(name)?)));
    let map = Value::from_pairs(pairs.collect::<Result<Vec<(String, Value)>, Error>>()?);
    printf::format(format, &Values::Named(&map))
}

fn percent(left: &Value, right: &Value) -> Result<Value, Error> {
    let failed = |problem: &str| Error::new(ErrorKind::InvalidOperation, problem.to_owned());
    if let Some(format) = left.as_str() {
        // As in Python, a tuple is a list of values, and anything else is one value.
        return match right.downcast_object_ref::<Tuple>() {
            Some(tuple) => printf::format(format, &Values::Listed(tuple)),
            None if right.kind() == ValueKind::Map => printf::format(format, &Values::Named(right)),
            None => printf::format(format, &Values::Listed(std::slice::from_ref(right))),
        };
    }
    if let (Ok(a), Ok(b)) = (i64::try_from(left.clone()), i64::try_from(right.clone())) {
        let rest = i128::from(a).checked_rem(b.into()).ok_or_else(|| failed("% by zero"))?;
        // Python's remainder has the sign of the divisor.
        let rest = if rest != 0 && (rest < 0) != (b < 0) { rest + i128::from(b) } else { rest };
        return Ok(Value::from(rest));
    }
    match (f64::try_from(left.clone()), f64::try_from(right.clone())) {
        (Ok(a), Ok(b)) if b != 0.0 => Ok(Value::from(a - b * (a / b).floor())),
        _ => Err(failed(&format!("% does not work on {} and {}", left.kind(), right.kind()))),
    }
}

/// The strings in a template's expressions.
pub(super) fn literals(source: &str) -> Vec<String> {
    let parts = blocks(source).into_iter().flat_map(|block| parts(source, block));
    let texts = parts.filter(|(part, range)| *part == Part::Text && range.len() > 2);
    texts.map(|(_, range)| unescaped(&source[range.start + 1..range.end - 1])).collect()
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                other => out.extend(other),
            },
            letter => out.push(letter),
        }
    }
    out
}

/// Ranges of expressions: between `{{` and `}}`, `{%` and `%}`.
fn blocks(source: &str) -> Vec<Range<usize>> {
    let mut blocks = Vec::new();
    let mut at = 0;
    while let Some(open) = source[at..].find('{').map(|open| at + open) {
        let rest = &source[open..];
        if let Some(comment) = rest.strip_prefix("{#") {
            at = comment.find("#}").map_or(source.len(), |end| open + 2 + end + 2);
        } else if rest.starts_with("{{") || rest.starts_with("{%") {
            let close = if rest.starts_with("{{") { "}}" } else { "%}" };
            let end = end_of(source, open + 2, close);
            let inside = source[open + 2..end].trim_matches(['-', '+']).trim();
            blocks.push(open + 2..end);
            at = (end + 2).min(source.len());
            if close == "%}" && inside == "raw" {
                at = source[at..].find("endraw").map_or(source.len(), |raw| at + raw);
            }
        } else {
            at = open + 1;
        }
    }
    blocks
}

/// End of the block that begins before `from`: `close` outside of strings and braces.
fn end_of(source: &str, from: usize, close: &str) -> usize {
    let bytes = source.as_bytes();
    let (mut at, mut depth) = (from, 0usize);
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'"' | b'\'') => at = end_of_text(bytes, at, quote),
            _ if depth == 0 && source[at..].starts_with(close) => return at,
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
        while !source.is_char_boundary(at) {
            at += 1;
        }
    }
    source.len()
}

/// Position of the closing quote, or of the last byte.
fn end_of_text(bytes: &[u8], open: usize, quote: u8) -> usize {
    let mut at = open + 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at.min(bytes.len() - 1)
}

/// Token of an expression.
#[derive(Debug, Clone, PartialEq)]
enum Part {
    Word,
    Text,
    Open,
    Close,
    Sign(&'static str),
    Other,
}

const SIGNS: [&str; 9] = ["**", "//", "*", "/", "%", "-", "+", ".", "|"];

fn parts(source: &str, block: Range<usize>) -> Vec<(Part, Range<usize>)> {
    let bytes = source.as_bytes();
    let mut parts = Vec::new();
    let mut at = block.start;
    while at < block.end {
        let rest = &source[at..block.end];
        let Some(letter) = rest.chars().next() else { break };
        let (part, length) = match letter {
            '"' | '\'' => (Part::Text, end_of_text(bytes, at, letter as u8) + 1 - at),
            '(' | '[' | '{' => (Part::Open, 1),
            ')' | ']' | '}' => (Part::Close, 1),
            _ if letter.is_alphanumeric() || letter == '_' => {
                let end = rest.find(|letter: char| !(letter.is_alphanumeric() || letter == '_'));
                let word = &rest[..end.unwrap_or(rest.len())];
                (if WORDS.contains(&word) { Part::Other } else { Part::Word }, word.len())
            }
            _ => match SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
                Some(sign) => (Part::Sign(sign), sign.len()),
                None => (Part::Other, letter.len_utf8()),
            },
        };
        if !letter.is_whitespace() {
            parts.push((part, at..(at + length).min(block.end)));
        }
        at += length;
    }
    parts
}

/// Operands of the first rewritable `%` in a block.
fn operation(source: &str, block: Range<usize>) -> Option<(Range<usize>, Range<usize>)> {
    if !source[block.clone()].contains('%') {
        return None;
    }
    let parts = parts(source, block);
    (1..parts.len().saturating_sub(1)).filter(|at| parts[*at].0 == Part::Sign("%")).find_map(|at| {
        let first = before(&parts, at - 1)?;
        let last = after(&parts, at + 1)?;
        let text = first == at - 1 && parts[first].0 == Part::Text;
        // A tighter-binding operator before it belongs to the left operand; numbers are left to minijinja.
        let bound = match first.checked_sub(1).map(|before| &parts[before].0) {
            Some(Part::Sign("*" | "/" | "//" | "%" | "**")) => true,
            Some(Part::Sign("-" | "+")) => {
                first == 1 || !matches!(parts[first - 2].0, Part::Word | Part::Text | Part::Close)
            }
            _ => false,
        };
        (text || !bound).then(|| (parts[first].1.start..parts[at - 1].1.end, parts[at + 1].1.start..parts[last].1.end))
    })
}

/// First token of the operand that ends at `at`: a name, string, number or bracket, with its attributes and calls.
fn before(parts: &[(Part, Range<usize>)], mut at: usize) -> Option<usize> {
    loop {
        match parts[at].0 {
            Part::Word | Part::Text => {}
            Part::Close => {
                at = opening(parts, at)?;
                // A call or an index belongs to the token before it.
                if at > 0 && matches!(parts[at - 1].0, Part::Word | Part::Close | Part::Text) {
                    at -= 1;
                    continue;
                }
            }
            _ => return None,
        }
        match at.checked_sub(1).map(|before| &parts[before].0) {
            Some(Part::Sign("." | "|")) if at >= 2 => at -= 2,
            _ => return Some(at),
        }
    }
}

/// Last token of the operand that begins at `at`.
fn after(parts: &[(Part, Range<usize>)], mut at: usize) -> Option<usize> {
    if matches!(parts[at].0, Part::Sign("-" | "+")) {
        at += 1;
    }
    at = match parts.get(at)?.0 {
        Part::Word | Part::Text => at,
        Part::Open => closing(parts, at)?,
        _ => return None,
    };
    loop {
        match parts.get(at + 1).map(|(part, _)| part) {
            Some(Part::Sign("." | "|")) if matches!(parts.get(at + 2)?.0, Part::Word) => at += 2,
            Some(Part::Open) => at = closing(parts, at + 1)?,
            _ => return Some(at),
        }
    }
}

fn opening(parts: &[(Part, Range<usize>)], close: usize) -> Option<usize> {
    let mut depth = 0;
    (0..=close).rev().find(|at| {
        match parts[*at].0 {
            Part::Close => depth += 1,
            Part::Open => depth -= 1,
            _ => {}
        }
        depth == 0
    })
}

fn closing(parts: &[(Part, Range<usize>)], open: usize) -> Option<usize> {
    let mut depth = 0;
    (open..parts.len()).find(|at| {
        match parts[*at].0 {
            Part::Open => depth += 1,
            Part::Close => depth -= 1,
            _ => {}
        }
        depth == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(source: &str) -> String {
        let mut environment = Environment::new();
        add(&mut environment);
        let source = rewritten(source.to_owned());
        let context =
            minijinja::context! { n => 7, name => "Ann", form => "<%s>", d => minijinja::context! { a => 1 } };
        environment.render_str(&source, context).unwrap_or_else(|error| panic!("{source}: {error}"))
    }

    #[test]
    fn text_is_formatted_as_python_does() {
        let cases = [
            ("{{ '%s' % name }}", "Ann"),
            ("{{ \"%s is %d\" % (name, n) }}!", "Ann is 7!"),
            ("{{ '%05.1f|' % 2.25 }}", "002.2|"),
            ("{{ form % name }}", "<Ann>"),
            ("{{ form % name | upper }}", "<ANN>"),
            ("{{ 'a' ~ '%s' % name ~ 'b' }}", "aAnnb"),
            ("{{ '%(a)s' % d }}", "1"),
            ("{% if '%s' % n == '7' %}yes{% endif %}", "yes"),
            ("{% set x = '%s%%' % n %}{{ x }}", "7%"),
            ("{{ ('%s' % n) % () }}", "7"),
            ("{{ ('A%s' ~ '%s') % (1, 2) }}", "A12"),
        ];
        for (source, expected) in cases {
            assert_eq!(rendered(source), expected, "{source}");
        }
    }

    #[test]
    fn numbers_and_everything_else_stay_as_they_are() {
        let cases = [
            ("{{ n % 4 }} {{ -7 % 4 }} {{ 2 * n % 4 }} {{ n % 4 * 2 }}", "3 1 2 6"),
            ("{% if n % 2 == 1 %}odd{% endif %}", "odd"),
            ("{{ 7.5 % 2 }}", "1.5"),
            ("{% for i in [1, 2] %}{{ loop.index0 % 2 }}{% endfor %}", "01"),
            ("{# 'a' % b #}100 % sure {{ '%' }} {{ '}} % {{' }}", "100 % sure % }} % {{"),
            ("{% raw %}{{ 'x' % y }}{% endraw %}", "{{ 'x' % y }}"),
        ];
        for (source, expected) in cases {
            assert_eq!(rendered(source), expected, "{source}");
        }
    }

    #[test]
    fn lines_stay_where_they_are() {
        let source = "a\n{{ '%s'\n % (name,\n n) }}\nb";
        assert_eq!(rewritten(source.to_owned()).lines().count(), source.lines().count());
    }
}
