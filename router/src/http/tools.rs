//! Tools as OpenAI writes them: functions that an answer may call, the choice of one, and calls in messages.

use serde_json::{Map, Value};
use slm_proto::v1::{GenerateRequest, Tool, ToolCall, ToolChoice, ToolChoiceMode};

use super::{
    error::ApiError,
    fields::{Fields, read, shown},
    unsupported::nothing_else,
};

/// Fields taken by [`take`].
pub(super) const NAMES: [&str; 5] =
    ["tools", "tool_choice", "parallel_tool_calls", "chat_template_kwargs", "enable_thinking"];

/// Takes tools and variables of the chat template into `request`.
pub(super) fn take(fields: &mut Fields, request: &mut GenerateRequest) -> Result<(), ApiError> {
    request.tools = fields.raw("tools").map_or(Ok(Vec::new()), |list| tools("tools", &list))?;
    request.tool_choice = fields.raw("tool_choice").map(|choice| choice_of(&choice)).transpose()?;
    check_choice(request)?;
    request.parallel_tool_calls = fields.take("parallel_tool_calls")?;
    request.chat_template_kwargs = variables(fields)?;
    Ok(())
}

/// # Errors
/// A call is wanted, and there is nothing to call.
pub(super) fn check_choice(request: &GenerateRequest) -> Result<(), ApiError> {
    let wants = request.tool_choice.as_ref().is_some_and(|choice| choice.mode() == ToolChoiceMode::Required);
    if wants && request.tools.is_empty() {
        let message = "`tool_choice` wants a call, and there are no `tools`; send some";
        return Err(ApiError::param("tool_choice", message));
    }
    Ok(())
}

/// Takes the variables of the chat template, as `slm.v1` has them.
pub(super) fn variables(fields: &mut Fields) -> Result<String, ApiError> {
    let mut variables = fields.take::<Map<String, Value>>("chat_template_kwargs")?.unwrap_or_default();
    if let Some(thinks) = fields.take::<bool>("enable_thinking")? {
        variables.insert("enable_thinking".to_owned(), thinks.into());
    }
    Ok(text_of(variables))
}

/// Variables of the chat template as `slm.v1` has them.
pub(super) fn text_of(variables: Map<String, Value>) -> String {
    if variables.is_empty() { String::new() } else { Value::Object(variables).to_string() }
}

/// A list of `{"type": "function", "function": {…}}`.
pub(super) fn tools(path: &str, list: &Value) -> Result<Vec<Tool>, ApiError> {
    let list = read::<Vec<Value>>(path, list)?;
    list.iter().enumerate().map(|(index, value)| tool(&format!("{path}[{index}]"), value)).collect()
}

fn tool(path: &str, value: &Value) -> Result<Tool, ApiError> {
    let mut fields = Fields::new(read(path, value)?);
    let kind = fields.take::<String>("type").map_err(|error| error.within(path))?;
    if kind.as_deref().is_some_and(|kind| kind != "function") {
        let kind: String = kind.unwrap_or_default().chars().take(40).collect();
        let path = format!("{path}.type");
        let message =
            format!("`{path}` has to be function, not {kind:?}: models here call functions of the caller's only");
        return Err(ApiError::param(&path, message));
    }
    let function = fields.raw("function");
    nothing_else(path, fields)?;
    let path = format!("{path}.function");
    let Some(function) = function else {
        return Err(ApiError::param(&path, format!("`{path}` is missing; send its name and parameters")));
    };
    described(&path, Fields::new(read(&path, &function)?), "parameters")
}

/// A function of its name, description and schema, which is the field `schema` of the object at `path`, and nothing else.
pub(super) fn described(path: &str, mut function: Fields, schema: &str) -> Result<Tool, ApiError> {
    let within = |error: ApiError| error.within(path);
    let tool = Tool {
        name: name(&format!("{path}.name"), function.take::<String>("name").map_err(within)?)?,
        description: function.take::<String>("description").map_err(within)?.unwrap_or_default(),
        parameters: parameters(&format!("{path}.{schema}"), function.raw(schema))?,
        strict: function.take::<bool>("strict").map_err(within)?.unwrap_or(false),
    };
    nothing_else(path, function)?;
    Ok(tool)
}

