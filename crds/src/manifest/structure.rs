//! Structural validation of a tree against a schema: types, ranges, enumerations, required and unknown fields.
//!
//! Supports only the keywords of our own schemas; a test in `validate` fails when a schema uses another one, so that
//! every check of the API server is made here too.

use serde_json::Value;

use super::{
    problem::Fault,
    yaml::{Entry, Node, Tree, join},
};
use crate::nearest::{did_you_mean, nearest};

/// A problem within an object.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) line: u32,
    pub(super) path: String,
    pub(super) fault: Fault,
}

/// All deviations of `node` from `schema`.
pub(super) fn check(schema: &Value, node: &Node, path: &str, out: &mut Vec<Finding>) {
    if matches!(node.tree, Tree::Scalar(Value::Null)) && schema["nullable"] == true {
        return;
    }
    let kind = schema["type"].as_str().unwrap_or_default();
    let either = schema["x-kubernetes-int-or-string"] == true;
    match (&node.tree, kind) {
        (Tree::Scalar(Value::String(_)), _) if either => {}
        (Tree::Scalar(Value::Number(number)), _) if either && (number.is_u64() || number.is_i64()) => {}
        (Tree::Map(_), "object") if schema["x-kubernetes-preserve-unknown-fields"] == true => {}
        (Tree::Map(_), "object") => object(schema, node, path, out),
        (Tree::List(items), "array") => {
            length(schema, items.len(), "minItems", "maxItems", "items", node, path, out);
            for (index, item) in items.iter().enumerate() {
                check(&schema["items"], item, &format!("{path}[{index}]"), out);
            }
        }
        (Tree::Scalar(value), _) if is_type(value, kind) => scalar(schema, value, node, path, out),
        _ => out.push(wrong(node, path, expected(schema))),
    }
}

fn object(schema: &Value, node: &Node, path: &str, out: &mut Vec<Finding>) {
    let Tree::Map(entries) = &node.tree else { return };
    length(schema, entries.len(), "minProperties", "maxProperties", "entries", node, path, out);
    let known = schema["properties"].as_object();
    for entry in entries {
        let field = join(path, &entry.key);
        if let Some(schema) = known.and_then(|known| known.get(&entry.key)) {
            if !is_absent(entry) {
                check(schema, &entry.value, &field, out);
            }
        } else if schema["additionalProperties"].is_object() {
            if !is_absent(entry) {
                check(&schema["additionalProperties"], &entry.value, &field, out);
            }
        } else {
            let names = known.into_iter().flatten().map(|(name, _)| name.as_str());
            let likely = did_you_mean(&nearest(&entry.key, names.clone()));
            let suggestion = if likely.is_empty() { ".".to_owned() } else { likely };
            let expected = one_of(names);
            out.push(Finding { line: entry.line, path: field, fault: Fault::UnknownField { suggestion, expected } });
        }
    }
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let present = node.get(required).is_some_and(|entry| !is_absent(entry));
        if !present {
            let fault = Fault::Missing(expected(&schema["properties"][required]).words);
            out.push(Finding { line: node.line, path: join(path, required), fault });
        }
    }
}

/// A field without a value counts as absent: the API server prunes it.
fn is_absent(entry: &Entry) -> bool {
    matches!(entry.value.tree, Tree::Scalar(Value::Null))
}

fn scalar(schema: &Value, value: &Value, node: &Node, path: &str, out: &mut Vec<Finding>) {
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        out.push(wrong(node, path, expected(schema)));
    }
    if let Some(number) = value.as_f64() {
        let below = schema["minimum"].as_f64().is_some_and(|minimum| number < minimum);
        let above = schema["maximum"].as_f64().is_some_and(|maximum| number > maximum);
        if below || above {
            out.push(wrong(node, path, expected(schema)));
        }
    }
    if let Some(text) = value.as_str() {
        length(schema, text.chars().count(), "minLength", "maxLength", "characters", node, path, out);
    }
}

#[allow(clippy::too_many_arguments)] // Two keywords and their unit, for strings, lists and maps alike.
fn length(
    schema: &Value,
    length: usize,
    min: &str,
    max: &str,
    unit: &str,
    node: &Node,
    path: &str,
    out: &mut Vec<Finding>,
) {
    let length = length as u64;
    let bound = match (schema[min].as_u64(), schema[max].as_u64()) {
        (Some(min), _) if length < min => format!("at least {min} {unit}"),
        (_, Some(max)) if length > max => format!("at most {max} {unit}"),
        _ => return,
    };
    let fault = Fault::WrongValue { expected: bound, found: length.to_string(), suggestion: String::new() };
    out.push(Finding { line: node.line, path: path.to_owned(), fault });
}

fn wrong(node: &Node, path: &str, expected: Expected) -> Finding {
    let suggestion = match node.text() {
        Some(text) => did_you_mean(&nearest(text, expected.values.iter().map(String::as_str))),
        None => String::new(),
    };
    let fault = Fault::WrongValue { expected: expected.words, found: found(node), suggestion };
    Finding { line: node.line, path: path.to_owned(), fault }
}

struct Expected {
    words: String,
    values: Vec<String>,
}

fn expected(schema: &Value) -> Expected {
    let values: Vec<String> =
        schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    if !values.is_empty() {
        return Expected { words: one_of(values.iter().map(String::as_str)), values };
    }
    let range = match (schema["minimum"].as_f64(), schema["maximum"].as_f64()) {
        (Some(minimum), Some(maximum)) => format!(" from {minimum} to {maximum}"),
        (Some(minimum), None) => format!(" of at least {minimum}"),
        _ => String::new(),
    };
    let words = match schema["type"].as_str().unwrap_or_default() {
        _ if schema["x-kubernetes-int-or-string"] == true => "an integer or a string".to_owned(),
        "integer" => format!("an integer{range}"),
        "number" => format!("a number{range}"),
        "string" => "a string".to_owned(),
        "boolean" => "true or false".to_owned(),
        "array" => "a list".to_owned(),
        _ => {
            let names: Vec<&str> =
                schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
            if names.is_empty() { "a map".to_owned() } else { format!("a map with {}", names.join(", ")) }
        }
    };
    Expected { words, values }
}

fn is_type(value: &Value, kind: &str) -> bool {
    match kind {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => false,
    }
}

fn found(node: &Node) -> String {
    match &node.tree {
        Tree::Map(_) => "a map".to_owned(),
        Tree::List(_) => "a list".to_owned(),
        Tree::Scalar(Value::Null) => "nothing".to_owned(),
        Tree::Scalar(Value::String(text)) if text.chars().count() > 40 => {
            format!("the string {:?}…", text.chars().take(40).collect::<String>())
        }
        Tree::Scalar(Value::String(text)) => format!("the string {text:?}"),
        Tree::Scalar(value) => value.to_string(),
    }
}

fn one_of<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    match names.as_slice() {
        [only] => (*only).to_owned(),
        _ => format!("one of {}", names.join(", ")),
    }
}
