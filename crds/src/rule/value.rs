//! Values of expressions. Cheap to clone: large ones are shared.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use super::{RuleError, budget::Budget, types::Type};

/// Value of a node.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
    List(Arc<[Self]>),
    Map(Arc<BTreeMap<Key, Self>>),
}

/// Key of a map. As in CEL, integers are one kind: `1` and `1u` are the same key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Bool(bool),
    Int(i128),
    String(Arc<str>),
}

impl Value {
    pub(super) fn text(text: &str) -> Self {
        Self::String(text.into())
    }

    /// Type of the value, without that of its elements.
    pub(super) fn kind(&self) -> Type {
        match self {
            Self::Null => Type::Null,
            Self::Bool(_) => Type::Bool,
            Self::Int(_) => Type::Int,
            Self::Uint(_) => Type::Uint,
            Self::Double(_) => Type::Double,
            Self::String(_) => Type::String,
            Self::Bytes(_) => Type::Bytes,
            Self::List(_) => Type::List(Type::Any.into()),
            Self::Map(_) => Type::Map(Type::Any.into()),
        }
    }

    /// The value as a map key, if possible.
    pub(super) fn key(&self) -> Option<Key> {
        Some(match self {
            Self::Bool(value) => Key::Bool(*value),
            Self::Int(value) => Key::Int(i128::from(*value)),
            Self::Uint(value) => Key::Int(i128::from(*value)),
            Self::String(value) => Key::String(Arc::clone(value)),
            _ => return None,
        })
    }

    /// `==`: values of different types differ; numbers are compared by value.
    pub(super) fn equals(&self, other: &Self, budget: &mut Budget) -> Result<bool, RuleError> {
        budget.spend(1)?;
        Ok(match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::String(a), Self::String(b)) => {
                budget.read(a.len().min(b.len()), 1)?;
                a == b
            }
            (Self::Bytes(a), Self::Bytes(b)) => {
                budget.read(a.len().min(b.len()), 1)?;
                a == b
            }
            (Self::List(a), Self::List(b)) => {
                a.len() == b.len() && all(a.iter().zip(b.iter()), |(a, b)| a.equals(b, budget))?
            }
            (Self::Map(a), Self::Map(b)) => {
                a.len() == b.len()
                    && all(a.iter().zip(b.iter()), |((key, a), (other, b))| Ok(key == other && a.equals(b, budget)?))?
            }
            _ => numbers(self, other) == Some(Ordering::Equal),
        })
    }

    /// `<`: `None` for values without an order.
    pub(super) fn order(&self, other: &Self, budget: &mut Budget) -> Result<Option<Ordering>, RuleError> {
        Ok(match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::String(a), Self::String(b)) => {
                budget.read(a.len().min(b.len()), 1)?;
                Some(a.cmp(b))
            }
            (Self::Bytes(a), Self::Bytes(b)) => {
                budget.read(a.len().min(b.len()), 1)?;
                Some(a.cmp(b))
            }
            _ => numbers(self, other),
        })
    }
}

impl From<&Key> for Value {
    fn from(key: &Key) -> Self {
        match key {
            Key::Bool(value) => Self::Bool(*value),
            Key::Int(value) => i64::try_from(*value)
                .map(Self::Int)
                .or_else(|_| u64::try_from(*value).map(Self::Uint))
                .unwrap_or(Self::Null),
            Key::String(value) => Self::String(Arc::clone(value)),
        }
    }
}

fn all<T>(
    items: impl Iterator<Item = T>,
    mut holds: impl FnMut(T) -> Result<bool, RuleError>,
) -> Result<bool, RuleError> {
    for item in items {
        if !holds(item)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Two numbers of any kinds.
fn numbers(a: &Value, b: &Value) -> Option<Ordering> {
    match (integer(a), integer(b)) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => double(a)?.partial_cmp(&double(b)?),
    }
}

fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::Int(value) => Some(i128::from(*value)),
        Value::Uint(value) => Some(i128::from(*value)),
        _ => None,
    }
}

#[allow(clippy::cast_precision_loss)] // Comparing with a double is as exact as a double.
fn double(value: &Value) -> Option<f64> {
    match value {
        Value::Double(value) => Some(*value),
        other => integer(other).map(|value| value as f64),
    }
}
