//! `input`: what was said, called and thought before, as messages.

use std::collections::HashSet;

use serde_json::{Map, Value};
use slm_proto::v1::{Message, Messages, ToolCall};

use crate::http::{
    error::ApiError,
    fields::{Fields, read, shown},
};

/// The same bound as of chat completions.
const ITEMS_MAX: usize = 16_384;

/// The conversation: `instructions` first, then the items of `input`.
pub(super) fn conversation(fields: &mut Fields, instructions: Option<&str>) -> Result<Messages, ApiError> {
    let mut messages: Vec<Message> = instructions.map(|text| said("system", text.to_owned())).into_iter().collect();
    match fields.raw("input") {
        None => return Err(ApiError::param("input", "`input` is missing; send a text, or a list of items")),
        Some(Value::String(text)) => messages.push(said("user", text)),
        Some(Value::Array(items)) if items.is_empty() || items.len() > ITEMS_MAX => {
            let message = format!("`input` has {} items; send 1 to {ITEMS_MAX}", items.len());
            return Err(ApiError::param("input", message));
        }
        Some(Value::Array(items)) => {
            let mut calls = HashSet::new();
            for (index, value) in items.into_iter().enumerate() {
                item(&format!("input[{index}]"), &value, &mut messages, &mut calls)?;
            }
        }
        Some(other) => {
            let message = format!("`input` has to be a string or a list of items, not {}", shown(&other));
            return Err(ApiError::param("input", message));
        }
    }
    Ok(Messages { messages })
}

fn said(role: &str, content: String) -> Message {
    Message { role: role.to_owned(), content, ..Default::default() }
}

/// `calls` are the ids of the calls before.
fn item(path: &str, value: &Value, messages: &mut Vec<Message>, calls: &mut HashSet<String>) -> Result<(), ApiError> {
    let mut fields = Fields::new(read::<Map<String, Value>>(path, value)?);
    let within = |error: ApiError| error.within(path);
    match fields.take::<String>("type").map_err(within)?.as_deref() {
        None | Some("message") => message(path, fields, messages),
        Some("function_call") => {
            let call = ToolCall {
                id: text(path, &mut fields, "call_id")?,
                name: text(path, &mut fields, "name")?,
                arguments: text(path, &mut fields, "arguments")?,
            };
            let arguments = format!("{path}.arguments");
            if let Err(error) = serde_json::from_str::<Map<String, Value>>(&call.arguments) {
                let message = format!("`{arguments}` has to be the text of a JSON object: {error}");
                return Err(ApiError::param(&arguments, message));
            }
            calls.insert(call.id.clone());
            assistant(messages).tool_calls.push(call);
            Ok(())
        }
        Some("function_call_output") => {
            let id = text(path, &mut fields, "call_id")?;
            if !calls.contains(&id) {
                let (path, id) = (format!("{path}.call_id"), id.chars().take(80).collect::<String>());
                let message =
                    format!("`{path}` is {id:?}, and no function_call before it has this call_id; send that item, too");
                return Err(ApiError::param(&path, message));
            }
            let output = format!("{path}.output");
            let value = fields.raw("output").ok_or_else(|| missing(&output))?;
            messages.push(Message { tool_call_id: id, ..said("tool", content(&output, &value)?) });
            Ok(())
        }
        Some("reasoning") => {
            let content = fields.take::<Vec<Value>>("content").map_err(within)?.unwrap_or_default();
            let thought: String = content.iter().filter_map(|part| part["text"].as_str()).collect();
            // Of an answer that is still to come.
            messages.push(Message { reasoning: thought, ..said("assistant", String::new()) });
            Ok(())
        }
        Some(kind) => {
            let kind: String = kind.chars().take(40).collect();
            let message = format!(
                "`{path}.type` has to be message, function_call, function_call_output or reasoning, not {kind}; nothing is kept here that an item could refer to"
            );
            Err(ApiError::param(&format!("{path}.type"), message).code("unsupported_parameter"))
        }
    }
}

fn message(path: &str, mut fields: Fields, messages: &mut Vec<Message>) -> Result<(), ApiError> {
    let role = text(path, &mut fields, "role")?;
    let at = format!("{path}.content");
    let content = content(&at, &fields.raw("content").ok_or_else(|| missing(&at))?)?;
    match role.as_str() {
        "assistant" => match messages.last_mut() {
            // What was thought before it is an item of its own, and one message to the model.
            Some(last) if last.role == "assistant" && last.content.is_empty() && last.tool_calls.is_empty() => {
                last.content = content;
            }
            _ => messages.push(said("assistant", content)),
        },
        "user" | "system" => messages.push(said(&role, content)),
        "developer" => messages.push(said("system", content)),
        other => {
            let role: String = other.chars().take(40).collect();
            let message = format!("`{path}.role` has to be user, assistant, system or developer, not {role:?}");
            return Err(ApiError::param(&format!("{path}.role"), message));
        }
    }
    Ok(())
}

/// The assistant's message to which a call belongs: the last one, if nobody has spoken since.
fn assistant(messages: &mut Vec<Message>) -> &mut Message {
    if messages.last().is_none_or(|last| last.role != "assistant") {
        messages.push(said("assistant", String::new()));
    }
    let last = messages.len() - 1;
    &mut messages[last]
}

