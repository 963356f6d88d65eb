//! Evaluation of the schemas' CEL rules (`x-kubernetes-validations`), as by the API server.

use cel::{Context, Program, Value as CelValue};
use serde_json::Value;

/// A violated rule.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) path: String,
    pub(super) message: String,
}

/// All rules of `schema` that `value`, with defaults applied, violates.
pub(super) fn check(schema: &Value, value: &Value, path: &str, out: &mut Vec<Broken>) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        if let Some(message) = broken(rule, value) {
            out.push(Broken { path: path.to_owned(), message });
        }
    }
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let schema = match &schema["properties"][name] {
                    Value::Null => &schema["additionalProperties"],
                    schema => schema,
                };
                check(schema, field, &crate::yaml::join(path, name), out);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                check(&schema["items"], item, &format!("{path}[{index}]"), out);
            }
        }
        _ => {}
    }
}

/// Message of a violated rule. A rule that cannot be evaluated counts as violated.
fn broken(rule: &Value, value: &Value) -> Option<String> {
    let source = rule["rule"].as_str().unwrap_or_default();
    let message = rule["message"].as_str().unwrap_or(source);
    let holds = Program::compile(source).map_err(|error| error.to_string()).and_then(|program| {
        let mut context = Context::default();
        let this = cel::to_value(value).map_err(|error| error.to_string())?;
        context.add_variable_from_value("self", this);
        program.execute(&context).map_err(|error| error.to_string())
    });
    match holds {
        Ok(CelValue::Bool(true)) => None,
        Ok(_) => Some(message.to_owned()),
        Err(error) => Some(format!("{message} ({error})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Kind;

    /// Keywords that [`super::super::structure`] and this file support, and those that need no check.
    const KEYWORDS: [&str; 24] = [
        "additionalProperties",
        "default",
        "description",
        "enum",
        "format",
        "items",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "nullable",
        "properties",
        "required",
        "title",
        "type",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations",
    ];

    fn walk(schema: &Value, path: &str, see: &mut impl FnMut(&str, &str, &Value)) {
        for (keyword, value) in schema.as_object().into_iter().flatten() {
            see(path, keyword, value);
        }
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            walk(schema, &format!("{path}.{name}"), see);
        }
        for inner in ["items", "additionalProperties"] {
            if schema[inner].is_object() {
                walk(&schema[inner], path, see);
            }
        }
    }

    #[test]
    fn schemas_use_no_keyword_that_goes_unchecked() {
        for kind in Kind::ALL {
            walk(&kind.schema(), kind.name(), &mut |path, keyword, _| {
                assert!(KEYWORDS.contains(&keyword), "{path}: the manifest check does not know `{keyword}`");
            });
        }
    }

    #[test]
    fn every_rule_compiles_and_speaks() {
        let mut rules = 0;
        for kind in Kind::ALL {
            walk(&kind.schema(), kind.name(), &mut |path, keyword, value| {
                for rule in value.as_array().into_iter().flatten().filter(|_| keyword == "x-kubernetes-validations") {
                    rules += 1;
                    Program::compile(rule["rule"].as_str().expect("a rule")).expect(path);
                    assert!(rule["message"].as_str().is_some_and(|message| message.contains("must ")), "{path}");
                }
            });
        }
        assert!(rules >= 10, "{rules} rules");
    }
}
