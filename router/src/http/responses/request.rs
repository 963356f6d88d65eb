//! Bodies of `/v1/responses`.

use serde_json::{Map, Value, json};
use slm_proto::v1::{GenerateRequest, generate_request::Input, sampling::Constraint};

use super::{items, tools};
use crate::http::{
    error::ApiError,
    fields::{Fields, read, shown},
    head::CompletionKind,
    names::FieldNames,
    params::{self, ResponseOptions},
    tools::variables,
    unsupported::{LeftOver, nothing_else, says_nothing},
};

/// A request.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) request: GenerateRequest,
    pub(super) options: ResponseOptions,
    /// What a response says of its request.
    pub(super) echo: Map<String, Value>,
}

/// Path of the schema.
const SCHEMA: &str = "text.format.schema";

const LEFT_OVER: LeftOver<'_> = LeftOver {
    // Book-keeping of OpenAI's service; calls of its own tools, of which there are none here.
    harmless: &[
        "user",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "service_tier",
        "max_tool_calls",
    ],
    unsupported: &["conversation", "background", "prompt", "context_management"],
    read: &[
        "model",
        "input",
        "instructions",
        "max_output_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "stream",
        "stream_options",
        "text",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "metadata",
        "include",
        "top_logprobs",
        "truncation",
        "store",
        "reasoning",
        "previous_response_id",
        "chat_template_kwargs",
        "enable_thinking",
    ],
};

pub(super) fn parse(mut fields: Fields) -> Result<Asked, ApiError> {
    stateless(&mut fields)?;
    names_of_chat(&fields)?;
    let mut echo = echo(&fields);
    let instructions = fields.take::<String>("instructions")?;
    let (mut request, mut options) = params::take(&mut fields, CompletionKind::Chat)?;
    options.names = FieldNames { input: "input", tools_are_flat: true, ..options.names };
    if let Some(tokens) = params::max_tokens(&mut fields, "max_output_tokens")? {
        request.max_tokens = Some(tokens);
        options.names.max_tokens = "max_output_tokens";
    }
    text(&mut fields, &mut request, &mut options)?;
    request.input = Some(Input::Messages(items::conversation(&mut fields, instructions.as_deref())?));
    tools::take(&mut fields, &mut request)?;
    request.logprobs = logprobs(&mut fields)?;
    reasoning(&mut fields, &mut request)?;
    one_of(&mut fields, "truncation", "disabled")?;
    LEFT_OVER.refuse(fields)?;
    echo.insert("metadata".to_owned(), json!(request.metadata));
    Ok(Asked { request, options, echo })
}

/// Refuses what refers to what was kept, or asks to keep something.
fn stateless(fields: &mut Fields) -> Result<(), ApiError> {
    if fields.raw("previous_response_id").is_some() {
        let message = "`previous_response_id`: responses are not kept here; send the whole conversation in `input`";
        return Err(ApiError::param("previous_response_id", message).code("unsupported_parameter"));
    }
    if fields.take::<bool>("store")? == Some(true) {
        let message = "`store`: responses are not kept here; send false, or leave it out";
        return Err(ApiError::param("store", message).code("unsupported_parameter"));
    }
    Ok(())
}

/// Refuses what chat completions call by another name.
fn names_of_chat(fields: &Fields) -> Result<(), ApiError> {
    for (other, own) in [
        ("max_tokens", "max_output_tokens"),
        ("max_completion_tokens", "max_output_tokens"),
        ("response_format", "text.format"),
        ("messages", "input"),
    ] {
        if fields.peek(other).is_some_and(|value| !says_nothing(value)) {
            let message = format!("unknown parameter `{other}`; it is `{own}` here");
            return Err(ApiError::param(other, message).code("unknown_parameter"));
        }
    }
    Ok(())
}

/// The fields of a response that repeat its request, or say what holds without them.
fn echo(fields: &Fields) -> Map<String, Value> {
    let mut echo = Map::new();
    for (name, otherwise) in [
        ("instructions", Value::Null),
        ("max_output_tokens", Value::Null),
        ("parallel_tool_calls", true.into()),
        ("temperature", Value::Null),
        ("text", json!({ "format": { "type": "text" } })),
        ("tool_choice", "auto".into()),
        ("tools", json!([])),
        ("top_logprobs", 0.into()),
        ("top_p", Value::Null),
        ("truncation", "disabled".into()),
        ("user", Value::Null),
    ] {
        echo.insert(name.to_owned(), fields.peek(name).cloned().unwrap_or(otherwise));
    }
    echo
}

