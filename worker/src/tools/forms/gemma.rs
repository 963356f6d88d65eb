//! Gemma's calls: `call:name{key:value}`, with marks around texts instead of quotes.

use serde_json::{Map, Value};

use super::{Begun, Call, Read, begins, json};

/// Its marks.
pub(in crate::tools) struct Dialect {
    close: &'static str,
    quote: &'static str,
}

impl Dialect {
    pub(in crate::tools) const FUNCTION_GEMMA: Self = Self { close: "<end_function_call>", quote: "<escape>" };
    pub(in crate::tools) const GEMMA: Self = Self { close: "<tool_call|>", quote: "<|\"|>" };
}

/// Bound on lists and objects within one another.
const DEPTH_MAX: usize = 32;

pub(in crate::tools) fn read(text: &str, dialect: &Dialect, ends: bool) -> Read {
    match call(text, dialect) {
        Ok((call, mut at)) => {
            match begins(&text[at..], dialect.close) {
                Begun::Whole((), bytes) => at += bytes,
                Begun::More if !ends => return Read::More,
                Begun::More | Begun::No => {}
            }
            Read::Calls(vec![call], at)
        }
        Err(Stop::Short) if !ends => Read::More,
        Err(_) => Read::No,
    }
}

/// Why there is no value.
enum Stop {
    /// The text ends too early.
    Short,
    Wrong,
}

fn call(text: &str, dialect: &Dialect) -> Result<(Call, usize), Stop> {
    let mut reader = Reader { text, at: 0, dialect };
    reader.word("call:")?;
    let brace = reader.rest().find('{').ok_or(Stop::Short)?;
    let name = reader.rest()[..brace].trim().to_owned();
    reader.at += brace;
    // JSON does as well.
    let arguments = match json::value(reader.rest()) {
        Begun::Whole(Value::Object(arguments), bytes) => {
            reader.at += bytes;
            arguments
        }
        _ => reader.object(0)?,
    };
    Ok((Call { name, arguments }, reader.at))
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    dialect: &'t Dialect,
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    /// Takes `word`, after white space.
    fn word(&mut self, word: &str) -> Result<(), Stop> {
        match begins(self.rest(), word) {
            Begun::Whole((), bytes) => {
                self.at += bytes;
                Ok(())
            }
            Begun::More => Err(Stop::Short),
            Begun::No => Err(Stop::Wrong),
        }
    }

    /// Whether `word` comes next; takes it then.
    fn takes(&mut self, word: &str) -> Result<bool, Stop> {
        match self.word(word) {
            Ok(()) => Ok(true),
            Err(Stop::Wrong) => Ok(false),
            Err(Stop::Short) => Err(Stop::Short),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Map<String, Value>, Stop> {
        self.word("{")?;
        let mut fields = Map::new();
        if self.takes("}")? {
            return Ok(fields);
        }
        loop {
            let key = if self.is_quoted()? { self.quoted()? } else { self.bare(&[':', '}', ','])? };
            self.word(":")?;
            let key = key.trim_matches('"').to_owned();
            fields.insert(key, self.value(depth + 1)?);
            if self.takes("}")? {
                return Ok(fields);
            }
            self.word(",")?;
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, Stop> {
        if depth > DEPTH_MAX {
            return Err(Stop::Wrong);
        }
        if self.is_quoted()? {
            return self.quoted().map(Value::String);
        }
        match self.rest().trim_start().chars().next() {
            None => Err(Stop::Short),
            Some('{') => self.object(depth).map(Value::Object),
            Some('[') => self.list(depth),
            Some('"') => self.json_text(),
            Some(_) => {
                let word = self.bare(&[',', '}', ']'])?;
                Ok(serde_json::from_str(&word).unwrap_or(Value::String(word)))
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, Stop> {
        self.word("[")?;
        let mut items = Vec::new();
        if self.takes("]")? {
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.takes("]")? {
                return Ok(Value::Array(items));
            }
            self.word(",")?;
        }
    }

    /// A text in JSON's quotes, which the model was not taught.
    fn json_text(&mut self) -> Result<Value, Stop> {
        let mut values = serde_json::Deserializer::from_str(self.rest()).into_iter::<Value>();
        match values.next() {
            Some(Ok(value)) => {
                self.at += values.byte_offset();
                Ok(value)
            }
            Some(Err(error)) if !error.is_eof() => Err(Stop::Wrong),
            _ => Err(Stop::Short),
        }
    }

    fn is_quoted(&mut self) -> Result<bool, Stop> {
        let rest = self.rest().trim_start();
        if !rest.is_empty() && rest.len() < self.dialect.quote.len() && self.dialect.quote.starts_with(rest) {
            return Err(Stop::Short);
        }
        Ok(rest.starts_with(self.dialect.quote))
    }

    fn quoted(&mut self) -> Result<String, Stop> {
        self.word(self.dialect.quote)?;
        let end = self.rest().find(self.dialect.quote).ok_or(Stop::Short)?;
        let text = self.rest()[..end].to_owned();
        self.at += end + self.dialect.quote.len();
        Ok(text)
    }

    /// A word without quotes.
    fn bare(&mut self, ends: &[char]) -> Result<String, Stop> {
        let end = self.rest().find(ends).ok_or(Stop::Short)?;
        let word = self.rest()[..end].trim().to_owned();
        self.at += end;
        if word.is_empty() { Err(Stop::Wrong) } else { Ok(word) }
    }
}
