//! The functions that an answer may call. Their fields stand beside `type` here, and below `function` in chat completions.

use serde_json::{Map, Value};
use slm_proto::v1::{GenerateRequest, Tool, ToolChoice, ToolChoiceMode};

use crate::http::{
    error::ApiError,
    fields::{Fields, read, shown},
    tools::{name, parameters},
    unsupported::nothing_else,
};

/// Takes `tools`, `tool_choice` and `parallel_tool_calls` into `request`.
pub(super) fn take(fields: &mut Fields, request: &mut GenerateRequest) -> Result<(), ApiError> {
    let list = fields.take::<Vec<Value>>("tools")?.unwrap_or_default();
    let tools = list.iter().enumerate().map(|(index, value)| tool(&format!("tools[{index}]"), value));
    request.tools = tools.collect::<Result<_, _>>()?;
    request.tool_choice = fields.raw("tool_choice").map(|choice| choice_of(&choice)).transpose()?;
    if request.tools.is_empty()
        && request.tool_choice.as_ref().is_some_and(|choice| choice.mode() == ToolChoiceMode::Required)
    {
        let message = "`tool_choice` wants a call, and there are no `tools`; send some";
        return Err(ApiError::param("tool_choice", message));
    }
    request.parallel_tool_calls = fields.take("parallel_tool_calls")?;
    Ok(())
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
    let tool = Tool {
        name: name(&format!("{path}.name"), fields.take("name").map_err(within)?)?,
        description: fields.take("description").map_err(within)?.unwrap_or_default(),
        parameters: parameters(&format!("{path}.parameters"), fields.raw("parameters"))?,
        strict: fields.take("strict").map_err(within)?.unwrap_or(false),
    };
    nothing_else(path, fields)?;
    Ok(tool)
}

/// A word, or the name of one function.
fn choice_of(value: &Value) -> Result<ToolChoice, ApiError> {
    let (mode, name) = match (value.as_str(), value["type"].as_str(), value["name"].as_str()) {
        (Some("auto"), ..) => (ToolChoiceMode::Auto, ""),
        (Some("none"), ..) => (ToolChoiceMode::None, ""),
        (Some("required"), ..) => (ToolChoiceMode::Required, ""),
        (None, Some("function"), Some(name)) => (ToolChoiceMode::Required, name),
        _ => {
            let message = format!(
                "`tool_choice` has to be auto, none, required or {{\"type\": \"function\", \"name\": …}}, not {}",
                shown(value)
            );
            return Err(ApiError::param("tool_choice", message));
        }
    };
    Ok(ToolChoice { mode: mode.into(), name: name.to_owned() })
}