/// `text`: the format of the answer.
fn text(fields: &mut Fields, request: &mut GenerateRequest, options: &mut ResponseOptions) -> Result<(), ApiError> {
    let Some(text) = fields.take::<Map<String, Value>>("text")? else { return Ok(()) };
    let mut text = Fields::new(text);
    let format = text.take::<Map<String, Value>>("format").map_err(|error| error.within("text"))?;
    one_of(&mut text, "verbosity", "medium").map_err(|error| error.within("text"))?;
    nothing_else("text", text)?;
    let Some(format) = format else { return Ok(()) };
    let mut format = Fields::new(format);
    let kind = format.take::<String>("type").map_err(|error| error.within("text.format"))?;
    let constraint = match kind.as_deref() {
        Some("text") => None,
        Some("json_object") => Some(("text.format", Constraint::JsonObject(slm_proto::v1::JsonObject {}))),
        Some("json_schema") => Some((SCHEMA, schema(&mut format)?)),
        kind => {
            let kind: String = kind.unwrap_or("nothing").chars().take(40).collect();
            let message = format!("`text.format.type` has to be text, json_object or json_schema, not {kind}");
            return Err(ApiError::param("text.format.type", message));
        }
    };
    nothing_else("text.format", format)?;
    let Some((name, constraint)) = constraint else { return Ok(()) };
    let sampling = request.sampling.get_or_insert_default();
    if sampling.constraint.replace(constraint).is_some() {
        let message =
            format!("`{}` and `{name}` are both given; an answer has one constraint at most", options.names.constraint);
        return Err(ApiError::param(name, message));
    }
    options.names.constraint = name;
    Ok(())
}

fn schema(format: &mut Fields) -> Result<Constraint, ApiError> {
    let within = |error: ApiError| error.within("text.format");
    // The name and the description say nothing about the answer, and every schema is kept strictly.
    format.take::<String>("name").map_err(within)?;
    format.take::<String>("description").map_err(within)?;
    format.take::<bool>("strict").map_err(within)?;
    match format.raw("schema") {
        Some(schema @ (Value::Object(_) | Value::Bool(_))) => Ok(Constraint::JsonSchema(schema.to_string())),
        Some(other) => Err(ApiError::param(
            SCHEMA,
            format!("`{SCHEMA}` has to be a JSON Schema, an object, not {}", shown(&other)),
        )),
        None => Err(ApiError::param(SCHEMA, format!("`{SCHEMA}` is missing"))),
    }
}

/// `include` and `top_logprobs`.
fn logprobs(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let mut wanted = false;
    for (index, value) in fields.take::<Vec<Value>>("include")?.unwrap_or_default().iter().enumerate() {
        let path = format!("include[{index}]");
        match read::<String>(&path, value)?.as_str() {
            "message.output_text.logprobs" => wanted = true,
            // There is none: what was thought comes as it is.
            "reasoning.encrypted_content" => {}
            other => {
                let other: String = other.chars().take(80).collect();
                let message = format!("`{path}` is {other:?}; only message.output_text.logprobs can be included here");
                return Err(ApiError::param(&path, message).code("unsupported_parameter"));
            }
        }
    }
    let top = fields.take_as::<u32>("top_logprobs", params::LOGPROBS)?;
    Ok(if wanted || top.is_some_and(|top| top > 0) { Some(top.unwrap_or(0)) } else { None })
}

/// `reasoning`: the chat template decides whether there is any; `effort: none` asks it for none.
fn reasoning(fields: &mut Fields, request: &mut GenerateRequest) -> Result<(), ApiError> {
    request.chat_template_kwargs = variables(fields)?;
    let Some(reasoning) = fields.take::<Map<String, Value>>("reasoning")? else { return Ok(()) };
    let mut reasoning = Fields::new(reasoning);
    let effort = reasoning.take::<String>("effort").map_err(|error| error.within("reasoning"))?;
    // There are no summaries: what was thought comes as it is.
    for summary in ["summary", "generate_summary"] {
        reasoning.take::<String>(summary).map_err(|error| error.within("reasoning"))?;
    }
    nothing_else("reasoning", reasoning)?;
    match effort.as_deref() {
        None | Some("medium") => Ok(()),
        Some("none") if request.chat_template_kwargs.is_empty() => {
            request.chat_template_kwargs = json!({ "enable_thinking": false }).to_string();
            Ok(())
        }
        Some("none") => {
            let message = "`reasoning.effort` and `chat_template_kwargs` are both given; set `enable_thinking` there";
            Err(ApiError::param("reasoning.effort", message))
        }
        Some(other) => {
            let other: String = other.chars().take(40).collect();
            let message = format!("`reasoning.effort` has to be none or medium here, not {other}; leave it out");
            Err(ApiError::param("reasoning.effort", message).code("unsupported_parameter"))
        }
    }
}

