//! Metadata of one architecture (`ARCHITECTURE.*`), and what is asked of a file's tensors.

use serde_json::Value;

use crate::config_error::ConfigError;
use crate::fields::Fields;

/// Tensors of a GGUF file.
pub(crate) trait Tensors {
    /// Shape of a tensor, slowest dimension first.
    fn shape(&self, name: &str) -> Option<&[usize]>;
    /// Values of a tensor.
    fn values(&self, name: &str) -> Option<Vec<f32>>;
}

/// Metadata under the prefix of an architecture.
pub(in crate::families) struct Metadata<'a> {
    fields: &'a Fields<'a>,
    architecture: &'static str,
    /// The file's tensors.
    pub(in crate::families) tensors: &'a dyn Tensors,
}

impl<'a> Metadata<'a> {
    pub(super) fn new(fields: &'a Fields<'a>, architecture: &'static str, tensors: &'a dyn Tensors) -> Self {
        Self { fields, architecture, tensors }
    }

    pub(super) fn file(&self) -> &str {
        self.fields.file()
    }

    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    /// Names of all keys, without the prefix.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        let prefix = self.key("");
        self.fields.keys().filter_map(move |key| key.strip_prefix(prefix.as_str()))
    }

    pub(in crate::families) fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(&self.key(name))
    }

    /// Whether a key is absent, or says that its setting is not used: zero, false, or a list of these.
    pub(super) fn is_unused(&self, name: &str) -> bool {
        let nothing = |value: &Value| *value == false || value.as_f64() == Some(0.0);
        self.get(name).is_none_or(|value| match value {
            Value::Array(values) => values.iter().all(nothing),
            _ => nothing(value),
        })
    }

    pub(in crate::families) fn opt_size(&self, name: &str) -> Result<Option<usize>, ConfigError> {
        self.fields.opt_size(&self.key(name))
    }

    pub(in crate::families) fn size(&self, name: &str) -> Result<usize, ConfigError> {
        self.fields.size(&self.key(name))
    }

    /// A number, or a list of one number for each layer that are all alike.
    pub(in crate::families) fn opt_size_of_layers(&self, name: &str) -> Result<Option<usize>, ConfigError> {
        self.size_of_some_layers(name, |_| true)
    }

    /// As [`Metadata::opt_size_of_layers`], of those layers alone for which it is not zero.
    pub(super) fn opt_size_of_layers_but_zeros(&self, name: &str) -> Result<Option<usize>, ConfigError> {
        self.size_of_some_layers(name, |value| value.as_u64() != Some(0))
    }

    fn size_of_some_layers(&self, name: &str, some: fn(&Value) -> bool) -> Result<Option<usize>, ConfigError> {
        let Some(Value::Array(values)) = self.get(name) else { return self.opt_size(name) };
        let values: Vec<_> = values.iter().filter(|value| some(value)).collect();
        match values.split_first() {
            None if self.get(name).is_some_and(|all| all.as_array().is_some_and(|all| !all.is_empty())) => Ok(None),
            Some((first, rest)) if rest.iter().all(|value| value == first) => {
                let size = first.as_u64().and_then(|size| usize::try_from(size).ok());
                size.map(Some).ok_or_else(|| self.fields.wrong(&self.key(name), "whole numbers, not negative"))
            }
            _ => Err(self.unsupported(name, "the same number for all layers")),
        }
    }

    pub(in crate::families) fn size_of_layers(&self, name: &str) -> Result<usize, ConfigError> {
        self.opt_size_of_layers(name)?.ok_or_else(|| self.missing(name))
    }

    pub(in crate::families) fn opt_number(&self, name: &str) -> Result<Option<f64>, ConfigError> {
        self.fields.opt_number(&self.key(name))
    }

    pub(in crate::families) fn number(&self, name: &str) -> Result<f64, ConfigError> {
        self.fields.number(&self.key(name))
    }

    /// A number other than zero, which stands for an absent one.
    pub(in crate::families) fn nonzero(&self, name: &str) -> Result<Option<f64>, ConfigError> {
        Ok(self.opt_number(name)?.filter(|value| *value != 0.0))
    }

    pub(super) fn opt_text(&self, name: &str) -> Result<Option<&'a str>, ConfigError> {
        self.fields.opt_text(&self.key(name))
    }

    pub(super) fn opt_flag(&self, name: &str) -> Result<Option<bool>, ConfigError> {
        self.fields.opt_flag(&self.key(name))
    }

    pub(super) fn missing(&self, name: &str) -> ConfigError {
        self.fields.missing(&self.key(name))
    }

    pub(in crate::families) fn wrong(&self, name: &str, expected: &str) -> ConfigError {
        self.fields.wrong(&self.key(name), expected)
    }

    pub(in crate::families) fn unsupported(&self, name: &str, supported: &str) -> ConfigError {
        self.fields.unsupported(&self.key(name), supported)
    }

    /// Width of a head: of queries and keys, and of values.
    pub(in crate::families) fn head_dim(&self) -> Result<usize, ConfigError> {
        let heads = self.size_of_layers("attention.head_count")?;
        let derived = self.size("embedding_length")?.checked_div(heads).unwrap_or(0);
        Ok(self.opt_size("attention.key_length")?.unwrap_or(derived))
    }

    pub(in crate::families) fn has_tensor(&self, name: &str) -> bool {
        self.tensors.shape(name).is_some()
    }
}
