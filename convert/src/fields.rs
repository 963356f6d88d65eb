//! Typed access to JSON objects, with errors that name the field and the file.
//!
//! GGUF metadata is converted to the same kind of map, so that both formats are read alike.

use serde_json::{Map, Value};

use crate::config_error::ConfigError;

/// Parses a JSON object. Numbers that Python writes and JSON lacks (`NaN`, `Infinity`) become strings, so that only the
/// field is wrong and not the file.
pub(crate) fn parse(bytes: &[u8]) -> Result<Map<String, Value>, serde_json::Error> {
    serde_json::from_slice(bytes).or_else(|error| match quoted_numbers(bytes) {
        Some(quoted) => serde_json::from_slice(&quoted).map_err(|_| error),
        None => Err(error),
    })
}

/// The text with quotes around `NaN`, `Infinity` and `-Infinity`; `None` if there are none outside of strings.
fn quoted_numbers(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    let (mut at, mut found) = (0, false);
    while let Some(&byte) = bytes.get(at) {
        let length = match byte {
            b'"' => string_length(&bytes[at..]),
            _ => match [&b"NaN"[..], b"Infinity", b"-Infinity"].iter().find(|name| bytes[at..].starts_with(name)) {
                Some(name) => {
                    found = true;
                    out.push(b'"');
                    out.extend_from_slice(name);
                    out.push(b'"');
                    at += name.len();
                    continue;
                }
                None => 1,
            },
        };
        out.extend_from_slice(&bytes[at..at + length]);
        at += length;
    }
    found.then_some(out)
}

/// Length of the string that begins `bytes`, with its quotes.
fn string_length(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// A JSON object and its location.
#[derive(Clone)]
pub(crate) struct Fields<'a> {
    file: String,
    /// Path of the object in its file, with a dot at the end; empty for the root.
    within: String,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(file: &str, map: &'a Map<String, Value>) -> Self {
        Self { file: file.to_owned(), within: String::new(), map }
    }

    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    /// The value, if present and not null.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Whether the key is present, even if null.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.map.keys().map(String::as_str)
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.wrong(key, expected)),
        }
    }

    pub(crate) fn opt_size(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        self.typed(key, "a whole number, not negative", |value| value.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    pub(crate) fn size(&self, key: &str) -> Result<usize, ConfigError> {
        self.opt_size(key)?.ok_or_else(|| self.missing(key))
    }

    pub(crate) fn opt_number(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub(crate) fn number(&self, key: &str) -> Result<f64, ConfigError> {
        self.opt_number(key)?.ok_or_else(|| self.missing(key))
    }

    pub(crate) fn opt_flag(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// Refuses any value but the supported one.
    pub(crate) fn only_flag(&self, key: &str, supported: bool) -> Result<(), ConfigError> {
        match self.opt_flag(key)? {
            Some(flag) if flag != supported => Err(self.unsupported(key, &supported.to_string())),
            _ => Ok(()),
        }
    }

    pub(crate) fn opt_text(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        self.typed(key, "a string", Value::as_str)
    }

    pub(crate) fn opt_texts(&self, key: &str) -> Result<Option<Vec<&'a str>>, ConfigError> {
        self.typed(key, "a list of strings", |value| value.as_array()?.iter().map(Value::as_str).collect())
    }

    pub(crate) fn opt_numbers(&self, key: &str) -> Result<Option<Vec<f64>>, ConfigError> {
        self.typed(key, "a list of numbers", |value| value.as_array()?.iter().map(Value::as_f64).collect())
    }

    pub(crate) fn numbers(&self, key: &str) -> Result<Vec<f64>, ConfigError> {
        self.opt_numbers(key)?.ok_or_else(|| self.missing(key))
    }

    pub(crate) fn opt_object(&self, key: &str) -> Result<Option<Fields<'a>>, ConfigError> {
        let map = self.typed(key, "an object", Value::as_object)?;
        Ok(map.map(|map| Fields { file: self.file.clone(), within: format!("{}{key}.", self.within), map }))
    }

    /// Path of a field in its file.
    pub(crate) fn path(&self, key: &str) -> String {
        format!("{}{key}", self.within)
    }

    pub(crate) fn missing(&self, key: &str) -> ConfigError {
        ConfigError::Missing { file: self.file.clone(), field: self.path(key) }
    }

    pub(crate) fn wrong(&self, key: &str, expected: &str) -> ConfigError {
        ConfigError::Wrong {
            file: self.file.clone(),
            field: self.path(key),
            found: self.shown(key),
            expected: expected.to_owned(),
        }
    }

    pub(crate) fn unsupported(&self, key: &str, supported: &str) -> ConfigError {
        ConfigError::Unsupported {
            file: self.file.clone(),
            field: self.path(key),
            found: self.shown(key),
            supported: supported.to_owned(),
        }
    }

    /// The value as JSON, truncated: a message should not contain a vocabulary.
    fn shown(&self, key: &str) -> String {
        shown(self.map.get(key).unwrap_or(&Value::Null))
    }
}

/// A value as JSON, truncated to about 80 characters.
pub(crate) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pythons_numbers_are_wrong_values_and_not_wrong_files() {
        let map = parse(br#"{"a": NaN, "b": [-Infinity, Infinity], "c": "NaN \" Infinity", "d": 1}"#).unwrap();
        assert_eq!(
            Value::Object(map).to_string(),
            r#"{"a":"NaN","b":["-Infinity","Infinity"],"c":"NaN \" Infinity","d":1}"#
        );
        for bad in [&br#"{"a": nan}"#[..], b"{\"a\": \"NaN", b"NaN", b"[NaN]", b"{\"a\": NaN"] {
            assert!(parse(bad).is_err());
        }
    }
}
