//! Tools of `slm run`: read from a file, and calls as lines.

use std::path::Path;

use serde_json::Value;
use slm_proto::v1::{Tool, ToolCall, ToolChoice, ToolChoiceMode};

use slm_console::exit::Failure;

/// The tools of a file: one, or a list of them, as OpenAI writes them or as the function alone.
pub(crate) fn read(file: &Path) -> Result<Vec<Tool>, Failure> {
    let shown = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::failed(format!("--tool {shown}: {error}; name a file with tools as JSON")))?;
    tools(&text).map_err(|why| Failure::failed(format!("--tool {shown}: {why}")))
}

fn tools(text: &str) -> Result<Vec<Tool>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
    let list = match value {
        Value::Array(list) => list,
        one => vec![one],
    };
    list.iter().enumerate().map(|(index, value)| tool(value).map_err(|why| format!("tool {index}: {why}"))).collect()
}

fn tool(value: &Value) -> Result<Tool, String> {
    let function = value.get("function").unwrap_or(value);
    let Some(fields) = function.as_object() else { return Err("a tool is an object with a name".to_owned()) };
    let text = |name: &str| match fields.get(name) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(format!("`{name}` has to be a string, not {other}")),
    };
    let known = ["name", "description", "parameters", "strict"];
    if let Some(name) = fields.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("`{name}` is unknown; a tool has {}", known.join(", ")));
    }
    Ok(Tool {
        name: text("name")?,
        description: text("description")?,
        parameters: fields
            .get("parameters")
            .filter(|schema| !schema.is_null())
            .map_or_else(String::new, Value::to_string),
        strict: fields.get("strict").and_then(Value::as_bool).unwrap_or(false),
    })
}

/// `auto`, `none`, `required`, or the name of a tool.
pub(crate) fn choice(word: &str) -> ToolChoice {
    let (mode, name) = match word {
        "auto" => (ToolChoiceMode::Auto, ""),
        "none" => (ToolChoiceMode::None, ""),
        "required" => (ToolChoiceMode::Required, ""),
        name => (ToolChoiceMode::Required, name),
    };
    ToolChoice { mode: mode.into(), name: name.to_owned() }
}

/// A call on a line: name and arguments.
pub(crate) fn line(call: &ToolCall) -> String {
    format!("{} {}", call.name, call.arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_one_tool_or_several() {
        let one = tools(r#"{"name": "f", "parameters": {"type": "object"}, "strict": true}"#).unwrap();
        assert_eq!(
            (one[0].name.as_str(), one[0].parameters.as_str(), one[0].strict),
            ("f", r#"{"type":"object"}"#, true)
        );
        let list = tools(r#"[{"type": "function", "function": {"name": "g", "description": "d"}}]"#).unwrap();
        assert_eq!((list[0].name.as_str(), list[0].description.as_str()), ("g", "d"));
        for (text, words) in [
            ("{", "it is not JSON"),
            ("[5]", "tool 0: a tool is an object"),
            (r#"{"name": 5}"#, "tool 0: `name` has to be a string, not 5"),
            (r#"{"name": "f", "args": {}}"#, "tool 0: `args` is unknown; a tool has name,"),
        ] {
            let refused = tools(text).unwrap_err();
            assert!(refused.contains(words), "{refused}");
        }
        assert_eq!((choice("required").mode(), choice("f").name.as_str()), (ToolChoiceMode::Required, "f"));
    }
}
