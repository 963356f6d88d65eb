//! Binary operators: operand types and results.

use std::{cmp::Ordering, sync::Arc};

use cel::common::ast::operators;

use super::{RuleError, budget::Budget, types::Type, value::Value};

/// A binary operator that evaluates both operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    Equals,
    NotEquals,
    Less,
    LessEquals,
    Greater,
    GreaterEquals,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    In,
    Index,
}

impl Binary {
    /// The operator of that name in `cel`.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            operators::EQUALS => Self::Equals,
            operators::NOT_EQUALS => Self::NotEquals,
            operators::LESS => Self::Less,
            operators::LESS_EQUALS => Self::LessEquals,
            operators::GREATER => Self::Greater,
            operators::GREATER_EQUALS => Self::GreaterEquals,
            operators::ADD => Self::Add,
            operators::SUBSTRACT => Self::Subtract,
            operators::MULTIPLY => Self::Multiply,
            operators::DIVIDE => Self::Divide,
            operators::MODULO => Self::Modulo,
            operators::IN => Self::In,
            operators::INDEX => Self::Index,
            _ => return None,
        })
    }

    fn sign(self) -> &'static str {
        match self {
            Self::Equals => "==",
            Self::NotEquals => "!=",
            Self::Less => "<",
            Self::LessEquals => "<=",
            Self::Greater => ">",
            Self::GreaterEquals => ">=",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
            Self::In => "in",
            Self::Index => "[]",
        }
    }

    /// # Errors
    /// [`RuleError::Type`] if no values of these types are valid operands.
    pub(super) fn yields(self, a: &Type, b: &Type) -> Result<Type, RuleError> {
        let refused = || Err(RuleError::Type(format!("`{}` does not take {a} and {b}", self.sign())));
        match self {
            // Values of different types are never equal, so comparing them is a mistake.
            Self::Equals | Self::NotEquals if a.may_be(b) || (a.is_number() && b.is_number()) => Ok(Type::Bool),
            Self::Less | Self::LessEquals | Self::Greater | Self::GreaterEquals => {
                let ordered = matches!(a, Type::Any | Type::Bool | Type::String | Type::Bytes) && a.may_be(b);
                if ordered || (a.is_number() && b.is_number()) { Ok(Type::Bool) } else { refused() }
            }
            Self::Add if matches!(a, Type::String | Type::Bytes) && a.may_be(b) => Ok(a.clone()),
            Self::Add if matches!(b, Type::String | Type::Bytes) && *a == Type::Any => Ok(b.clone()),
            Self::Add => match (a, b) {
                (Type::List(x), Type::List(y)) => Ok(Type::List(Box::new((**x).clone().or((**y).clone())))),
                (Type::List(_), Type::Any) | (Type::Any, Type::List(_)) => Ok(Type::List(Type::Any.into())),
                _ if a.is_number() && a.may_be(b) => Ok(a.clone().or(b.clone())),
                _ => refused(),
            },
            Self::Modulo if *a == Type::Double || *b == Type::Double => refused(),
            Self::Subtract | Self::Multiply | Self::Divide | Self::Modulo
                if a.is_number() && b.is_number() && a.may_be(b) =>
            {
                Ok(a.clone().or(b.clone()))
            }
            Self::In => match b {
                Type::Any | Type::List(_) | Type::Map(_) | Type::Message => Ok(Type::Bool),
                Type::String if a.may_be(&Type::String) => Ok(Type::Bool),
                _ => refused(),
            },
            Self::Index => match a {
                Type::Any => Ok(Type::Any),
                Type::List(element) if b.is_number() => Ok((**element).clone()),
                Type::Map(value) => Ok((**value).clone()),
                Type::Message => Ok(Type::String),
                _ => refused(),
            },
            _ => refused(),
        }
    }

    /// # Errors
    /// [`RuleError::Evaluation`] for operands whose types are known only now, overflow, division by zero and missing
    /// keys; [`RuleError::Cost`].
    pub(super) fn apply(self, a: &Value, b: &Value, budget: &mut Budget) -> Result<Value, RuleError> {
        match self {
            Self::Equals => a.equals(b, budget).map(Value::Bool),
            Self::NotEquals => a.equals(b, budget).map(|equal| Value::Bool(!equal)),
            Self::Less => self.compare(a, b, budget, Ordering::is_lt),
            Self::LessEquals => self.compare(a, b, budget, Ordering::is_le),
            Self::Greater => self.compare(a, b, budget, Ordering::is_gt),
            Self::GreaterEquals => self.compare(a, b, budget, Ordering::is_ge),
            Self::Add => match (a, b) {
                (Value::String(a), Value::String(b)) => {
                    budget.make(a.len() + b.len())?;
                    Ok(Value::String([&**a, &**b].concat().into()))
                }
                (Value::Bytes(a), Value::Bytes(b)) => {
                    budget.make(a.len() + b.len())?;
                    Ok(Value::Bytes([&**a, &**b].concat().into()))
                }
                (Value::List(a), Value::List(b)) => {
                    budget.spend((a.len() + b.len()) as u64)?;
                    Ok(Value::List(a.iter().chain(b.iter()).cloned().collect()))
                }
                _ => self.calculate(a, b),
            },
            Self::Subtract | Self::Multiply | Self::Divide | Self::Modulo => self.calculate(a, b),
            Self::In => self.contains(a, b, budget),
            Self::Index => self.index(a, b),
        }
    }

    fn compare(
        self,
        a: &Value,
        b: &Value,
        budget: &mut Budget,
        holds: impl FnOnce(Ordering) -> bool,
    ) -> Result<Value, RuleError> {
        let both_numbers = a.kind().is_number() && b.kind().is_number();
        match a.order(b, budget)? {
            Some(order) => Ok(Value::Bool(holds(order))),
            // NaN is neither less nor greater.
            None if both_numbers => Ok(Value::Bool(false)),
            None => self.refuse(a, b),
        }
    }

    fn calculate(self, a: &Value, b: &Value) -> Result<Value, RuleError> {
        let result = match (a, b) {
            (Value::Int(a), Value::Int(b)) => match self {
                Self::Add => a.checked_add(*b),
                Self::Subtract => a.checked_sub(*b),
                Self::Multiply => a.checked_mul(*b),
                Self::Divide => a.checked_div(*b),
                _ => a.checked_rem(*b),
            }
            .map(Value::Int),
            (Value::Uint(a), Value::Uint(b)) => match self {
                Self::Add => a.checked_add(*b),
                Self::Subtract => a.checked_sub(*b),
                Self::Multiply => a.checked_mul(*b),
                Self::Divide => a.checked_div(*b),
                _ => a.checked_rem(*b),
            }
            .map(Value::Uint),
            (Value::Double(a), Value::Double(b)) => match self {
                Self::Add => Some(a + b),
                Self::Subtract => Some(a - b),
                Self::Multiply => Some(a * b),
                Self::Divide => Some(a / b),
                _ => return self.refuse(&Value::Double(*a), &Value::Double(*b)),
            }
            .map(Value::Double),
            _ => return self.refuse(a, b),
        };
        result.ok_or_else(|| RuleError::Evaluation(format!("`{}` overflows or divides by zero", self.sign())))
    }

    fn contains(self, needle: &Value, haystack: &Value, budget: &mut Budget) -> Result<Value, RuleError> {
        let found = match (needle, haystack) {
            (_, Value::List(items)) => {
                let mut found = false;
                for item in items.iter() {
                    if item.equals(needle, budget)? {
                        found = true;
                        break;
                    }
                }
                found
            }
            (_, Value::Map(map)) => needle.key().is_some_and(|key| map.contains_key(&key)),
            (Value::String(part), Value::String(text)) => {
                budget.read(text.len(), 1)?;
                text.contains(&**part)
            }
            _ => return self.refuse(needle, haystack),
        };
        Ok(Value::Bool(found))
    }

    fn index(self, of: &Value, at: &Value) -> Result<Value, RuleError> {
        match (of, at) {
            (Value::List(items), _) => {
                let place = match at {
                    Value::Int(place) => usize::try_from(*place).ok(),
                    Value::Uint(place) => usize::try_from(*place).ok(),
                    _ => return self.refuse(of, at),
                };
                place.and_then(|place| items.get(place)).cloned().ok_or_else(|| {
                    RuleError::Evaluation(format!("the index is outside of a list of {} elements", items.len()))
                })
            }
            (Value::Map(map), _) => {
                let found = at.key().and_then(|key| map.get(&key)).cloned();
                found.ok_or_else(|| no_such_key(&shown(at)))
            }
            _ => self.refuse(of, at),
        }
    }

    fn refuse(self, a: &Value, b: &Value) -> Result<Value, RuleError> {
        let (a, b) = (a.kind(), b.kind());
        Err(RuleError::Evaluation(format!("`{}` does not take {a} and {b}", self.sign())))
    }
}

pub(super) fn no_such_key(key: &str) -> RuleError {
    RuleError::Evaluation(format!("there is no key `{key}`"))
}

/// A key, shortened to one line.
fn shown(key: &Value) -> String {
    match key {
        Value::String(text) => Arc::<str>::clone(text).chars().take(80).collect(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        other => other.kind().to_string(),
    }
}
