//! Tools of tests, and answers taken apart.

mod guarantees;
mod reading;
mod rendering;

use serde_json::{Value, json};
use slm_convert::chat::ChatTool;
use slm_proto::v1::Delta;

use super::*;

fn tool(name: &str, parameters: Value) -> Tool {
    Tool { shown: ChatTool { name: name.to_owned(), description: "It does.".to_owned(), parameters }, strict: true }
}

fn set(choice: Choice, parallel: bool) -> ToolSet {
    let weather = json!({
        "type": "object",
        "properties": {
            "city": {"type": "string", "enum": ["Oslo", "Paris"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9},
        },
        "required": ["city"], "additionalProperties": false,
    });
    let add = json!({
        "type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}, "deep": {"type": "array", "maxItems": 2, "items": {"type": "boolean"}}},
        "required": ["a"], "additionalProperties": false,
    });
    ToolSet { tools: vec![tool("get_weather", weather), tool("add", add)], choice, parallel }
}

/// An answer given in these parts: its thoughts, its text, and its calls as `name arguments`.
fn read(
    form: Form,
    thinking: Option<(Thinking, bool)>,
    tools: &ToolSet,
    parts: &[&str],
) -> (String, String, Vec<String>) {
    let mut reader = AnswerReader::new(thinking, Some((form, tools.clone())));
    let mut delta = Delta::default();
    for part in parts {
        reader.push((*part).to_owned(), &mut delta);
        if reader.is_done() {
            break;
        }
    }
    reader.finish(&mut delta);
    for (index, call) in delta.tool_calls.iter().enumerate() {
        assert!(call.index == index as u32 && call.id.len() == 9, "{call:?}");
    }
    let calls = delta.tool_calls.iter().map(|call| format!("{} {}", call.name, call.arguments));
    (delta.reasoning, delta.text, calls.collect())
}
