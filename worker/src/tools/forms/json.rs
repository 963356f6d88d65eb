//! Calls in JSON: objects with a name and arguments, or lists of them.

use serde_json::{Map, Value};

use super::{Begun, Call, Read, begins};

/// Calls up to `close`, or one value where nothing closes them. A missing `close` loses no call.
pub(in crate::tools) fn read(text: &str, close: Option<&str>, ends: bool) -> Read {
    let (mut calls, mut at) = (Vec::new(), 0);
    loop {
        if let Some(close) = close.filter(|_| !calls.is_empty()) {
            match begins(&text[at..], close) {
                Begun::Whole((), bytes) => return Read::Calls(calls, at + bytes),
                Begun::More if !ends => return Read::More,
                Begun::More | Begun::No => {}
            }
        }
        match value(&text[at..]) {
            Begun::Whole(value, bytes) => {
                let Some(found) = calls_in(&value) else { break };
                calls.extend(found);
                at += bytes;
            }
            Begun::More if !ends => return Read::More,
            Begun::More | Begun::No => break,
        }
        if close.is_none() {
            break;
        }
    }
    if calls.is_empty() { Read::No } else { Read::Calls(calls, at) }
}

/// An object or a list at the beginning of a text, apart from white space.
pub(super) fn value(text: &str) -> Begun<Value> {
    let rest = text.trim_start();
    if rest.is_empty() {
        return Begun::More;
    }
    if !rest.starts_with(['{', '[']) {
        return Begun::No;
    }
    let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
    match values.next() {
        None => Begun::More,
        Some(Ok(value)) => Begun::Whole(value, text.len() - rest.len() + values.byte_offset()),
        Some(Err(error)) if error.is_eof() => Begun::More,
        Some(Err(_)) => Begun::No,
    }
}

fn calls_in(value: &Value) -> Option<Vec<Call>> {
    match value {
        Value::Array(items) if !items.is_empty() => items.iter().map(call).collect(),
        value => Some(vec![call(value)?]),
    }
}

/// `{"name": …, "arguments": …}`, as most models write it; also with `parameters`, or in a `function`.
fn call(value: &Value) -> Option<Call> {
    let fields = value.as_object()?;
    if let Some(function @ Value::Object(_)) = fields.get("function") {
        return call(function);
    }
    let name = fields.get("name")?.as_str()?.to_owned();
    let arguments = arguments(fields.get("arguments").or_else(|| fields.get("parameters")))?;
    Some(Call { name, arguments })
}

/// An object, or the text of one; none at all is an empty one.
pub(super) fn arguments(value: Option<&Value>) -> Option<Map<String, Value>> {
    match value {
        None | Some(Value::Null) => Some(Map::new()),
        Some(Value::Object(arguments)) => Some(arguments.clone()),
        Some(Value::String(text)) => serde_json::from_str(text).ok(),
        Some(_) => None,
    }
}
