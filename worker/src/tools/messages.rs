//! Messages of a request, calls and results of tools among them.

use serde_json::{Map, Value};
use slm_convert::chat::{ChatMessage, ChatToolCall};
use slm_proto::v1;

use super::ToolsError;

/// Calls of one message; an answer makes fewer.
const CALLS_MAX: usize = 128;

/// Messages as templates read them. A result finds its call.
///
/// # Errors
/// Names the message whose calls are wrong, or whose call is not there.
pub(crate) fn conversation(messages: Vec<v1::Message>) -> Result<Vec<ChatMessage>, ToolsError> {
    let mut open = Vec::new();
    let mut all = Vec::with_capacity(messages.len());
    for (index, message) in messages.into_iter().enumerate() {
        all.push(read(&format!("messages[{index}]"), message, &mut open)?);
    }
    Ok(all)
}

/// A call before, by id and name, and whether its result has come.
struct Made {
    id: String,
    name: String,
    answered: bool,
}

fn read(path: &str, message: v1::Message, made: &mut Vec<Made>) -> Result<ChatMessage, ToolsError> {
    let v1::Message { role, content, name, tool_calls, tool_call_id, reasoning } = message;
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let mut read = ChatMessage { role, content, name: given(name), reasoning: given(reasoning), ..Default::default() };
    if !tool_calls.is_empty() && read.role != "assistant" {
        return Err(ToolsError::invalid(format!("{path}.tool_calls"), "is only for messages of an assistant"));
    }
    if tool_calls.len() > CALLS_MAX {
        let (field, found) = (format!("{path}.tool_calls"), tool_calls.len());
        return Err(ToolsError::TooMany { field, found, unit: "entries", most: CALLS_MAX });
    }
    for (index, call) in tool_calls.into_iter().enumerate() {
        let call = call_of(&format!("{path}.tool_calls[{index}]"), call)?;
        made.push(Made { id: call.id.clone(), name: call.name.clone(), answered: false });
        read.tool_calls.push(call);
    }
    match (read.role == "tool", tool_call_id) {
        (true, id) => {
            let call = answered(path, &id, read.name.as_deref(), made)?;
            read.tool_call_id = given(call.id.clone());
            read.name = read.name.or_else(|| given(call.name.clone()));
        }
        (false, id) if id.is_empty() => {}
        (false, _) => {
            return Err(ToolsError::invalid(format!("{path}.tool_call_id"), "is only for messages with the role tool"));
        }
    }
    Ok(read)
}

/// The call that a result is for: that of its id or, without one, the first without a result.
fn answered<'m>(path: &str, id: &str, name: Option<&str>, made: &'m mut [Made]) -> Result<&'m Made, ToolsError> {
    let fits = |call: &Made| match id {
        "" => !call.answered && name.is_none_or(|name| name == call.name),
        id => call.id == id,
    };
    let Some(call) = made.iter_mut().find(|call| fits(call)) else {
        let shown = |text: &str| text.chars().take(80).collect::<String>();
        let (field, why) = match (id, name) {
            ("", None) => ("tool_call_id", "is missing, and no call before it is left without a result".to_owned()),
            ("", Some(name)) => {
                ("name", format!("is `{}`, and no call before it of that tool is left without a result", shown(name)))
            }
            (id, _) => ("tool_call_id", format!("names the call `{}`, which no message before it makes", shown(id))),
        };
        return Err(ToolsError::invalid(
            format!("{path}.{field}"),
            format!("{why}; send the message that makes it, too"),
        ));
    };
    call.answered = true;
    Ok(call)
}

fn call_of(path: &str, call: v1::ToolCall) -> Result<ChatToolCall, ToolsError> {
    let v1::ToolCall { id, name, arguments } = call;
    if name.is_empty() {
        return Err(ToolsError::invalid(format!("{path}.name"), "is missing; a call needs the name of its tool"));
    }
    let arguments = match arguments.trim() {
        "" => Map::new(),
        text => serde_json::from_str(text).map_err(|error| {
            ToolsError::invalid(format!("{path}.arguments"), format!("has to be the text of a JSON object: {error}"))
        })?,
    };
    Ok(ChatToolCall { id, name, arguments: Value::Object(arguments) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str, name: &str, arguments: &str) -> v1::ToolCall {
        v1::ToolCall { id: id.into(), name: name.into(), arguments: arguments.into() }
    }

    fn said(role: &str, calls: Vec<v1::ToolCall>, of: &str) -> v1::Message {
        v1::Message { role: role.into(), tool_calls: calls, tool_call_id: of.into(), ..Default::default() }
    }

    #[test]
    fn results_find_their_calls() {
        let calls = vec![call("x", "f", r#"{"b": 1, "a": 2}"#), call("y", "g", "")];
        let all = vec![
            said("user", vec![], ""),
            said("assistant", calls, ""),
            said("tool", vec![], "y"),
            said("tool", vec![], ""),
        ];
        let read = conversation(all).unwrap();
        assert_eq!(read[1].tool_calls[0].arguments.to_string(), r#"{"b":1,"a":2}"#);
        assert_eq!((read[2].name.as_deref(), read[2].tool_call_id.as_deref()), (Some("g"), Some("y")));
        assert_eq!((read[3].name.as_deref(), read[3].tool_call_id.as_deref()), (Some("f"), Some("x")));
    }

    #[test]
    fn refusals_name_the_message() {
        let made = || said("assistant", vec![call("x", "f", "{}")], "");
        for (messages, field, words) in [
            (
                vec![said("tool", vec![], "x")],
                "messages[0].tool_call_id",
                "names the call `x`, which no message before it makes",
            ),
            (vec![made(), said("tool", vec![], "z")], "messages[1].tool_call_id", "names the call `z`"),
            (
                vec![made(), v1::Message { name: "g".into(), ..said("tool", vec![], "") }],
                "messages[1].name",
                "is `g`, and no call before it of that tool",
            ),
            (vec![said("tool", vec![], "")], "messages[0].tool_call_id", "no call before it is left without a result"),
            (
                vec![said("user", vec![call("x", "f", "{}")], "")],
                "messages[0].tool_calls",
                "only for messages of an assistant",
            ),
            (vec![said("user", vec![], "x")], "messages[0].tool_call_id", "only for messages with the role tool"),
            (vec![said("assistant", vec![call("x", "", "{}")], "")], "messages[0].tool_calls[0].name", "is missing"),
            (
                vec![said("assistant", vec![call("x", "f", "[]")], "")],
                "messages[0].tool_calls[0].arguments",
                "text of a JSON object",
            ),
        ] {
            let refused = conversation(messages).unwrap_err();
            assert_eq!(refused.field(), field, "{refused}");
            assert!(refused.to_string().contains(words), "{refused}");
        }
    }
}
