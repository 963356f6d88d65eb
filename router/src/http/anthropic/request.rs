//! Bodies of `/v1/messages`.

use serde_json::{Map, Value};
use slm_proto::v1::{GenerateRequest, Message, Messages, Sampling, generate_request::Input};

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
    harmless: &["metadata", "service_tier", "inference_geo", "cache_control"],
    unsupported: &["tools", "tool_choice", "thinking"],
    read: &["model", "messages", "max_tokens", "system", "stop_sequences", "stream", "temperature", "top_k", "top_p"],
};
/// The same bound as of chat completions.
const MESSAGES_MAX: usize = 16_384;

pub(super) fn parse(mut fields: Fields) -> Result<Asked, ApiError> {
    let max_tokens = params::max_tokens(&mut fields, "max_tokens")?;
    let max_tokens =
        max_tokens.ok_or_else(|| ApiError::param("max_tokens", "`max_tokens` is missing; it is required here"))?;
    let mut messages = Vec::new();
    if let Some(system) = fields.raw("system") {
        messages.push(said("system", text("system", &system)?));
    }
    messages.extend(conversation(&mut fields)?);
    let request = GenerateRequest {
        model: fields.take::<String>("model")?.unwrap_or_default(),
        input: Some(Input::Messages(Messages { messages })),
        max_tokens: Some(max_tokens),
        stop: stop_sequences(&mut fields)?,
        sampling: Some(Sampling {
            temperature: fields.take("temperature")?,
            top_k: params::top_k(&mut fields)?,
            top_p: fields.take("top_p")?,
            ..Default::default()
        }),
        ..Default::default()
    };
    let stream = fields.take::<bool>("stream")?.unwrap_or(false);
    thinking(&mut fields)?;
    LEFT_OVER.refuse(fields)?;
    Ok(Asked { request, stream })
}

fn conversation(fields: &mut Fields) -> Result<Vec<Message>, ApiError> {
    let list = fields.take::<Vec<Value>>("messages")?.unwrap_or_default();
    if list.is_empty() || list.len() > MESSAGES_MAX {
        let message = format!("`messages` has {} entries; send 1 to {MESSAGES_MAX}", list.len());
        return Err(ApiError::param("messages", message));
    }
    list.iter().enumerate().map(|(index, value)| message(&format!("messages[{index}]"), value)).collect()
}

fn message(path: &str, value: &Value) -> Result<Message, ApiError> {
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
    Ok(said(&role, text(&content, &value)?))
}

fn said(role: &str, content: String) -> Message {
    Message { role: role.to_owned(), content, name: String::new() }
}

/// A string, or blocks of text.
fn text(path: &str, value: &Value) -> Result<String, ApiError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Array(blocks) => {
            let blocks = blocks.iter().enumerate();
            blocks.map(|(index, block)| block_text(&format!("{path}[{index}]"), block)).collect()
        }
        other => {
            let message = format!("`{path}` has to be a string or a list of text blocks, not {}", shown(other));
            Err(ApiError::param(path, message))
        }
    }
}

fn block_text<'b>(path: &str, block: &'b Value) -> Result<&'b str, ApiError> {
    match (block["type"].as_str(), block["text"].as_str()) {
        (Some("text"), Some(text)) => Ok(text),
        (kind, _) => {
            let kind = kind.map_or_else(|| shown(block), |kind| kind.chars().take(40).collect());
            let message = format!(
                "`{path}` has to be {{\"type\": \"text\", \"text\": …}}, not {kind}; models here read text only"
            );
            Err(ApiError::param(path, message))
        }
    }
}

fn stop_sequences(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let stops = fields.take::<Vec<Value>>("stop_sequences")?.unwrap_or_default();
    stops.iter().enumerate().map(|(index, stop)| read(&format!("stop_sequences[{index}]"), stop)).collect()
}

fn thinking(fields: &mut Fields) -> Result<(), ApiError> {
    match fields.raw("thinking") {
        Some(thinking) if thinking["type"] != "disabled" => {
            let message = "`thinking` is not supported here with this value; leave it out";
            Err(ApiError::param("thinking", message).code("unsupported_parameter"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
            (json!({ "tools": [{ "name": "f" }] }), "tools", "not supported"),
            (json!({ "thinking": { "type": "enabled", "budget_tokens": 1024 } }), "thinking", "not supported"),
            (json!({ "stop_sequence": ["x"] }), "stop_sequence", "did you mean `stop_sequences`"),
        ] {
            let error = parsed(change).expect_err(words);
            assert_eq!(error.body.param.as_deref(), Some(param), "{words}");
            assert!(error.body.message.contains(words), "{}", error.body.message);
        }
    }
}