/// A name that is there.
pub(super) fn name(path: &str, name: Option<String>) -> Result<String, ApiError> {
    name.filter(|name| !name.is_empty()).ok_or_else(|| ApiError::param(path, format!("`{path}` is missing")))
}

/// A JSON Schema; none for a function without arguments.
pub(super) fn parameters(path: &str, value: Option<Value>) -> Result<String, ApiError> {
    match value {
        None => Ok(String::new()),
        Some(schema @ Value::Object(_)) => Ok(schema.to_string()),
        Some(other) => {
            let message = format!("`{path}` has to be a JSON Schema of an object, not {}", shown(&other));
            Err(ApiError::param(path, message))
        }
    }
}

/// A word, or the name of one function.
fn choice_of(value: &Value) -> Result<ToolChoice, ApiError> {
    let named = (value["type"] == "function").then(|| value["function"]["name"].as_str()).flatten();
    choice(value, named, r#"{"type": "function", "function": {"name": …}}"#)
}

/// The choice that `value` is: a word, or the tool that it names, in the `shape` that names one.
pub(super) fn choice(value: &Value, named: Option<&str>, shape: &str) -> Result<ToolChoice, ApiError> {
    let (mode, name) = match (value.as_str(), named) {
        (Some("auto"), _) => (ToolChoiceMode::Auto, ""),
        (Some("none"), _) => (ToolChoiceMode::None, ""),
        (Some("required"), _) => (ToolChoiceMode::Required, ""),
        (None, Some(name)) => (ToolChoiceMode::Required, name),
        _ => {
            let message = format!("`tool_choice` has to be none, auto, required or {shape}, not {}", shown(value));
            return Err(ApiError::param("tool_choice", message));
        }
    };
    Ok(ToolChoice { mode: mode.into(), name: name.to_owned() })
}

/// Calls of an assistant's message. Ollama's have no ids.
pub(super) fn calls(path: &str, list: &Value, with_ids: bool) -> Result<Vec<ToolCall>, ApiError> {
    let list = read::<Vec<Value>>(path, list)?;
    list.iter().enumerate().map(|(index, value)| call(&format!("{path}[{index}]"), value, with_ids)).collect()
}

fn call(path: &str, value: &Value, with_ids: bool) -> Result<ToolCall, ApiError> {
    let mut fields = Fields::new(read(path, value)?);
    let id = fields.take::<String>("id").map_err(|error| error.within(path))?;
    let id = if with_ids { name(&format!("{path}.id"), id)? } else { id.unwrap_or_default() };
    let path = format!("{path}.function");
    let Some(function) = fields.raw("function") else {
        return Err(ApiError::param(&path, format!("`{path}` is missing; send its name and arguments")));
    };
    let mut function = Fields::new(read(&path, &function)?);
    let called = function.take::<String>("name").map_err(|error| error.within(&path))?;
    let arguments = match function.raw("arguments") {
        None => String::new(),
        Some(Value::String(text)) => text,
        Some(object @ Value::Object(_)) => object.to_string(),
        Some(other) => {
            let path = format!("{path}.arguments");
            let message = format!("`{path}` has to be the text of a JSON object, not {}", shown(&other));
            return Err(ApiError::param(&path, message));
        }
    };
    Ok(ToolCall { id, name: name(&format!("{path}.name"), called)?, arguments })
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

    fn function(function: Value) -> Value {
        json!({"tools": [{"type": "function", "function": function}]})
    }

    #[test]
    fn tools_arrive_as_they_are() {
        let schema = json!({"type": "object", "properties": {"z": {}, "a": {}}});
        let request = taken(&json!({
            "tools": [
                {"type": "function", "function": {"name": "f", "description": "d", "parameters": schema, "strict": true}},
                {"type": "function", "function": {"name": "g", "parameters": null}},
            ],
            "tool_choice": {"type": "function", "function": {"name": "g"}}, "parallel_tool_calls": false,
            "chat_template_kwargs": {"x": 1}, "enable_thinking": false,
        }))
        .expect("good");
        let tool = &request.tools[0];
        assert_eq!((tool.name.as_str(), tool.description.as_str(), tool.strict), ("f", "d", true));
        assert_eq!(tool.parameters, r#"{"type":"object","properties":{"z":{},"a":{}}}"#);
        assert_eq!(request.tools[1], Tool { name: "g".to_owned(), ..Default::default() });
        let choice = request.tool_choice.expect("a choice");
        assert_eq!((choice.mode(), choice.name.as_str()), (ToolChoiceMode::Required, "g"));
        assert_eq!(request.parallel_tool_calls, Some(false));
        assert_eq!(request.chat_template_kwargs, r#"{"x":1,"enable_thinking":false}"#);
        for (word, mode) in [("auto", ToolChoiceMode::Auto), ("none", ToolChoiceMode::None)] {
            assert_eq!(taken(&json!({"tool_choice": word})).expect(word).tool_choice.expect(word).mode(), mode);
        }
    }

    #[test]
    fn refusals_name_the_parameter() {
        for (body, param, words) in [
            (json!({"tools": {}}), "tools", "a list"),
            (json!({"tools": ["f"]}), "tools[0]", "an object, not \"f\""),
            (json!({"tools": [{"type": "web_search"}]}), "tools[0].type", "has to be function, not \"web_search\""),
            (json!({"tools": [{"type": "function"}]}), "tools[0].function", "is missing"),
            (
                json!({"tools": [{"type": "function", "function": {"name": "f"}, "cached": true}]}),
                "tools[0].cached",
                "not supported",
            ),
            (function(json!({})), "tools[0].function.name", "is missing"),
            (
                function(json!({"name": 1})),
                "tools[0].function.name",
                "`tools[0].function.name` has to be a string, not 1",
            ),
            (
                function(json!({"name": "f", "parameters": []})),
                "tools[0].function.parameters",
                "a JSON Schema of an object",
            ),
            (function(json!({"name": "f", "strict": "yes"})), "tools[0].function.strict", "true or false"),
            (function(json!({"name": "f", "returns": "x"})), "tools[0].function.returns", "is not supported"),
            (json!({"tool_choice": "any"}), "tool_choice", "none, auto, required or"),
            (json!({"tool_choice": "required"}), "tool_choice", "there are no `tools`"),
            (json!({"chat_template_kwargs": 1}), "chat_template_kwargs", "an object"),
            (json!({"enable_thinking": "no"}), "enable_thinking", "true or false"),
        ] {
            let error = taken(&body).expect_err(param);
            assert_eq!(error.body.param.as_deref(), Some(param), "{body}");
            assert!(error.body.message.contains(words), "{}", error.body.message);
        }
    }

    #[test]
    fn calls_are_read_with_ids_and_without() {
        let list = json!([{"id": "x", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}]);
        let call = ToolCall { id: "x".into(), name: "f".into(), arguments: "{\"a\": 1}".into() };
        assert_eq!(calls("c", &list, true), Ok(vec![call]));
        let ollamas = json!([{"function": {"name": "f", "arguments": {"a": 1}}}]);
        assert_eq!(calls("c", &ollamas, false).expect("good")[0].arguments, "{\"a\":1}");
        for (list, param) in [
            (ollamas, "c[0].id"),
            (json!([{"id": "x"}]), "c[0].function"),
            (json!([{"id": "x", "function": {"arguments": "{}"}}]), "c[0].function.name"),
            (json!([{"id": "x", "function": {"name": "f", "arguments": 1}}]), "c[0].function.arguments"),
        ] {
            assert_eq!(calls("c", &list, true).expect_err(param).body.param.as_deref(), Some(param));
        }
    }
}
