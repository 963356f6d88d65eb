//! Typed access to JSON objects, with errors that name the field and the file.
//!
//! GGUF metadata is converted to the same kind of map, so that both formats are read alike.

use serde_json::{Map, Value};

use crate::config::ConfigError;

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

    pub(crate) fn opt_object(&self, key: &str) -> Result<Option<Fields<'a>>, ConfigError> {
        let map = self.typed(key, "an object", Value::as_object)?;
        Ok(map.map(|map| Fields { file: self.file.clone(), within: format!("{}{key}.", self.within), map }))
    }

    /// One token id or a list of them, each within the vocabulary.
    pub(crate) fn token_ids(&self, key: &str, vocab_size: usize) -> Result<Vec<u32>, ConfigError> {
        let values = match self.get(key) {
            None => return Ok(Vec::new()),
            Some(Value::Array(values)) => values.as_slice(),
            Some(value) => std::slice::from_ref(value),
        };
        let id = |value: &Value| {
            let id = value.as_u64().and_then(|id| u32::try_from(id).ok())?;
            ((id as usize) < vocab_size).then_some(id)
        };
        let ids: Option<Vec<u32>> = values.iter().map(id).collect();
        ids.ok_or_else(|| self.wrong(key, &format!("token ids below the vocabulary size {vocab_size}")))
    }

    pub(crate) fn missing(&self, key: &str) -> ConfigError {
        ConfigError::Missing { file: self.file.clone(), field: format!("{}{key}", self.within) }
    }

    pub(crate) fn wrong(&self, key: &str, expected: &str) -> ConfigError {
        ConfigError::Wrong {
            file: self.file.clone(),
            field: format!("{}{key}", self.within),
            found: self.shown(key),
            expected: expected.to_owned(),
        }
    }

    pub(crate) fn unsupported(&self, key: &str, supported: &str) -> ConfigError {
        ConfigError::Unsupported {
            file: self.file.clone(),
            field: format!("{}{key}", self.within),
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
