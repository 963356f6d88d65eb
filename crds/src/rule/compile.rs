//! Compiler from `cel`'s syntax tree to a typed [`Node`]: resolves names, checks operands, recognises macros.

use cel::{
    IdedExpr,
    common::{
        ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, operators as cel_operators},
        value::CelVal,
    },
};

use super::{
    RuleError, VARIABLES,
    functions::{self, FUNCTIONS, Function},
    node::{Macro, Node},
    operators::Binary,
    pattern::Pattern,
    types::Type,
    value::Value,
};
use crate::nearest::nearest;

/// Bound on the depth of nodes. Evaluation recurses, so this bounds its stack.
const DEPTH_MAX: usize = 128;

/// # Errors
/// The reason why the expression is invalid.
pub(super) fn compile(expression: &IdedExpr) -> Result<(Node, Type), RuleError> {
    let text = |value| Type::Map(Box::new(value));
    let types = [Type::String, Type::List(Type::Message.into()), text(Type::String), Type::String];
    let scope = VARIABLES.into_iter().map(str::to_owned).zip(types).collect();
    Compiler { scope, depth: 0 }.compile(expression)
}

struct Compiler {
    /// Variables with their types, outermost first; their values have the same indices at evaluation.
    scope: Vec<(String, Type)>,
    depth: usize,
}

type Compiled = Result<(Node, Type), RuleError>;

impl Compiler {
    fn compile(&mut self, expression: &IdedExpr) -> Compiled {
        if self.depth == DEPTH_MAX {
            return Err(RuleError::Unsupported(format!("nested deeper than {DEPTH_MAX} levels")));
        }
        self.depth += 1;
        let compiled = self.expression(&expression.expr);
        self.depth -= 1;
        compiled
    }

