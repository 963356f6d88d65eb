//! The fields of a request, taken one by one. A null field counts as absent.

use serde_json::{Map, Value};

use super::error::ApiError;

/// Fields that have not been taken yet.
#[derive(Debug)]
pub(crate) struct Fields(Map<String, Value>);

/// A type that a field may have.
pub(crate) trait Field: Sized {
    /// In words, for a message.
    const EXPECTED: &'static str;
    fn read(value: &Value) -> Option<Self>;
}

/// An integer of which anything too large is the largest.
pub(crate) struct Clamped(pub(super) u32);

/// Largest number up to which every integer is one of `f64`.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

impl Fields {
    pub(crate) fn new(mut object: Map<String, Value>) -> Self {
        object.retain(|_, value| !value.is_null());
        Self(object)
    }

    pub(crate) fn peek(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    pub(crate) fn raw(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    pub(crate) fn take<T: Field>(&mut self, name: &str) -> Result<Option<T>, ApiError> {
        self.raw(name).map(|value| read(name, &value)).transpose()
    }

    /// As [`take`](Self::take), with other words for what is expected.
    pub(crate) fn take_as<T: Field>(&mut self, name: &str, expected: &str) -> Result<Option<T>, ApiError> {
        self.raw(name).map(|value| read_as(name, &value, expected)).transpose()
    }

    /// The fields that remain.
    pub(crate) fn rest(self) -> impl Iterator<Item = (String, Value)> {
        self.0.into_iter()
    }
}

/// A value of the type that is expected at `path`.
pub(crate) fn read<T: Field>(path: &str, value: &Value) -> Result<T, ApiError> {
    read_as(path, value, T::EXPECTED)
}

/// As [`read`], with other words for what is expected.
pub(crate) fn read_as<T: Field>(path: &str, value: &Value, expected: &str) -> Result<T, ApiError> {
    T::read(value).ok_or_else(|| ApiError::param(path, format!("`{path}` has to be {expected}, not {}", shown(value))))
}

/// An integer. JSON has one kind of number: 16.0 is one too.
#[allow(clippy::cast_possible_truncation)] // Whole and in range.
pub(crate) fn integer(value: &Value) -> Option<i64> {
    let whole = |number: &f64| number.fract() == 0.0 && number.abs() <= EXACT_MAX;
    value.as_i64().or_else(|| value.as_f64().filter(whole).map(|number| number as i64))
}

/// A value in a message: short, and by its type where it is long.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) if text.chars().count() > 40 => "a string".to_owned(),
        value => value.to_string(),
    }
}

impl Field for String {
    const EXPECTED: &'static str = "a string";
    fn read(value: &Value) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
}

impl Field for bool {
    const EXPECTED: &'static str = "true or false";
    fn read(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

impl Field for u32 {
    const EXPECTED: &'static str = "an integer from 0 to 4294967295";
    fn read(value: &Value) -> Option<Self> {
        integer(value).and_then(|value| value.try_into().ok())
    }
}

impl Field for Clamped {
    const EXPECTED: &'static str = "an integer of at least 0";
    fn read(value: &Value) -> Option<Self> {
        let value = integer(value).filter(|value| *value >= 0)?;
        Some(Self(value.try_into().unwrap_or(u32::MAX)))
    }
}

impl Field for i32 {
    const EXPECTED: &'static str = "an integer from -2147483648 to 2147483647";
    fn read(value: &Value) -> Option<Self> {
        integer(value).and_then(|value| value.try_into().ok())
    }
}

impl Field for i64 {
    const EXPECTED: &'static str = "an integer";
    fn read(value: &Value) -> Option<Self> {
        integer(value)
    }
}

impl Field for f32 {
    const EXPECTED: &'static str = "a number";
    #[allow(clippy::cast_possible_truncation)] // Sampling is done in f32; what overflows is refused.
    fn read(value: &Value) -> Option<Self> {
        value.as_f64().map(|value| value as Self).filter(|value| value.is_finite())
    }
}

impl Field for Vec<Value> {
    const EXPECTED: &'static str = "a list";
    fn read(value: &Value) -> Option<Self> {
        value.as_array().cloned()
    }
}

impl Field for Map<String, Value> {
    const EXPECTED: &'static str = "an object";
    fn read(value: &Value) -> Option<Self> {
        value.as_object().cloned()
    }
}
