//! Blocks of messages: text, thoughts, calls of tools and their results.

use std::collections::HashSet;

use serde_json::{Map, Value};
use slm_proto::v1::{Message, ToolCall};

use crate::http::{
    error::ApiError,
    fields::{Fields, read, shown},
    tools::name,
};

/// The messages that a message with these contents is: each result of a tool is one of its own, before what the user says.
///
/// `calls` are the ids of the calls before, to which those of these contents are added.
pub(super) fn messages(
    role: &str,
    path: &str,
    content: &Value,
    calls: &mut HashSet<String>,
) -> Result<Vec<Message>, ApiError> {
    let Value::Array(blocks) = content else { return Ok(vec![said(role, text(path, content)?)]) };
    let mut message = said(role, String::new());
    let mut results = Vec::new();
    let mut has_text = false;
    for (index, block) in blocks.iter().enumerate() {
        let path = format!("{path}[{index}]");
        match (block["type"].as_str(), role) {
            (Some("tool_use"), "assistant") => {
                let call = call(&path, block)?;
                calls.insert(call.id.clone());
                message.tool_calls.push(call);
            }
            (Some("tool_result"), "user") => results.push(result(&path, block, calls)?),
            (Some("thinking"), "assistant") => {
                message.reasoning.push_str(block["thinking"].as_str().unwrap_or_default());
            }
            // What was hidden cannot be shown to a model.
            (Some("redacted_thinking"), "assistant") => {}
            _ => {
                message.content.push_str(block_text(&path, block)?);
                has_text = true;
            }
        }
    }
    if has_text || results.is_empty() {
        results.push(message);
    }
    Ok(results)
}

pub(super) fn said(role: &str, content: String) -> Message {
    Message { role: role.to_owned(), content, ..Default::default() }
}

/// A string, or blocks of text.
pub(super) fn text(path: &str, value: &Value) -> Result<String, ApiError> {
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

fn call(path: &str, block: &Value) -> Result<ToolCall, ApiError> {
    let mut fields = Fields::new(read::<Map<String, Value>>(path, block)?);
    let within = |error: ApiError| error.within(path);
    let id = name(&format!("{path}.id"), fields.take::<String>("id").map_err(within)?)?;
    let called = name(&format!("{path}.name"), fields.take::<String>("name").map_err(within)?)?;
    let input = fields.take::<Map<String, Value>>("input").map_err(within)?.unwrap_or_default();
    Ok(ToolCall { id, name: called, arguments: Value::Object(input).to_string() })
}

fn result(path: &str, block: &Value, calls: &HashSet<String>) -> Result<Message, ApiError> {
    let mut fields = Fields::new(read::<Map<String, Value>>(path, block)?);
    let id = fields.take::<String>("tool_use_id").map_err(|error| error.within(path))?;
    let tool_call_id = name(&format!("{path}.tool_use_id"), id)?;
    if !calls.contains(&tool_call_id) {
        let (path, id) = (format!("{path}.tool_use_id"), tool_call_id.chars().take(80).collect::<String>());
        let message = format!(
            "`{path}` is {id:?}, and no tool_use before it has this id; send the assistant's message with it, too"
        );
        return Err(ApiError::param(&path, message));
    }
    let content = fields.raw("content").map_or(Ok(String::new()), |value| text(&format!("{path}.content"), &value))?;
    let failed = fields.take::<bool>("is_error").map_err(|error| error.within(path))?.unwrap_or(false);
    let content = if failed { format!("Error: {content}") } else { content };
    Ok(Message { tool_call_id, ..said("tool", content) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn blocks_become_messages_and_calls() {
        let called = json!([
            {"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "x", "name": "f", "input": {"a": 1}},
        ]);
        let mut calls = HashSet::from(["y".to_owned()]);
        let [message] = &messages("assistant", "c", &called, &mut calls).expect("good")[..] else { panic!("one") };
        assert_eq!((message.content.as_str(), message.reasoning.as_str()), ("I look.", "hm"));
        assert_eq!(message.tool_calls, [ToolCall { id: "x".into(), name: "f".into(), arguments: "{\"a\":1}".into() }]);
        let results = json!([
            {"type": "tool_result", "tool_use_id": "x", "content": [{"type": "text", "text": "4"}, {"type": "text", "text": "2"}]},
            {"type": "tool_result", "tool_use_id": "y", "content": "no", "is_error": true},
            {"type": "text", "text": "Well?"},
        ]);
        let read = messages("user", "c", &results, &mut calls).expect("good");
        let shown: Vec<_> = read.iter().map(|m| format!("{} {} {}", m.role, m.tool_call_id, m.content)).collect();
        assert_eq!(shown, ["tool x 42", "tool y Error: no", "user  Well?"]);
        let alone = json!([{"type": "tool_result", "tool_use_id": "x"}]);
        assert_eq!(messages("user", "c", &alone, &mut calls).expect("good").len(), 1);
    }

    #[test]
    fn refusals_name_the_block() {
        for (role, block, param) in [
            ("user", json!({"type": "tool_use", "id": "x", "name": "f"}), "c[0]"),
            ("assistant", json!({"type": "tool_use", "id": "x"}), "c[0].name"),
            ("assistant", json!({"type": "tool_use", "id": "x", "name": "f", "input": "{}"}), "c[0].input"),
            ("user", json!({"type": "tool_result", "content": "x"}), "c[0].tool_use_id"),
            (
                "user",
                json!({"type": "tool_result", "tool_use_id": "x", "content": [{"type": "image"}]}),
                "c[0].content[0]",
            ),
        ] {
            let mut calls = HashSet::from(["x".to_owned()]);
            let error = messages(role, "c", &json!([block]), &mut calls).expect_err(param);
            assert_eq!(error.body.param.as_deref(), Some(param));
        }
        let orphan = json!([{"type": "tool_result", "tool_use_id": "x", "content": "4"}]);
        let error = messages("user", "c", &orphan, &mut HashSet::new()).expect_err("an orphan");
        assert_eq!(error.body.param.as_deref(), Some("c[0].tool_use_id"));
        assert!(error.body.message.starts_with("`c[0].tool_use_id` is \"x\", and no tool_use before it"));
    }
}