    fn expression(&mut self, expression: &Expr) -> Compiled {
        match expression {
            Expr::Literal(value) => literal(value),
            Expr::Ident(name) => self.variable(name),
            Expr::Select(select) => {
                let (operand, kind) = self.compile(&select.operand)?;
                let value = field(&kind, &select.field)?;
                let (operand, name) = (Box::new(operand), select.field.as_str().into());
                Ok(if select.test {
                    (Node::Has(operand, name), Type::Bool)
                } else {
                    (Node::Field(operand, name), value)
                })
            }
            Expr::List(list) => {
                let (nodes, types) = self.all(list.elements.iter())?;
                let element = types.into_iter().reduce(Type::or).unwrap_or(Type::Any);
                Ok((Node::List(nodes), Type::List(element.into())))
            }
            Expr::Map(map) => {
                let mut entries = Vec::with_capacity(map.entries.len());
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else { return Err(unsupported_struct()) };
                    entries.push((self.compile(&entry.key)?.0, self.compile(&entry.value)?.0));
                }
                Ok((Node::Map(entries), Type::Map(Type::Any.into())))
            }
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Struct(_) => Err(unsupported_struct()),
            Expr::Unspecified => Err(RuleError::Unsupported("a part of the expression is empty".to_owned())),
        }
    }

    fn all<'e>(
        &mut self,
        expressions: impl Iterator<Item = &'e IdedExpr>,
    ) -> Result<(Vec<Node>, Vec<Type>), RuleError> {
        expressions.map(|expression| self.compile(expression)).collect::<Result<_, _>>()
    }

    fn variable(&self, name: &str) -> Compiled {
        if let Some((place, (_, kind))) = self.scope.iter().enumerate().rev().find(|(_, (known, _))| known == name) {
            return Ok((Node::Variable(place), kind.clone()));
        }
        let known: Vec<&str> = self.scope.iter().map(|(name, _)| name.as_str()).collect();
        Err(RuleError::UnknownVariable { name: name.to_owned(), suggestion: suggestion(name, &known) })
    }

    fn call(&mut self, call: &CallExpr) -> Compiled {
        let arguments = || call.target.as_deref().into_iter().chain(&call.args);
        let name = call.func_name.as_str();
        if let Some(operator) = Binary::from_name(name) {
            let (nodes, types) = self.all(arguments())?;
            let (operands, [a, b]) = (exactly(name, nodes)?, exactly(name, types)?);
            let kind = operator.yields(&a, &b)?;
            return Ok((Node::Binary(operator, Box::new(operands)), kind));
        }
        match name {
            cel_operators::LOGICAL_AND => self.logical(call, Node::And),
            cel_operators::LOGICAL_OR => self.logical(call, Node::Or),
            cel_operators::LOGICAL_NOT => {
                let (nodes, types) = self.all(arguments())?;
                let ([operand], [kind]) = (exactly(name, nodes)?, exactly(name, types)?);
                boolean("!", &kind)?;
                Ok((Node::Not(Box::new(operand)), Type::Bool))
            }
            cel_operators::NEGATE => {
                let (nodes, types) = self.all(arguments())?;
                let ([operand], [kind]) = (exactly(name, nodes)?, exactly(name, types)?);
                if !kind.is_number() {
                    return Err(RuleError::Type(format!("`-` takes a number, not {kind}")));
                }
                Ok((Node::Negate(Box::new(operand)), kind))
            }
            cel_operators::CONDITIONAL => {
                let (nodes, types) = self.all(arguments())?;
                let (nodes, [condition, then, otherwise]) = (exactly(name, nodes)?, exactly(name, types)?);
                boolean("? :", &condition)?;
                Ok((Node::Conditional(Box::new(nodes)), then.or(otherwise)))
            }
            _ => self.function(call),
        }
    }

    fn logical(&mut self, call: &CallExpr, node: impl FnOnce(Box<[Node; 2]>) -> Node) -> Compiled {
        let (nodes, types) = self.all(call.args.iter())?;
        for kind in &types {
            boolean("&&` and `||", kind)?;
        }
        Ok((node(Box::new(exactly(&call.func_name, nodes)?)), Type::Bool))
    }

    fn function(&mut self, call: &CallExpr) -> Compiled {
        let name = call.func_name.as_str();
        // Names of unsupported CEL operators begin with a sign.
        if !name.starts_with(char::is_alphabetic) {
            return Err(RuleError::Unsupported(format!("the operator `{}` is not supported", name.trim_matches('_'))));
        }
        let Some(function) = Function::from_name(name) else {
            let suggestion = suggestion(name, &FUNCTIONS);
            return Err(RuleError::UnknownFunction { name: name.to_owned(), suggestion });
        };
        let (mut nodes, types) = self.all(call.target.as_deref().into_iter().chain(&call.args))?;
        let kind = functions::yields(function, name, &types)?;
        if function == Function::Matches
            && let [_, Node::Literal(Value::String(pattern))] = nodes.as_slice()
        {
            let pattern = Pattern::new(pattern)?;
            nodes.truncate(1);
            let [text] = exactly(name, nodes)?;
            return Ok((Node::Matches(Box::new(text), pattern), kind));
        }
        Ok((Node::Call(function, nodes), kind))
    }

    /// `cel` has already expanded macros; their shapes are recognised here, and no others are accepted.
    fn comprehension(&mut self, comprehension: &ComprehensionExpr) -> Compiled {
        let (range, kind) = self.compile(&comprehension.iter_range)?;
        let element = match kind {
            Type::Any => Type::Any,
            Type::List(element) => *element,
            Type::Map(_) => Type::Any,
            Type::Message => Type::String,
            other => {
                let what = "all, exists, exists_one, filter and map go over a list or the keys of a map";
                return Err(RuleError::Type(format!("{what}, not over {other}")));
            }
        };
        let (what, condition, transform) = shape(comprehension)
            .ok_or_else(|| RuleError::Unsupported("this form of a macro is not supported".to_owned()))?;
        self.scope.push((comprehension.iter_var.clone(), element.clone()));
        let compiled = condition.map(|condition| self.compile(condition)).transpose();
        let transformed = transform.map(|transform| self.compile(transform)).transpose();
        self.scope.pop();
        let (condition, transform) = (compiled?, transformed?);
        if let Some((_, kind)) = &condition {
            boolean("a macro", kind)?;
        }
        let over = |what, range, body| Node::Macro(what, Box::new([range, body]));
        Ok(match (condition, transform) {
            (Some((condition, _)), None) => {
                let kind = if what == Macro::Filter { Type::List(element.into()) } else { Type::Bool };
                (over(what, range, condition), kind)
            }
            (None, Some((transform, kind))) => (over(Macro::Map, range, transform), Type::List(kind.into())),
            (Some((condition, _)), Some((transform, kind))) => {
                let chosen = over(Macro::Filter, range, condition);
                (over(Macro::Map, chosen, transform), Type::List(kind.into()))
            }
            (None, None) => return Err(RuleError::Unsupported("a macro without a body".to_owned())),
        })
    }
}

