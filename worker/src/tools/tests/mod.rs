//! Tools of tests, and answers taken apart.

mod guarantees;
mod reading;
mod rendering;

use serde_json::{Value, json};
use slm_convert::chat::ChatTool;
use slm_proto::v1::{Completion, Delta};

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
    let (whole, _) = streamed(form, thinking, tools, parts);
    let calls = whole.tool_calls.iter().map(|call| format!("{} {}", call.name, call.arguments));
    (whole.reasoning, whole.text, calls.collect())
}

/// The same, put together from a delta for each part; and whether it has called.
fn streamed(form: Form, thinking: Option<(Thinking, bool)>, tools: &ToolSet, parts: &[&str]) -> (Completion, bool) {
    let mut reader = AnswerReader::new(thinking, Some((form, tools.clone())));
    let mut whole = Completion::default();
    let mut add = |delta: Delta| {
        for part in &delta.tool_calls {
            let begun = whole.tool_calls.len();
            let begins = part.index as usize == begun;
            assert!(begins || part.index as usize + 1 == begun, "{part:?} after {begun}");
            assert_eq!((part.id.len(), part.name.is_empty()), if begins { (9, false) } else { (0, true) }, "{part:?}");
            assert!(begins || !part.arguments.is_empty(), "{part:?}");
            whole.add(Delta { tool_calls: vec![part.clone()], ..Default::default() });
        }
        whole.add(Delta { tool_calls: Vec::new(), ..delta });
    };
    for part in parts {
        let mut delta = Delta::default();
        reader.push((*part).to_owned(), &mut delta);
        add(delta);
        if reader.is_done() {
            break;
        }
    }
    let mut delta = Delta::default();
    reader.finish(&mut delta);
    add(delta);
    (whole, reader.has_called())
}
