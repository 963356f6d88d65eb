//! What can be said of an expression before any request.

use std::collections::HashMap;

use cel::{
    IdedExpr, ParseErrors, Value,
    common::{
        ast::{EntryExpr, Expr},
        value::CelVal,
    },
};
use regex::{Regex, RegexBuilder};

use super::{FUNCTIONS, RuleError, VARIABLES, one_line};
use crate::nearest::nearest;

/// Bytes that one compiled regular expression may take; bounds what a rule can cost.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// Checks every name, and compiles every literal regular expression.
pub(super) fn inspect(expression: &IdedExpr) -> Result<HashMap<String, Regex>, RuleError> {
    let mut inspector = Inspector { scope: VARIABLES.to_vec(), patterns: HashMap::new() };
    inspector.visit(expression)?;
    Ok(inspector.patterns)
}

pub(super) fn regex(pattern: &str) -> Result<Regex, RuleError> {
    RegexBuilder::new(pattern).size_limit(REGEX_BYTES_MAX).build().map_err(|error| {
        // The regex crate draws the pattern over several lines; the last one says what is wrong.
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned();
        RuleError::Regex { pattern: pattern.to_owned(), reason }
    })
}

/// The first error, in one line with its column.
pub(super) fn syntax(errors: &ParseErrors) -> String {
    match errors.errors.first() {
        Some(error) => format!("column {}: {}", error.pos.1, one_line(&error.msg)),
        None => "empty".to_owned(),
    }
}

pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::List(_) => "a list",
        Value::Map(_) => "a map",
        Value::Function(..) => "a function",
        Value::Int(_) | Value::UInt(_) => "an integer",
        Value::Float(_) => "a number",
        Value::String(_) => "a string",
        Value::Bytes(_) => "bytes",
        Value::Bool(_) => "a boolean",
        Value::Null => "null",
    }
}

struct Inspector<'e> {
    scope: Vec<&'e str>,
    patterns: HashMap<String, Regex>,
}

impl<'e> Inspector<'e> {
    fn visit(&mut self, expression: &'e IdedExpr) -> Result<(), RuleError> {
        match &expression.expr {
            Expr::Ident(name) => self.variable(name),
            Expr::Call(call) => {
                self.function(&call.func_name)?;
                if call.func_name == "matches" {
                    self.pattern(call.args.last())?;
                }
                if let Some(target) = &call.target {
                    self.visit(target)?;
                }
                self.visit_all(&call.args)
            }
            Expr::Comprehension(comprehension) => {
                self.visit(&comprehension.iter_range)?;
                self.visit(&comprehension.accu_init)?;
                let outer = self.scope.len();
                self.scope.push(&comprehension.iter_var);
                self.scope.push(&comprehension.accu_var);
                self.scope.extend(comprehension.iter_var2.as_deref());
                for part in [&comprehension.loop_cond, &comprehension.loop_step, &comprehension.result] {
                    self.visit(part)?;
                }
                self.scope.truncate(outer);
                Ok(())
            }
            Expr::List(list) => self.visit_all(&list.elements),
            Expr::Map(map) => self.visit_entries(map.entries.iter().map(|entry| &entry.expr)),
            Expr::Struct(literal) => self.visit_entries(literal.entries.iter().map(|entry| &entry.expr)),
            Expr::Select(select) => self.visit(&select.operand),
            Expr::Literal(_) | Expr::Unspecified => Ok(()),
        }
    }

    fn visit_all(&mut self, expressions: &'e [IdedExpr]) -> Result<(), RuleError> {
        expressions.iter().try_for_each(|expression| self.visit(expression))
    }

    fn visit_entries(&mut self, mut entries: impl Iterator<Item = &'e EntryExpr>) -> Result<(), RuleError> {
        entries.try_for_each(|entry| match entry {
            EntryExpr::StructField(field) => self.visit(&field.value),
            EntryExpr::MapEntry(entry) => self.visit(&entry.key).and_then(|()| self.visit(&entry.value)),
        })
    }

    fn variable(&self, name: &str) -> Result<(), RuleError> {
        if name.starts_with('@') || self.scope.contains(&name) {
            return Ok(());
        }
        let suggestion = suggestion(name, &self.scope);
        Err(RuleError::UnknownVariable { name: name.to_owned(), suggestion })
    }

    fn function(&self, name: &str) -> Result<(), RuleError> {
        // Operators are functions whose names do not begin with a letter.
        if !name.starts_with(char::is_alphabetic) || FUNCTIONS.contains(&name) {
            return Ok(());
        }
        Err(RuleError::UnknownFunction { name: name.to_owned(), suggestion: suggestion(name, &FUNCTIONS) })
    }

    fn pattern(&mut self, argument: Option<&IdedExpr>) -> Result<(), RuleError> {
        if let Some(Expr::Literal(CelVal::String(pattern))) = argument.map(|argument| &argument.expr) {
            self.patterns.insert(pattern.clone(), regex(pattern)?);
        }
        Ok(())
    }
}

fn suggestion(name: &str, known: &[&str]) -> String {
    match nearest(name, known.iter().copied().filter(|known| !known.starts_with('@'))).first() {
        Some(likely) => format!("; did you mean `{likely}`?"),
        None => ".".to_owned(),
    }
}
