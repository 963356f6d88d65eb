//! Tools as Anthropic writes them.

use serde_json::{Map, Value};
use slm_proto::v1::{GenerateRequest, Tool, ToolChoice, ToolChoiceMode};

use crate::http::{
    error::ApiError,
    fields::{Fields, read, shown},
    tools::{check_choice, described, name},
    unsupported::nothing_else,
};

/// Takes tools and their choice into `request`.
pub(super) fn take(fields: &mut Fields, request: &mut GenerateRequest) -> Result<(), ApiError> {
    let list = fields.take::<Vec<Value>>("tools")?.unwrap_or_default();
    let tools = list.iter().enumerate().map(|(index, value)| tool(&format!("tools[{index}]"), value));
    request.tools = tools.collect::<Result<_, _>>()?;
    if let Some(choice) = fields.take::<Map<String, Value>>("tool_choice")? {
        let (choice, alone) = choice_of(Fields::new(choice)).map_err(|error| error.within("tool_choice"))?;
        request.tool_choice = Some(choice);
        request.parallel_tool_calls = alone.map(|alone| !alone);
    }
    check_choice(request)
}

fn tool(path: &str, value: &Value) -> Result<Tool, ApiError> {
    let mut fields = Fields::new(read(path, value)?);
    let within = |error: ApiError| error.within(path);
    let kind = fields.take::<String>("type").map_err(within)?;
    if let Some(kind) = kind.filter(|kind| kind != "custom") {
        let kind: String = kind.chars().take(40).collect();
        let path = format!("{path}.type");
        let message =
            format!("`{path}` has to be custom, not {kind:?}: models here call functions of the caller's only");
        return Err(ApiError::param(&path, message));
    }
    // Where Anthropic's service caches changes nothing about an answer.
    fields.raw("cache_control");
    described(path, fields, "input_schema")
}

/// The choice, and whether only one call may be made.
fn choice_of(mut fields: Fields) -> Result<(ToolChoice, Option<bool>), ApiError> {
    let kind = fields.raw("type").unwrap_or_default();
    let mode = match kind.as_str() {
        Some("auto") => ToolChoiceMode::Auto,
        Some("none") => ToolChoiceMode::None,
        Some("any" | "tool") => ToolChoiceMode::Required,
        _ => {
            let message = format!("`type` has to be auto, any, tool or none, not {}", shown(&kind));
            return Err(ApiError::param("type", message));
        }
    };
    let called = if kind == "tool" { name("name", fields.take::<String>("name")?)? } else { String::new() };
    let alone = fields.take::<bool>("disable_parallel_tool_use")?;
    nothing_else("tool_choice", fields)?;
    Ok((ToolChoice { mode: mode.into(), name: called }, alone))
}

/// Anthropic's name of a field of `slm.v1`.
pub(super) fn own(field: &str) -> String {
    match field.rsplit_once("].") {
        Some((item, "parameters")) if item.starts_with("tools[") => format!("{item}].input_schema"),
        // Messages there are others than here.
        Some((item, _)) if item.starts_with("messages[") => "messages".to_owned(),
        _ => field.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn taken(body: &Value) -> Result<GenerateRequest, ApiError> {
        let mut request = GenerateRequest::default();
        take(&mut Fields::new(body.as_object().expect("an object").clone()), &mut request)?;
        Ok(request)
    }

    #[test]
    fn tools_and_choices_arrive() {
        let tools = json!([{"name": "f", "description": "d", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}]);
        let of = |choice: Value| taken(&json!({"tools": tools, "tool_choice": choice})).expect("good");
        let request = of(json!({"type": "tool", "name": "f", "disable_parallel_tool_use": true}));
        let choice = request.tool_choice.expect("a choice");
        assert_eq!((choice.mode(), choice.name.as_str()), (ToolChoiceMode::Required, "f"));
        assert_eq!(
            (request.parallel_tool_calls, request.tools[0].parameters.as_str()),
            (Some(false), r#"{"type":"object"}"#)
        );
        let mode = |kind: &str| of(json!({"type": kind})).tool_choice.expect("a choice").mode();
        assert_eq!(
            [mode("auto"), mode("any"), mode("none")],
            [ToolChoiceMode::Auto, ToolChoiceMode::Required, ToolChoiceMode::None]
        );
    }

    #[test]
    fn refusals_name_the_parameter() {
        for (body, param, words) in [
            (json!({"tools": [{"name": ""}]}), "tools[0].name", "missing"),
            (json!({"tools": [{"name": "f", "input_schema": 1}]}), "tools[0].input_schema", "a JSON Schema"),
            (json!({"tools": [{"type": "bash_20250124", "name": "bash"}]}), "tools[0].type", "has to be custom"),
            (json!({"tools": [{"name": "f", "shape": 1}]}), "tools[0].shape", "not supported"),
            (json!({"tool_choice": {"type": "any"}}), "tool_choice", "there are no `tools`"),
            (json!({"tool_choice": {"type": "some"}}), "tool_choice.type", "auto, any, tool or none"),
            (json!({"tool_choice": {"type": "tool"}}), "tool_choice.name", "missing"),
        ] {
            let error = taken(&body).expect_err(param);
            assert_eq!(error.body.param.as_deref(), Some(param), "{body}");
            assert!(error.body.message.contains(words), "{}", error.body.message);
        }
        assert_eq!(own("tools[0].parameters"), "tools[0].input_schema");
        assert_eq!(
            (own("messages[3].tool_call_id").as_str(), own("tools[0].name").as_str()),
            ("messages", "tools[0].name")
        );
    }
}
