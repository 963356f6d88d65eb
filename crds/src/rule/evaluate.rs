//! Evaluation of a node. Total: every input gives a value or an error, within the budget.

use std::sync::Arc;

use super::{
    RuleError,
    budget::Budget,
    facts::Facts,
    functions,
    node::{Macro, Node},
    operators::no_such_key,
    value::{Key, Value},
};

/// Variables visible to a node.
pub(super) struct Scope<'r> {
    /// Variables of the request, then one for each macro around the node.
    values: Vec<Value>,
    budget: &'r mut Budget,
}

impl<'r> Scope<'r> {
    pub(super) fn new(facts: &Facts, budget: &'r mut Budget) -> Self {
        Self { values: facts.values.to_vec(), budget }
    }

    pub(super) fn evaluate(&mut self, node: &Node) -> Result<Value, RuleError> {
        self.budget.spend(1)?;
        match node {
            Node::Literal(value) => Ok(value.clone()),
            Node::Variable(place) => self.values.get(*place).cloned().ok_or_else(|| no_such_key("variable")),
            Node::List(nodes) => self.all(nodes).map(|values| Value::List(values.into())),
            Node::Map(entries) => {
                let mut map = std::collections::BTreeMap::new();
                for (key, value) in entries {
                    let key = self.evaluate(key)?;
                    let Some(name) = key.key() else {
                        return Err(RuleError::Evaluation(format!("{} cannot be the key of a map", key.kind())));
                    };
                    map.insert(name, self.evaluate(value)?);
                }
                Ok(Value::Map(Arc::new(map)))
            }
            Node::Field(operand, name) => match self.evaluate(operand)? {
                Value::Map(map) => map.get(&Key::String(Arc::clone(name))).cloned().ok_or_else(|| no_such_key(name)),
                other => Err(RuleError::Evaluation(format!("{} has no field `{name}`", other.kind()))),
            },
            Node::Has(operand, name) => match self.evaluate(operand)? {
                Value::Map(map) => Ok(Value::Bool(map.contains_key(&Key::String(Arc::clone(name))))),
                _ => Ok(Value::Bool(false)),
            },
            Node::Not(operand) => self.boolean(operand).map(|value| Value::Bool(!value)),
            Node::Negate(operand) => match self.evaluate(operand)? {
                Value::Int(value) => {
                    value.checked_neg().map(Value::Int).ok_or_else(|| RuleError::Evaluation("`-` overflows".to_owned()))
                }
                Value::Double(value) => Ok(Value::Double(-value)),
                other => Err(RuleError::Evaluation(format!("`-` does not take {}", other.kind()))),
            },
            Node::And(operands) => self.either(operands, false),
            Node::Or(operands) => self.either(operands, true),
            Node::Conditional(parts) => {
                let [condition, then, otherwise] = &**parts;
                if self.boolean(condition)? { self.evaluate(then) } else { self.evaluate(otherwise) }
            }
            Node::Binary(operator, operands) => {
                let [a, b] = &**operands;
                let (a, b) = (self.evaluate(a)?, self.evaluate(b)?);
                operator.apply(&a, &b, self.budget)
            }
            Node::Call(function, arguments) => {
                let arguments = self.all(arguments)?;
                functions::call(*function, &arguments, self.budget)
            }
            Node::Matches(text, pattern) => match self.evaluate(text)? {
                Value::String(text) => pattern.matches(&text, self.budget).map(Value::Bool),
                other => Err(RuleError::Evaluation(format!("`matches` does not take {}", other.kind()))),
            },
            Node::Macro(what, parts) => {
                let [range, body] = &**parts;
                self.over(*what, range, body)
            }
        }
    }

    fn all(&mut self, nodes: &[Node]) -> Result<Vec<Value>, RuleError> {
        nodes.iter().map(|node| self.evaluate(node)).collect()
    }

    fn boolean(&mut self, node: &Node) -> Result<bool, RuleError> {
        match self.evaluate(node)? {
            Value::Bool(value) => Ok(value),
            other => Err(RuleError::Evaluation(format!("a condition is {}, not a boolean", other.kind()))),
        }
    }

    /// `||` (`decisive` is true) and `&&` (false). As in CEL, a deciding operand hides the other's error.
    fn either(&mut self, [a, b]: &[Node; 2], decisive: bool) -> Result<Value, RuleError> {
        let first = self.boolean(a);
        if matches!(first, Ok(value) if value == decisive) || matches!(first, Err(RuleError::Cost)) {
            return first.map(Value::Bool);
        }
        match self.boolean(b) {
            Ok(value) if value == decisive => Ok(Value::Bool(decisive)),
            Err(error) => Err(first.err().unwrap_or(error)),
            Ok(_) => first.map(|_| Value::Bool(!decisive)),
        }
    }

    fn over(&mut self, what: Macro, range: &Node, body: &Node) -> Result<Value, RuleError> {
        let elements: Arc<[Value]> = match self.evaluate(range)? {
            Value::List(elements) => elements,
            Value::Map(map) => {
                self.budget.spend(map.len() as u64)?;
                map.keys().map(Value::from).collect()
            }
            other => return Err(RuleError::Evaluation(format!("{} has no elements", other.kind()))),
        };
        let depth = self.values.len();
        let result = self.each(what, &elements, body);
        self.values.truncate(depth);
        result
    }

    fn each(&mut self, what: Macro, elements: &[Value], body: &Node) -> Result<Value, RuleError> {
        let mut holds = 0;
        let mut kept = Vec::new();
        // `all` and `exists` are chains of `&&` and `||`: a deciding element hides the errors of others.
        let mut failed = None;
        let depth = self.values.len();
        for element in elements {
            self.values.truncate(depth);
            self.values.push(element.clone());
            match what {
                Macro::Map => kept.push(self.evaluate(body)?),
                Macro::Filter => {
                    if self.boolean(body)? {
                        kept.push(element.clone());
                    }
                }
                Macro::ExistsOne => holds += u64::from(self.boolean(body)?),
                Macro::All | Macro::Exists => match self.boolean(body) {
                    Ok(value) if value == (what == Macro::Exists) => return Ok(Value::Bool(value)),
                    Ok(_) => {}
                    Err(RuleError::Cost) => return Err(RuleError::Cost),
                    Err(error) => failed = failed.or(Some(error)),
                },
            }
        }
        match (what, failed) {
            (_, Some(error)) => Err(error),
            (Macro::Map | Macro::Filter, None) => Ok(Value::List(kept.into())),
            (Macro::ExistsOne, None) => Ok(Value::Bool(holds == 1)),
            (Macro::All, None) => Ok(Value::Bool(true)),
            (Macro::Exists, None) => Ok(Value::Bool(false)),
        }
    }
}
