//! Schemas of which no document can be finished: those that need themselves.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{
    ConstraintError, children,
    references::{Definitions, referred},
    refused,
};

/// Checks that the root and all definitions have documents of finite size.
pub(super) fn check(
    root: &Value,
    definitions: &Map<String, Value>,
    origins: &Definitions<'_>,
) -> Result<(), ConstraintError> {
    // The root has no name.
    let mut ends: HashMap<&str, bool> = definitions.keys().map(|name| (name.as_str(), false)).collect();
    ends.insert("", false);
    loop {
        let mut changed = false;
        for (name, schema) in definitions.iter().map(|(name, schema)| (name.as_str(), schema)).chain([("", root)]) {
            if ends.get(name) == Some(&false) && end(schema, &ends) {
                ends.insert(name, true);
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    let unending = definitions.keys().map(String::as_str).chain([""]).find(|name| ends.get(name) == Some(&false));
    let Some(name) = unending else { return Ok(()) };
    let schema = definitions.get(name).unwrap_or(root);
    let pointer = origins.pointer(name).to_owned() + &path(schema, &ends);
    let why = "a document would have to contain itself without end; make a property optional, or offer another schema in `anyOf`";
    Err(refused(&pointer, why.to_owned()))
}

/// Whether a schema has a document that ends, given which definitions have.
fn end(schema: &Value, ends: &HashMap<&str, bool>) -> bool {
    let Some(keywords) = schema.as_object() else { return true };
    let each = |name: &str| keywords.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let referred = referred(schema).is_none_or(|name| ends.get(name.unwrap_or("")) == Some(&true));
    let one_of = |name: &str| each(name).is_empty() || each(name).iter().any(|option| end(option, ends));
    referred
        && each("allOf").iter().all(|schema| end(schema, ends))
        && one_of("anyOf")
        && one_of("oneOf")
        && needed(keywords).iter().all(|schema| end(schema, ends))
}

/// Schemas of parts that every document has.
fn needed(keywords: &Map<String, Value>) -> Vec<&Value> {
    let is_only = |kind: &str| keywords.get("type").is_some_and(|kinds| kinds == kind);
    let mut needed = Vec::new();
    if is_only("object")
        && let (Some(properties), Some(required)) =
            (keywords.get("properties").and_then(Value::as_object), keywords.get("required").and_then(Value::as_array))
    {
        needed.extend(required.iter().filter_map(|name| properties.get(name.as_str()?)));
    }
    let items_min = keywords.get("minItems").and_then(Value::as_u64).and_then(|least| usize::try_from(least).ok());
    if let Some(least) = items_min.filter(|_| is_only("array")) {
        let first = keywords.get("prefixItems").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        needed.extend(first.iter().take(least));
        match keywords.get("items") {
            Some(Value::Array(first)) => needed.extend(first.iter().take(least)),
            Some(items) if least > first.len() => needed.push(items),
            _ => {}
        }
    }
    needed
}

/// The way to the first reference to a definition without an end.
fn path(schema: &Value, ends: &HashMap<&str, bool>) -> String {
    if let Some(name) = referred(schema)
        && ends.get(name.unwrap_or("")) == Some(&false)
    {
        return "/$ref".to_owned();
    }
    let below = children(schema).into_iter().find(|(_, child)| !end(child, ends));
    below.map(|(at, child)| at + &path(child, ends)).unwrap_or_default()
}
