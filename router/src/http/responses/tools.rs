//! The functions that an answer may call. Their fields stand beside `type` here, not below `function`.

use serde_json::{Map, Value};
use slm_proto::v1::{Tool, ToolChoice, ToolChoiceMode};

use crate::http::{
    error::ApiError,
    fields::{Fields, read, shown},
    unsupported::says_nothing,
};

/// The same bound as of chat completions.
const TOOLS_MAX: usize = 128;

/// `tools`.
pub(super) fn tools(fields: &Fields) -> Result<Vec<Tool>, ApiError> {
    let Some(value) = fields.peek("tools") else { return Ok(Vec::new()) };
    let tools = read::<Vec<Value>>("tools", value)?;
    if tools.len() > TOOLS_MAX {
        let message = format!("`tools` has {} entries; at most {TOOLS_MAX} are accepted", tools.len());
        return Err(ApiError::param("tools", message));
    }
    tools.iter().enumerate().map(|(index, value)| tool(&format!("tools[{index}]"), value)).collect()
}

fn tool(path: &str, value: &Value) -> Result<Tool, ApiError> {
    let within = |error: ApiError| error.within(path);
    let mut fields = Fields::new(read::<Map<String, Value>>(path, value)?);
    match fields.take::<String>("type").map_err(within)?.as_deref() {
        Some("function") => {}
        kind => {
            let kind: String = kind.unwrap_or("nothing").chars().take(40).collect();
            let message = format!("`{path}.type` has to be function, not {kind}; there are no built-in tools here");
            return Err(ApiError::param(&format!("{path}.type"), message).code("unsupported_parameter"));
        }
    }
    let name = format!("{path}.name");
    let named = fields.take::<String>("name").map_err(within)?.filter(|name| !name.is_empty());
    let tool = Tool {
        name: named.ok_or_else(|| ApiError::param(&name, format!("`{name}` is missing; name the function")))?,
        description: fields.take("description").map_err(within)?.unwrap_or_default(),
        parameters: parameters(path, fields.raw("parameters"))?,
        strict: fields.take("strict").map_err(within)?.unwrap_or(false),
    };
    match fields.rest().find(|(_, value)| !says_nothing(value)) {
        None => Ok(tool),
        Some((name, _)) => {
            let path = format!("{path}.{}", name.chars().take(80).collect::<String>());
            Err(ApiError::param(&path, format!("`{path}` is not supported")).code("unsupported_parameter"))
        }
    }
}

fn parameters(path: &str, value: Option<Value>) -> Result<String, ApiError> {
    match value {
        None => Ok(String::new()),
        Some(value @ Value::Object(_)) => Ok(value.to_string()),
        Some(other) => {
            let path = format!("{path}.parameters");
            let message = format!("`{path}` has to be a JSON Schema, an object, not {}", shown(&other));
            Err(ApiError::param(&path, message))
        }
    }
}

/// `tool_choice`.
pub(super) fn choice(fields: &Fields, tools: &[Tool]) -> Result<Option<ToolChoice>, ApiError> {
    const AT: &str = "tool_choice";
    let Some(value) = fields.peek(AT) else { return Ok(None) };
    let (mode, name) = match (value.as_str(), value["type"].as_str(), value["name"].as_str()) {
        (Some("auto"), ..) => (ToolChoiceMode::Auto, ""),
        (Some("none"), ..) => (ToolChoiceMode::None, ""),
        (Some("required"), ..) => (ToolChoiceMode::Required, ""),
        (None, Some("function"), Some(name)) => (ToolChoiceMode::Required, name),
        _ => {
            let message = format!(
                "`{AT}` has to be auto, none, required or {{\"type\": \"function\", \"name\": …}}, not {}",
                shown(value)
            );
            return Err(ApiError::param(AT, message));
        }
    };
    if mode == ToolChoiceMode::Required && !tools.iter().any(|tool| name.is_empty() || tool.name == name) {
        let what =
            if name.is_empty() { "there is no tool to call".to_owned() } else { format!("no tool is named {name:?}") };
        return Err(ApiError::param(AT, format!("`{AT}`: {what}; send it in `tools`")));
    }
    Ok(Some(ToolChoice { mode: mode.into(), name: name.to_owned() }))
}
