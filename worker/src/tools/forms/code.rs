//! Calls in Python: `name(key=value, …)`, a line each, with literals for values, or `name(**{…})` with JSON.

use serde_json::{Map, Number, Value};

use super::{Begun, Call, Read, json};
use crate::tools::ToolSet;

const CLOSE: &str = "</code>";
/// Bound on lists and dictionaries within one another.
const DEPTH_MAX: usize = 32;

/// Code that does more than call tools is text.
pub(in crate::tools) fn read(text: &str, tools: &ToolSet, ends: bool) -> Read {
    let (code, bytes) = match text.find(CLOSE) {
        Some(end) => (&text[..end], end + CLOSE.len()),
        None if ends => (text, text.len()),
        None => return Read::More,
    };
    let mut reader = Reader { rest: code };
    let mut calls = Vec::new();
    while !reader.skip_to_line() {
        let Some(call) = reader.statement(tools) else { return Read::No };
        calls.push(call);
    }
    if calls.is_empty() { Read::No } else { Read::Calls(calls, bytes) }
}

struct Reader<'t> {
    rest: &'t str,
}

impl<'t> Reader<'t> {
    /// Skips empty lines and comments; whether nothing is left.
    fn skip_to_line(&mut self) -> bool {
        loop {
            self.rest = self.rest.trim_start_matches(|letter: char| letter.is_whitespace() || letter == ';');
            match self.rest.strip_prefix('#') {
                Some(comment) => self.rest = comment.split_once('\n').map_or("", |(_, after)| after),
                None => return self.rest.is_empty(),
            }
        }
    }

    /// A call, which may be printed or given a name.
    fn statement(&mut self, tools: &ToolSet) -> Option<Call> {
        let mut name = self.name()?;
        if self.takes("=") {
            name = self.name()?;
        }
        let printed = name == "print" && tools.get("print").is_none();
        if printed {
            self.takes("(").then_some(())?;
            name = self.name()?;
        }
        let arguments = self.arguments(tools.get(name).map(|tool| &tool.shown.parameters["properties"]))?;
        if printed {
            self.takes(")").then_some(())?;
        }
        Some(Call { name: name.to_owned(), arguments })
    }

    fn takes(&mut self, word: &str) -> bool {
        let rest = self.rest.trim_start();
        rest.strip_prefix(word).map(|rest| self.rest = rest).is_some()
    }

    fn name(&mut self) -> Option<&'t str> {
        let rest = self.rest.trim_start();
        let end = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        self.rest = rest;
        Some(name).filter(|name| name.starts_with(|letter: char| letter.is_alphabetic() || letter == '_'))
    }

    /// Those without a key have the keys of the schema, in its order.
    fn arguments(&mut self, properties: Option<&Value>) -> Option<Map<String, Value>> {
        self.takes("(").then_some(())?;
        let mut keys = properties.and_then(Value::as_object).into_iter().flatten().map(|(key, _)| key.clone());
        let mut arguments = Map::new();
        if self.takes("**") {
            let Begun::Whole(Value::Object(all), bytes) = json::value(self.rest) else { return None };
            self.rest = &self.rest[bytes..];
            return self.takes(")").then_some(all);
        }
        while !self.takes(")") {
            let before = self.rest;
            let key = self.name().filter(|_| self.takes("=")).map(str::to_owned);
            let key = match key {
                Some(key) => key,
                None => {
                    self.rest = before;
                    keys.next()?
                }
            };
            arguments.insert(key, self.value(0)?);
            if !self.takes(",") {
                self.takes(")").then_some(())?;
                break;
            }
        }
        Some(arguments)
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        let rest = self.rest.trim_start();
        match rest.chars().next().filter(|_| depth <= DEPTH_MAX)? {
            '"' | '\'' => self.text().map(Value::String),
            '[' | '(' => {
                let close = if rest.starts_with('[') { "]" } else { ")" };
                self.rest = &rest[1..];
                let mut items = Vec::new();
                while !self.takes(close) {
                    items.push(self.value(depth + 1)?);
                    if !self.takes(",") {
                        self.takes(close).then_some(())?;
                        break;
                    }
                }
                Some(Value::Array(items))
            }
            '{' => {
                self.rest = &rest[1..];
                let mut fields = Map::new();
                while !self.takes("}") {
                    self.rest = self.rest.trim_start();
                    let key = self.text()?;
                    self.takes(":").then_some(())?;
                    fields.insert(key, self.value(depth + 1)?);
                    if !self.takes(",") {
                        self.takes("}").then_some(())?;
                        break;
                    }
                }
                Some(Value::Object(fields))
            }
            _ => self.word(),
        }
    }

    fn word(&mut self) -> Option<Value> {
        let rest = self.rest.trim_start();
        let end = rest.find(|letter: char| !letter.is_alphanumeric() && !"+-._".contains(letter)).unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        self.rest = rest;
        match word {
            "True" => Some(true.into()),
            "False" => Some(false.into()),
            "None" => Some(Value::Null),
            word => word
                .parse::<i64>()
                .map(Number::from)
                .ok()
                .or_else(|| Number::from_f64(word.parse().ok()?))
                .map(Value::Number),
        }
    }

    /// A text in single or double quotes, or in three of them.
    fn text(&mut self) -> Option<String> {
        let rest = self.rest.trim_start();
        let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| rest.starts_with(quote))?;
        let mut text = String::new();
        let mut at = quote.len();
        while !rest[at..].starts_with(quote) {
            let mut letters = rest[at..].chars();
            let letter = letters.next()?;
            at += letter.len_utf8();
            if letter != '\\' {
                text.push(letter);
                continue;
            }
            let escaped = letters.next()?;
            at += escaped.len_utf8();
            match escaped {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                '\n' => {}
                '\\' | '\'' | '"' => text.push(escaped),
                other => text.extend(['\\', other]),
            }
        }
        self.rest = &rest[at + quote.len()..];
        Some(text)
    }
}
