//! Functions of rules: argument types and results. Each can be called as a method of its first argument.

use super::{RuleError, budget::Budget, pattern::Pattern, types::Type, value::Value};

/// Names of the functions, and of the macro `has`.
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

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Contains,
    StartsWith,
    EndsWith,
    Matches,
    Size,
    LowerAscii,
    UpperAscii,
    String,
    Int,
    Uint,
    Double,
    Min,
    Max,
}

impl Function {
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "contains" => Self::Contains,
            "startsWith" => Self::StartsWith,
            "endsWith" => Self::EndsWith,
            "matches" => Self::Matches,
            "size" => Self::Size,
            "lowerAscii" => Self::LowerAscii,
            "upperAscii" => Self::UpperAscii,
            "string" => Self::String,
            "int" => Self::Int,
            "uint" => Self::Uint,
            "double" => Self::Double,
            "min" => Self::Min,
            "max" => Self::Max,
            _ => return None,
        })
    }
}

/// Result type of a call.
///
/// # Errors
/// [`RuleError::Type`] if no values of these types are valid arguments.
pub(super) fn yields(function: Function, name: &str, arguments: &[Type]) -> Result<Type, RuleError> {
    let refused = || {
        let given: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let given = if given.is_empty() { "nothing".to_owned() } else { given.join(" and ") };
        Err(RuleError::Type(format!("`{name}` does not take {given}")))
    };
    let text = |kind: &Type| kind.may_be(&Type::String);
    match (function, arguments) {
        (Function::Contains, [of, part]) if !matches!(of, Type::String) || text(part) => match of {
            Type::Any | Type::String | Type::List(_) | Type::Map(_) | Type::Message => Ok(Type::Bool),
            _ => refused(),
        },
        (Function::StartsWith | Function::EndsWith | Function::Matches, [of, part]) if text(of) && text(part) => {
            Ok(Type::Bool)
        }
        (Function::Size, [Type::Any | Type::String | Type::Bytes | Type::List(_) | Type::Map(_) | Type::Message]) => {
            Ok(Type::Int)
        }
        (Function::LowerAscii | Function::UpperAscii, [of]) if text(of) => Ok(Type::String),
        (Function::String, [of]) if of.is_number() || matches!(of, Type::String | Type::Bool) => Ok(Type::String),
        (Function::Int | Function::Uint | Function::Double, [of]) if of.is_number() || *of == Type::String => {
            Ok(match function {
                Function::Int => Type::Int,
                Function::Uint => Type::Uint,
                _ => Type::Double,
            })
        }
        (Function::Min | Function::Max, [Type::List(element)]) => Ok((**element).clone()),
        (Function::Min | Function::Max, [Type::Any]) => Ok(Type::Any),
        (Function::Min | Function::Max, [first, rest @ ..]) if !rest.is_empty() => {
            Ok(rest.iter().cloned().fold(first.clone(), Type::or))
        }
        _ => refused(),
    }
}

/// # Errors
/// [`RuleError::Evaluation`] for arguments whose types are known only now; [`RuleError::Cost`].
pub(super) fn call(function: Function, arguments: &[Value], budget: &mut Budget) -> Result<Value, RuleError> {
    match (function, arguments) {
        (Function::Contains, [of, part]) => contains(of, part, budget).map(Value::Bool),
        (Function::StartsWith, [Value::String(text), Value::String(part)]) => {
            budget.read(part.len(), 1)?;
            Ok(Value::Bool(text.starts_with(&**part)))
        }
        (Function::EndsWith, [Value::String(text), Value::String(part)]) => {
            budget.read(part.len(), 1)?;
            Ok(Value::Bool(text.ends_with(&**part)))
        }
        (Function::Matches, [Value::String(text), Value::String(pattern)]) => {
            Pattern::late(pattern, budget)?.matches(text, budget).map(Value::Bool)
        }
        (Function::Size, [of]) => size(of, budget),
        (Function::LowerAscii, [Value::String(text)]) => {
            budget.make(text.len())?;
            Ok(Value::String(text.to_ascii_lowercase().into()))
        }
        (Function::UpperAscii, [Value::String(text)]) => {
            budget.make(text.len())?;
            Ok(Value::String(text.to_ascii_uppercase().into()))
        }
        (Function::String, [of]) => match of {
            Value::String(text) => Ok(Value::String(text.clone())),
            Value::Bool(value) => Ok(Value::text(&value.to_string())),
            Value::Int(value) => Ok(Value::text(&value.to_string())),
            Value::Uint(value) => Ok(Value::text(&value.to_string())),
            Value::Double(value) => Ok(Value::text(&value.to_string())),
            other => Err(unconvertible(other, &Type::String)),
        },
        (Function::Int, [of]) => number(of, &Type::Int, budget),
        (Function::Uint, [of]) => number(of, &Type::Uint, budget),
        (Function::Double, [of]) => number(of, &Type::Double, budget),
        (Function::Min, [Value::List(items)]) => extreme(items, budget, std::cmp::Ordering::is_lt),
        (Function::Max, [Value::List(items)]) => extreme(items, budget, std::cmp::Ordering::is_gt),
        (Function::Min, items) => extreme(items, budget, std::cmp::Ordering::is_lt),
        (Function::Max, items) => extreme(items, budget, std::cmp::Ordering::is_gt),
        (_, arguments) => {
            let given: Vec<String> = arguments.iter().map(|argument| argument.kind().to_string()).collect();
            Err(RuleError::Evaluation(format!("a function does not take {}", given.join(" and "))))
        }
    }
}

