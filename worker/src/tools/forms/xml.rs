//! Calls in tags: `<function=name><parameter=key>text</parameter></function>`. What a text means, the tool's schema says.

use serde_json::{Map, Value};

use super::{Begun, Call, Read, begins, json};
use crate::tools::ToolSet;

const END: &str = "</function>";
const CLOSE: &str = "</tool_call>";

pub(in crate::tools) fn read(text: &str, tools: &ToolSet, ends: bool) -> Read {
    // JSON does as well.
    if text.trim_start().starts_with('{') {
        return json::read(text, Some(CLOSE), ends);
    }
    match begins(text, "<function=") {
        Begun::Whole((), from) => function(text, from, tools, ends),
        Begun::More if !ends => Read::More,
        Begun::More | Begun::No => Read::No,
    }
}

fn function(text: &str, from: usize, tools: &ToolSet, ends: bool) -> Read {
    let Some(length) = text[from..].find(END) else { return if ends { Read::No } else { Read::More } };
    let Some((name, body)) = text[from..from + length].split_once('>') else { return Read::No };
    let name = name.trim().to_owned();
    let schema = tools.get(&name).map(|tool| &tool.shown.parameters["properties"]);
    let Some(arguments) = parameters(body, schema) else { return Read::No };
    let mut at = from + length + END.len();
    match begins(&text[at..], CLOSE) {
        Begun::Whole((), bytes) => at += bytes,
        Begun::More if !ends => return Read::More,
        Begun::More | Begun::No => {}
    }
    Read::Calls(vec![Call { name, arguments }], at)
}

fn parameters(body: &str, properties: Option<&Value>) -> Option<Map<String, Value>> {
    let (mut rest, mut arguments) = (body.trim_start(), Map::new());
    while !rest.is_empty() {
        let (key, after) = rest.strip_prefix("<parameter=")?.split_once('>')?;
        let (text, after) = after.split_once("</parameter>")?;
        let text = text.strip_prefix('\n').unwrap_or(text);
        let text = text.strip_suffix('\n').unwrap_or(text);
        let key = key.trim();
        arguments.insert(key.to_owned(), meant(text, properties.map(|properties| &properties[key])));
        rest = after.trim_start();
    }
    Some(arguments)
}

/// A text where the schema has one, or cannot tell; JSON elsewhere.
fn meant(text: &str, schema: Option<&Value>) -> Value {
    let kind = schema.map(|schema| &schema["type"]);
    let is_text = |kind: &Value| kind == "string";
    let may_be_text = match kind {
        Some(Value::Array(kinds)) => kinds.iter().any(is_text),
        Some(kind) => is_text(kind),
        None => false,
    };
    let read = serde_json::from_str(text.trim());
    match read {
        Ok(Value::Null) if kind.is_some_and(|kind| !is_text(kind)) => Value::Null,
        Ok(value) if !may_be_text => value,
        _ => Value::String(text.to_owned()),
    }
}
