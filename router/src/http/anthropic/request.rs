//! Bodies of `/v1/messages`.

use std::collections::HashSet;

use serde_json::{Map, Value, json};
use slm_proto::v1::{GenerateRequest, Message, Messages, Sampling, generate_request::Input};

use super::{blocks, tools};
use crate::http::{
    error::ApiError,
    fields::{Fields, read, shown},
    params,
    unsupported::LeftOver,
};

/// A request.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) request: GenerateRequest,
    pub(super) stream: bool,
}

const LEFT_OVER: LeftOver<'_> = LeftOver {
    // Book-keeping of Anthropic's service.
    harmless: &["service_tier", "inference_geo", "cache_control"],
    unsupported: &["mcp_servers", "container", "context_management"],
    read: &[
        "model",
        "messages",
        "max_tokens",
        "system",
        "stop_sequences",
        "stream",
        "temperature",
        "top_k",
        "top_p",
        "tools",
        "tool_choice",
        "thinking",
        "metadata",
    ],
};
/// The same bound as of chat completions.
const MESSAGES_MAX: usize = 16_384;

pub(super) fn parse(fields: Fields) -> Result<Asked, ApiError> {
    let asked = parse_prompt(fields)?;
    if asked.request.max_tokens.is_none() {
        return Err(ApiError::param("max_tokens", "`max_tokens` is missing; it is required here"));
    }
    Ok(asked)
}

/// A request whose prompt alone matters.
pub(super) fn parse_prompt(mut fields: Fields) -> Result<Asked, ApiError> {
    let max_tokens = params::max_tokens(&mut fields, "max_tokens")?;
    let mut messages = Vec::new();
    if let Some(system) = fields.raw("system") {
        messages.push(blocks::said("system", blocks::text("system", &system)?));
    }
    messages.extend(conversation(&mut fields)?);
    // Anthropic's models continue a last message of theirs.
    let is_begun = |last: &Message| last.role == "assistant" && last.tool_calls.is_empty() && !last.content.is_empty();
    let is_begun = messages.last().is_some_and(is_begun);
    let mut request = GenerateRequest {
        continue_final_message: is_begun,
        model: fields.take::<String>("model")?.unwrap_or_default(),
        input: Some(Input::Messages(Messages { messages })),
        max_tokens,
        stop: stop_sequences(&mut fields)?,
        // `data_policy` stands there, too.
        metadata: params::metadata(&mut fields)?,
        sampling: Some(Sampling {
            temperature: fields.take("temperature")?,
            top_k: params::top_k(&mut fields)?,
            top_p: fields.take("top_p")?,
            ..Default::default()
        }),
        ..Default::default()
    };
    let stream = fields.take::<bool>("stream")?.unwrap_or(false);
    tools::take(&mut fields, &mut request)?;
    request.chat_template_kwargs = thinking(&mut fields)?;
    LEFT_OVER.refuse(fields)?;
    Ok(Asked { request, stream })
}

fn conversation(fields: &mut Fields) -> Result<Vec<Message>, ApiError> {
    let list = fields.take::<Vec<Value>>("messages")?.unwrap_or_default();
    if list.is_empty() || list.len() > MESSAGES_MAX {
        let message = format!("`messages` has {} entries; send 1 to {MESSAGES_MAX}", list.len());
        return Err(ApiError::param("messages", message));
    }
    let mut all = Vec::with_capacity(list.len());
    let mut calls = HashSet::new();
    for (index, value) in list.iter().enumerate() {
        all.extend(message(&format!("messages[{index}]"), value, &mut calls)?);
    }
    Ok(all)
}

fn message(path: &str, value: &Value, calls: &mut HashSet<String>) -> Result<Vec<Message>, ApiError> {
    let mut fields = Fields::new(read::<Map<String, Value>>(path, value)?);
    let role = fields.raw("role").unwrap_or_default();
    let role = match role.as_str() {
        Some(role @ ("user" | "assistant")) => role.to_owned(),
        _ => {
            let message = format!(
                "`{path}.role` has to be user or assistant, not {}; the system prompt is `system`",
                shown(&role)
            );
            return Err(ApiError::param(&format!("{path}.role"), message));
        }
    };
    let content = format!("{path}.content");
    let Some(value) = fields.raw("content") else {
        return Err(ApiError::param(&content, format!("`{content}` is missing")));
    };
    blocks::messages(&role, &content, &value, calls)
}

fn stop_sequences(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let stops = fields.take::<Vec<Value>>("stop_sequences")?.unwrap_or_default();
    stops.iter().enumerate().map(|(index, stop)| read(&format!("stop_sequences[{index}]"), stop)).collect()
}

