//! JSON Schemas: whether one can be honoured, and the form that llguidance reads.
//!
//! llguidance passes over keywords that it does not know and names no place in its refusals; here every keyword is known or refused
//! by its JSON pointer. References stay within the document: their targets become definitions of the root.

mod keywords;
mod references;
mod unending;

use std::collections::VecDeque;

use serde_json::{Map, Value};

use super::ConstraintError;
use keywords::{Keyword, keyword};
use references::Definitions;

/// Bound on the levels of a schema, with those of what it refers to.
const DEPTH_MAX: usize = 256;
/// Bound on the definitions that a schema refers to.
const DEFINITIONS_MAX: usize = 1000;
/// Up to it, every integer is a 64-bit float: 2^53.
const EXACT_MAX: u64 = 1 << 53;
/// Bound on the schemas and other values; what several references share counts once for each definition that it is a part of.
const VALUES_MAX: usize = 100_000;

/// The schema as llguidance reads it.
///
/// # Errors
/// A keyword is not supported, a reference leads nowhere, or no document could be finished.
pub(crate) fn check(schema: &Value) -> Result<Value, ConstraintError> {
    let mut definitions = Definitions::new(schema);
    let mut root = clean(schema, "", &mut definitions)?;
    let mut cleaned = Map::new();
    let mut pending: VecDeque<_> = definitions.take_new().into();
    while let Some((name, pointer)) = pending.pop_front() {
        if cleaned.len() >= DEFINITIONS_MAX {
            return Err(refused("", format!("it refers to more than {DEFINITIONS_MAX} definitions; use fewer")));
        }
        let target = definitions.target(&pointer)?;
        cleaned.insert(name, clean(target, &pointer, &mut definitions)?);
        pending.extend(definitions.take_new());
    }
    references::check_depth(&root, &cleaned, DEPTH_MAX)?;
    unending::check(&root, &cleaned, &definitions)?;
    if let Some(keywords) = root.as_object_mut().filter(|_| !cleaned.is_empty()) {
        keywords.insert("$defs".to_owned(), Value::Object(cleaned));
    }
    Ok(root)
}

/// The subschemas of a schema with their JSON pointers from it, definitions excepted.
pub(super) fn children(schema: &Value) -> Vec<(String, &Value)> {
    let mut children = Vec::new();
    for (name, value) in schema.as_object().into_iter().flatten() {
        match (keyword(name), value) {
            (Keyword::Schemas, Value::Object(schemas)) => {
                let path = |key: &String| format!("/{name}/{}", escaped(key));
                children.extend(schemas.iter().map(|(key, child)| (path(key), child)));
            }
            (Keyword::List | Keyword::SchemaOrList, Value::Array(list)) => {
                children.extend(list.iter().enumerate().map(|(index, child)| (format!("/{name}/{index}"), child)));
            }
            (Keyword::Schema | Keyword::SchemaOrList, child) => children.push((format!("/{name}"), child)),
            _ => {}
        }
    }
    children
}

/// The subschema at `pointer`, with known keywords only.
fn clean(schema: &Value, pointer: &str, definitions: &mut Definitions<'_>) -> Result<Value, ConstraintError> {
    let keywords = match schema {
        Value::Bool(_) => return Ok(schema.clone()),
        Value::Object(keywords) => keywords,
        _ => return Err(refused(pointer, "a schema has to be an object, true or false".to_owned())),
    };
    definitions.count(1, pointer)?;
    let mut cleaned = Map::new();
    for (name, value) in keywords {
        let at = format!("{pointer}/{}", escaped(name));
        let kept = match keyword(name) {
            Keyword::Plain => {
                definitions.count(size(value), &at)?;
                if matches!(name.as_str(), "const" | "enum") && !is_exact(value) {
                    let why = "an integer beyond 2^53 cannot be kept exactly; use a string of digits".to_owned();
                    return Err(refused(&at, why));
                }
                value.clone()
            }
            Keyword::Draft if pointer.is_empty() => value.clone(),
            Keyword::Draft | Keyword::Annotation => continue,
            Keyword::Identifier if pointer.is_empty() => continue,
            Keyword::Identifier => {
                return Err(refused(&at, "an identifier is supported at the root only; leave it out".to_owned()));
            }
            Keyword::Unless(harmless, _) if *value == harmless => continue,
            Keyword::Unless(_, instead) => return Err(refused(&at, format!("`{name}` is not supported; {instead}"))),
            Keyword::Unknown(nearest) => {
                let meant = nearest.map(|nearest| format!("; did you mean `{nearest}`?")).unwrap_or_default();
                return Err(refused(&at, format!("`{name}` is no keyword of JSON Schema{meant}")));
            }
            Keyword::Reference => definitions.reference(value, &at)?,
            Keyword::Schema => clean(value, &at, definitions)?,
            Keyword::SchemaOrList if !value.is_array() => clean(value, &at, definitions)?,
            Keyword::List | Keyword::SchemaOrList => list(value, &at, definitions)?,
            Keyword::Schemas => schemas(value, &at, definitions)?,
        };
        cleaned.insert(name.clone(), kept);
    }
    Ok(Value::Object(cleaned))
}

fn list(value: &Value, at: &str, definitions: &mut Definitions<'_>) -> Result<Value, ConstraintError> {
    let Some(schemas) = value.as_array() else { return Err(refused(at, "it has to be a list of schemas".to_owned())) };
    let cleaned = schemas.iter().enumerate();
    cleaned.map(|(index, schema)| clean(schema, &format!("{at}/{index}"), definitions)).collect()
}

fn schemas(value: &Value, at: &str, definitions: &mut Definitions<'_>) -> Result<Value, ConstraintError> {
    let Some(schemas) = value.as_object() else {
        return Err(refused(at, "it has to be an object of schemas".to_owned()));
    };
    let clean = |(key, schema): (&String, &Value)| {
        Ok((key.clone(), clean(schema, &format!("{at}/{}", escaped(key)), definitions)?))
    };
    schemas.iter().map(clean).collect::<Result<Map<_, _>, _>>().map(Value::Object)
}

/// Whether no number in it is an integer that a 64-bit float cannot have: llguidance writes numbers as such.
fn is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => number <= EXACT_MAX,
            (_, Some(number)) => number.unsigned_abs() <= EXACT_MAX,
            _ => number.as_f64().is_some_and(|number| number.abs() <= EXACT_MAX as f64),
        },
        Value::Array(items) => items.iter().all(is_exact),
        Value::Object(fields) => fields.values().all(is_exact),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

/// Number of values in a value.
fn size(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Object(fields) => 1 + fields.values().map(size).sum::<usize>(),
        _ => 1,
    }
}

fn refused(pointer: &str, why: String) -> ConstraintError {
    ConstraintError::Schema { pointer: pointer.to_owned(), why }
}

/// A key as a token of a JSON pointer.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests;
