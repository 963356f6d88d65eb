//! The functions that an answer may call. Their fields stand beside `type` here, and below `function` in chat completions.

use serde_json::{Map, Value};
use slm_proto::v1::{GenerateRequest, Tool};

use crate::http::{
    error::ApiError,
    fields::{Fields, read},
    tools::{check_choice, choice, described},
};

/// Takes `tools`, `tool_choice` and `parallel_tool_calls` into `request`.
pub(super) fn take(fields: &mut Fields, request: &mut GenerateRequest) -> Result<(), ApiError> {
    let list = fields.take::<Vec<Value>>("tools")?.unwrap_or_default();
    let tools = list.iter().enumerate().map(|(index, value)| tool(&format!("tools[{index}]"), value));
    request.tools = tools.collect::<Result<_, _>>()?;
    if let Some(value) = fields.raw("tool_choice") {
        let named = (value["type"] == "function").then(|| value["name"].as_str()).flatten();
        request.tool_choice = Some(choice(&value, named, r#"{"type": "function", "name": …}"#)?);
    }
    request.parallel_tool_calls = fields.take("parallel_tool_calls")?;
    check_choice(request)
}

fn tool(path: &str, value: &Value) -> Result<Tool, ApiError> {
    let mut fields = Fields::new(read::<Map<String, Value>>(path, value)?);
    match fields.take::<String>("type").map_err(|error| error.within(path))?.as_deref() {
        Some("function") => described(path, fields, "parameters"),
        kind => {
            let kind: String = kind.unwrap_or("nothing").chars().take(40).collect();
            let message = format!("`{path}.type` has to be function, not {kind}; there are no built-in tools here");
            Err(ApiError::param(&format!("{path}.type"), message).code("unsupported_parameter"))
        }
    }
}