fn contains(of: &Value, part: &Value, budget: &mut Budget) -> Result<bool, RuleError> {
    match (of, part) {
        (Value::String(text), Value::String(part)) => {
            budget.read(text.len(), 1)?;
            Ok(text.contains(&**part))
        }
        (Value::List(items), _) => {
            for item in items.iter() {
                if item.equals(part, budget)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        (Value::Map(map), _) => Ok(part.key().is_some_and(|key| map.contains_key(&key))),
        _ => {
            let (of, part) = (of.kind(), part.kind());
            Err(RuleError::Evaluation(format!("`contains` does not take {of} and {part}")))
        }
    }
}

/// Size of a string in characters, else of a collection.
fn size(of: &Value, budget: &mut Budget) -> Result<Value, RuleError> {
    let size = match of {
        Value::String(text) => {
            budget.read(text.len(), 1)?;
            text.chars().count()
        }
        Value::Bytes(bytes) => bytes.len(),
        Value::List(items) => items.len(),
        Value::Map(map) => map.len(),
        other => return Err(RuleError::Evaluation(format!("`size` does not take {}", other.kind()))),
    };
    Ok(Value::Int(i64::try_from(size).unwrap_or(i64::MAX)))
}

fn unconvertible(value: &Value, to: &Type) -> RuleError {
    RuleError::Evaluation(format!("{} cannot be converted to {to}", value.kind()))
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Ranges are checked.
fn number(of: &Value, to: &Type, budget: &mut Budget) -> Result<Value, RuleError> {
    /// 2^63 and 2^64, the first doubles that are out of range.
    const INT_END: f64 = 9_223_372_036_854_775_808.0;
    const UINT_END: f64 = 18_446_744_073_709_551_616.0;
    let converted = match (to, of) {
        (_, Value::String(text)) => {
            budget.read(text.len(), 1)?;
            match to {
                Type::Int => text.parse().ok().map(Value::Int),
                Type::Uint => text.parse().ok().map(Value::Uint),
                _ => text.parse().ok().map(Value::Double),
            }
        }
        (Type::Int, Value::Int(value)) => Some(Value::Int(*value)),
        (Type::Int, Value::Uint(value)) => i64::try_from(*value).ok().map(Value::Int),
        (Type::Int, Value::Double(value)) => {
            (*value >= -INT_END && *value < INT_END).then_some(Value::Int(*value as i64))
        }
        (Type::Uint, Value::Int(value)) => u64::try_from(*value).ok().map(Value::Uint),
        (Type::Uint, Value::Uint(value)) => Some(Value::Uint(*value)),
        (Type::Uint, Value::Double(value)) => {
            (*value >= 0.0 && *value < UINT_END).then_some(Value::Uint(*value as u64))
        }
        (_, Value::Int(value)) => Some(Value::Double(*value as f64)),
        (_, Value::Uint(value)) => Some(Value::Double(*value as f64)),
        (_, Value::Double(value)) => Some(Value::Double(*value)),
        _ => None,
    };
    converted.ok_or_else(|| unconvertible(of, to))
}

fn extreme(items: &[Value], budget: &mut Budget, better: fn(std::cmp::Ordering) -> bool) -> Result<Value, RuleError> {
    let refused = || RuleError::Evaluation("`min` and `max` take values of one kind that have an order".to_owned());
    let (first, rest) = items.split_first().ok_or_else(refused)?;
    let mut best = first;
    for item in rest {
        budget.spend(1)?;
        if better(item.order(best, budget)?.ok_or_else(refused)?) {
            best = item;
        }
    }
    Ok(best.clone())
}