/// A field with one value that can be honoured.
fn one_of(fields: &mut Fields, name: &str, only: &str) -> Result<(), ApiError> {
    match fields.raw(name) {
        Some(value) if value != only => {
            let message = format!(
                "`{name}` is not supported here with the value {}; send {only}, or leave it out",
                shown(&value)
            );
            Err(ApiError::param(name, message).code("unsupported_parameter"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use slm_proto::v1::ToolChoiceMode;

    use super::*;

    fn parsed(change: Value) -> Result<Asked, ApiError> {
        let mut body = json!({ "model": "m", "input": "hi" });
        for (name, value) in change.as_object().expect("an object") {
            body[name] = value.clone();
        }
        parse(Fields::new(body.as_object().expect("an object").clone()))
    }

    #[test]
    fn every_parameter_arrives() {
        let tool = json!({
            "type": "function", "name": "time", "description": "d", "strict": true,
            "parameters": { "type": "object", "properties": { "city": { "type": "string" } } },
        });
        let asked = parsed(json!({
            "instructions": "Be brief.", "max_output_tokens": 9, "temperature": 0.5, "top_p": 0.9, "stream": true, "store": false,
            "tools": [tool], "tool_choice": { "type": "function", "name": "time" }, "parallel_tool_calls": false,
            "include": ["message.output_text.logprobs"], "top_logprobs": 2, "metadata": { "a": "b" }, "truncation": "disabled",
            "text": { "format": { "type": "json_schema", "name": "n", "strict": true, "schema": { "type": "null" } }, "verbosity": "medium" },
            "reasoning": { "effort": "none", "summary": "auto" }, "user": "u",
        }))
        .expect("good");
        let request = &asked.request;
        let Some(Input::Messages(messages)) = &request.input else { panic!("messages") };
        let turns: Vec<_> = messages.messages.iter().map(|turn| format!("{} {}", turn.role, turn.content)).collect();
        assert_eq!(turns, ["system Be brief.", "user hi"]);
        assert_eq!((request.max_tokens, request.logprobs, asked.options.stream), (Some(9), Some(2), true));
        let sampling = request.sampling.clone().expect("sampling");
        assert_eq!(sampling.constraint, Some(Constraint::JsonSchema(r#"{"type":"null"}"#.to_owned())));
        assert_eq!((request.tools[0].name.as_str(), request.tools[0].strict), ("time", true));
        let choice = request.tool_choice.clone().expect("a choice");
        assert_eq!((choice.mode(), choice.name.as_str()), (ToolChoiceMode::Required, "time"));
        assert_eq!(request.parallel_tool_calls, Some(false));
        assert_eq!(request.chat_template_kwargs, r#"{"enable_thinking":false}"#);
        assert_eq!((asked.options.names.max_tokens, asked.options.names.constraint), ("max_output_tokens", SCHEMA));
        assert_eq!((&asked.echo["instructions"], &asked.echo["metadata"]["a"]), (&json!("Be brief."), &json!("b")));
        assert_eq!(asked.echo["tools"][0]["name"], "time");
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        for (change, param, words) in [
            (json!({ "input": null }), "input", "`input` is missing"),
            (json!({ "previous_response_id": "resp_1" }), "previous_response_id", "send the whole conversation"),
            (json!({ "store": true }), "store", "not kept here"),
            (json!({ "background": true }), "background", "not supported"),
            (json!({ "conversation": "c" }), "conversation", "not supported"),
            (json!({ "truncation": "auto" }), "truncation", "send disabled"),
            (json!({ "reasoning": { "effort": "high" } }), "reasoning.effort", "has to be none or medium"),
            (json!({ "text": { "verbosity": "low" } }), "text.verbosity", "send medium"),
            (json!({ "text": { "format": { "type": "xml" } } }), "text.format.type", "not xml"),
            (json!({ "text": { "format": { "type": "json_schema" } } }), SCHEMA, "is missing"),
            (json!({ "include": ["file_search_call.results"] }), "include[0]", "only message.output_text.logprobs"),
            (json!({ "tools": [{ "type": "web_search" }] }), "tools[0].type", "no built-in tools here"),
            (json!({ "tools": [{ "type": "function" }] }), "tools[0].name", "is missing"),
            (
                json!({ "tools": [{ "type": "function", "name": "f", "parameters": 5 }] }),
                "tools[0].parameters",
                "not 5",
            ),
            (json!({ "tool_choice": "required" }), "tool_choice", "there are no `tools`"),
            (json!({ "max_token": 5 }), "max_token", "unknown parameter"),
        ] {
            let error = parsed(change).expect_err(words);
            assert_eq!(error.body.param.as_deref(), Some(param), "{}", error.body.message);
            assert!(error.body.message.contains(words), "{}", error.body.message);
        }
    }
}