/// Variables of the chat template for a model that thinks, or does not. A budget says nothing: `max_tokens` bounds an answer.
fn thinking(fields: &mut Fields) -> Result<String, ApiError> {
    let Some(thinking) = fields.raw("thinking") else { return Ok(String::new()) };
    let thinks = match thinking["type"].as_str() {
        Some("enabled" | "adaptive") => true,
        Some("disabled") => false,
        _ => {
            let message = "`thinking.type` has to be enabled, adaptive or disabled";
            return Err(ApiError::param("thinking.type", message));
        }
    };
    Ok(json!({ "enable_thinking": thinks }).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(change: Value) -> Result<Asked, ApiError> {
        let mut body = json!({ "model": "m", "max_tokens": 9, "messages": [{ "role": "user", "content": "hi" }] });
        for (name, value) in change.as_object().expect("an object") {
            body[name] = value.clone();
        }
        parse(Fields::new(body.as_object().expect("an object").clone()))
    }

    #[test]
    fn every_parameter_arrives() {
        let asked = parsed(json!({
            "system": [{ "type": "text", "text": "Be ", "cache_control": { "type": "ephemeral" } }, { "type": "text", "text": "brief." }],
            "messages": [
                { "role": "user", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }] },
                { "role": "assistant", "content": "c" },
                { "role": "user", "content": "d" },
            ],
            "stop_sequences": ["x", "y"], "temperature": 0.5, "top_k": 5, "top_p": 0.9, "stream": true, "tools": [],
            "metadata": { "user_id": "u" }, "thinking": { "type": "disabled" },
        }))
        .expect("good");
        let Some(Input::Messages(messages)) = asked.request.input else { panic!("messages") };
        let turns: Vec<_> = messages.messages.iter().map(|turn| format!("{} {}", turn.role, turn.content)).collect();
        assert_eq!(turns, ["system Be brief.", "user ab", "assistant c", "user d"]);
        let sampling = asked.request.sampling.expect("sampling");
        assert_eq!((sampling.temperature, sampling.top_k, sampling.top_p), (Some(0.5), Some(5), Some(0.9)));
        assert_eq!((asked.request.max_tokens, asked.request.stop.len(), asked.stream), (Some(9), 2, true));
    }

    #[test]
    fn thinking_is_a_variable_of_the_template() {
        let of = |kind: &str| parsed(json!({ "thinking": { "type": kind, "budget_tokens": 1024 } })).expect(kind);
        assert_eq!(of("enabled").request.chat_template_kwargs, r#"{"enable_thinking":true}"#);
        assert_eq!(of("disabled").request.chat_template_kwargs, r#"{"enable_thinking":false}"#);
        let calls = json!({ "tools": [{ "name": "f" }], "messages": [
            { "role": "user", "content": "hi" },
            { "role": "assistant", "content": [{ "type": "tool_use", "id": "x", "name": "f", "input": {} }] },
            { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "x", "content": "42" }, { "type": "text", "text": "Well?" }] },
        ]});
        let Some(Input::Messages(messages)) = parsed(calls).expect("good").request.input else { panic!("messages") };
        let roles: Vec<_> = messages.messages.iter().map(|message| message.role.as_str()).collect();
        assert_eq!(roles, ["user", "assistant", "tool", "user"]);
    }

    #[test]
    fn refusals_name_the_parameter() {
        for (change, param, words) in [
            (json!({ "max_tokens": null }), "max_tokens", "is required"),
            (json!({ "messages": [] }), "messages", "has 0 entries"),
            (
                json!({ "messages": [{ "role": "system", "content": "x" }] }),
                "messages[0].role",
                "the system prompt is `system`",
            ),
            (json!({ "messages": [{ "role": "user" }] }), "messages[0].content", "missing"),
            (
                json!({ "messages": [{ "role": "user", "content": [{ "type": "image", "source": {} }] }] }),
                "messages[0].content[0]",
                "not image; models here read text only",
            ),
            (json!({ "system": 5 }), "system", "not 5"),
            (json!({ "tools": [{ "name": "" }] }), "tools[0].name", "missing"),
            (json!({ "thinking": { "type": "deep" } }), "thinking.type", "enabled, adaptive or disabled"),
            (json!({ "mcp_servers": [{}] }), "mcp_servers", "not supported"),
            (json!({ "stop_sequence": ["x"] }), "stop_sequence", "did you mean `stop_sequences`"),
        ] {
            let error = parsed(change).expect_err(words);
            assert_eq!(error.body.param.as_deref(), Some(param), "{words}");
            assert!(error.body.message.contains(words), "{}", error.body.message);
        }
    }
}