/// Kind of a macro, with its condition and its transformation.
fn shape(of: &ComprehensionExpr) -> Option<(Macro, Option<&IdedExpr>, Option<&IdedExpr>)> {
    let Expr::Call(step) = &of.loop_step.expr else { return None };
    if of.iter_var2.is_some() {
        return None;
    }
    // `@result + [element]`.
    let appended = |expression: &IdedExpr| -> bool {
        matches!(&expression.expr, Expr::Call(call) if call.func_name == cel_operators::ADD)
    };
    match (step.func_name.as_str(), step.args.as_slice()) {
        (cel_operators::LOGICAL_OR, [_, condition]) => Some((Macro::Exists, Some(condition), None)),
        (cel_operators::LOGICAL_AND, [_, condition]) => Some((Macro::All, Some(condition), None)),
        (cel_operators::ADD, [_, added]) => Some((Macro::Map, None, Some(only(added)?))),
        (cel_operators::CONDITIONAL, [condition, step, _]) if appended(step) => {
            let Expr::Call(add) = &step.expr else { return None };
            let [_, added] = add.args.as_slice() else { return None };
            match &of.accu_init.expr {
                Expr::Literal(CelVal::Int(0)) => Some((Macro::ExistsOne, Some(condition), None)),
                _ => {
                    let element = only(added)?;
                    let itself = matches!(&element.expr, Expr::Ident(name) if *name == of.iter_var);
                    Some((Macro::Filter, Some(condition), (!itself).then_some(element)))
                }
            }
        }
        _ => None,
    }
}

/// The only element of a list literal.
fn only(list: &IdedExpr) -> Option<&IdedExpr> {
    match &list.expr {
        Expr::List(list) => match list.elements.as_slice() {
            [element] => Some(element),
            _ => None,
        },
        _ => None,
    }
}

fn literal(value: &CelVal) -> Compiled {
    let value = match value {
        CelVal::Boolean(value) => Value::Bool(*value),
        CelVal::Bytes(value) => Value::Bytes(value.as_slice().into()),
        CelVal::Double(value) => Value::Double(*value),
        CelVal::Int(value) => Value::Int(*value),
        CelVal::UInt(value) => Value::Uint(*value),
        CelVal::String(value) => Value::text(value),
        CelVal::Null => Value::Null,
        _ => return Err(RuleError::Unsupported("rules have no times, durations or types".to_owned())),
    };
    let kind = value.kind();
    Ok((Node::Literal(value), kind))
}

fn field(of: &Type, name: &str) -> Result<Type, RuleError> {
    match of {
        Type::Any => Ok(Type::Any),
        Type::Map(value) => Ok((**value).clone()),
        Type::Message if ["role", "content"].contains(&name) => Ok(Type::String),
        Type::Message => Err(RuleError::Type(format!("a message has the fields role and content, not `{name}`"))),
        other => Err(RuleError::Type(format!("{other} has no field `{name}`"))),
    }
}

fn boolean(operator: &str, kind: &Type) -> Result<(), RuleError> {
    if kind.may_be(&Type::Bool) {
        return Ok(());
    }
    Err(RuleError::Type(format!("`{operator}` takes booleans, not {kind}")))
}

fn exactly<const N: usize, T>(name: &str, items: Vec<T>) -> Result<[T; N], RuleError> {
    let found = items.len();
    items.try_into().map_err(|_| RuleError::Type(format!("`{name}` takes {N} operands, not {found}")))
}

fn unsupported_struct() -> RuleError {
    RuleError::Unsupported("rules have no messages of named types, such as `Type{field: value}`".to_owned())
}

fn suggestion(name: &str, known: &[&str]) -> String {
    match nearest(name, known.iter().copied().filter(|known| !known.starts_with('@'))).first() {
        Some(likely) => format!("; did you mean `{likely}`?"),
        None => ".".to_owned(),
    }
}