fn missing(path: &str) -> ApiError {
    ApiError::param(path, format!("`{path}` is missing"))
}

fn text(path: &str, fields: &mut Fields, name: &str) -> Result<String, ApiError> {
    let value = fields.take::<String>(name).map_err(|error| error.within(path))?;
    value.ok_or_else(|| missing(&format!("{path}.{name}")))
}

/// A string, or parts of text.
fn content(path: &str, value: &Value) -> Result<String, ApiError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => {
            let parts = parts.iter().enumerate();
            parts.map(|(index, part)| part_text(&format!("{path}[{index}]"), part)).collect()
        }
        other => {
            let message = format!("`{path}` has to be a string or a list of text parts, not {}", shown(other));
            Err(ApiError::param(path, message))
        }
    }
}

fn part_text<'p>(path: &str, part: &'p Value) -> Result<&'p str, ApiError> {
    match (part["type"].as_str(), part["text"].as_str(), part["refusal"].as_str()) {
        (Some("input_text" | "output_text" | "text"), Some(text), _) | (Some("refusal"), _, Some(text)) => Ok(text),
        (kind, ..) => {
            let kind = kind.map_or_else(|| shown(part), |kind| kind.chars().take(40).collect());
            let message = format!(
                "`{path}` has to be {{\"type\": \"input_text\", \"text\": …}}, not {kind}; models here read text only"
            );
            Err(ApiError::param(path, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn messages(input: Value) -> Result<Vec<Message>, ApiError> {
        let mut fields = Fields::new(Map::from_iter([("input".to_owned(), input)]));
        conversation(&mut fields, Some("Be brief.")).map(|messages| messages.messages)
    }

    #[test]
    fn items_become_messages() {
        let input = json!([
            { "role": "user", "content": "What time is it in Rome and in Oslo?" },
            { "type": "reasoning", "id": "rs_1", "summary": [], "content": [{ "type": "reasoning_text", "text": "Two calls." }] },
            { "type": "function_call", "id": "fc_1", "call_id": "a", "name": "time", "arguments": "{\"city\":\"Rome\"}" },
            { "type": "function_call", "call_id": "b", "name": "time", "arguments": "{\"city\":\"Oslo\"}" },
            { "type": "function_call_output", "call_id": "a", "output": "9" },
            { "type": "function_call_output", "call_id": "b", "output": [{ "type": "input_text", "text": "10" }] },
            { "type": "message", "role": "assistant", "status": "completed", "content": [{ "type": "output_text", "text": "9 and 10.", "annotations": [] }] },
            { "role": "developer", "content": [{ "type": "input_text", "text": "Be " }, { "type": "input_text", "text": "kind." }] },
        ]);
        let messages = messages(input).expect("good");
        let turns: Vec<_> = messages.iter().map(|turn| format!("{}: {}", turn.role, turn.content)).collect();
        assert_eq!(
            turns,
            [
                "system: Be brief.",
                "user: What time is it in Rome and in Oslo?",
                "assistant: ",
                "tool: 9",
                "tool: 10",
                "assistant: 9 and 10.",
                "system: Be kind."
            ]
        );
        let calls: Vec<_> = messages[2].tool_calls.iter().map(|call| (call.id.as_str(), call.name.as_str())).collect();
        assert_eq!((messages[2].reasoning.as_str(), calls), ("Two calls.", vec![("a", "time"), ("b", "time")]));
        assert_eq!(messages[4].tool_call_id, "b");
    }

    #[test]
    fn refusals_have_the_path_of_the_item() {
        for (input, words) in [
            (json!([]), "`input` has 0 items"),
            (json!(5), "`input` has to be a string or a list of items, not 5"),
            (json!(["hi"]), "`input[0]` has to be an object"),
            (json!([{ "role": "user" }]), "`input[0].content` is missing"),
            (json!([{ "role": "judge", "content": "x" }]), "`input[0].role` has to be user"),
            (
                json!([{ "role": "user", "content": [{ "type": "input_image", "image_url": "x" }] }]),
                "`input[0].content[0]` has to be",
            ),
            (json!([{ "type": "item_reference", "id": "msg_1" }]), "not item_reference; nothing is kept here"),
            (json!([{ "type": "function_call", "name": "f", "arguments": "{}" }]), "`input[0].call_id` is missing"),
            (
                json!([
                    { "type": "function_call", "call_id": "a", "name": "f", "arguments": "{}" },
                    { "type": "function_call_output", "call_id": "a" },
                ]),
                "`input[1].output` is missing",
            ),
            (
                json!([{ "type": "function_call_output", "call_id": "a", "output": "1" }]),
                "`input[0].call_id` is \"a\", and no function_call before it",
            ),
            (
                json!([{ "type": "function_call", "call_id": "a", "name": "f", "arguments": "{bad" }]),
                "`input[0].arguments` has to be the text of a JSON object",
            ),
        ] {
            let error = messages(input).expect_err(words);
            assert!(error.body.message.contains(words), "{}", error.body.message);
        }
    }
}
