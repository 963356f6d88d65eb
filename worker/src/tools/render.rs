//! Conversations for templates that do not know all of tools: what a template would leave out is said in messages.

use slm_convert::chat::{ChatMessage, ChatTemplate, ChatTool, Conversation, ToolsPlace};

use super::Form;

/// The conversation as `template` can render it.
#[must_use]
pub fn adapted(mut conversation: Conversation, template: &ChatTemplate, form: Form) -> Conversation {
    let has_calls = |message: &ChatMessage| !message.tool_calls.is_empty() || message.role == "tool";
    let has_tools = !conversation.tools.is_empty();
    if !has_tools && !conversation.messages.iter().any(has_calls) {
        return conversation;
    }
    let abilities = template.abilities();
    conversation.calls = (!abilities.calls).then(|| form.wire());
    if !abilities.results {
        conversation.messages = with_results_said(conversation.messages);
    }
    match abilities.tools.filter(|_| has_tools) {
        None if has_tools && form == Form::Code => {}
        None if has_tools => {
            let text = instructions(&conversation.tools);
            conversation.tools.clear();
            put_first(&mut conversation.messages, text, abilities.system);
        }
        Some(ToolsPlace::System) if conversation.messages.iter().all(|message| message.role != "system") => {
            conversation.messages.insert(0, ChatMessage::new("system", ""));
        }
        Some(_) | None => {}
    }
    conversation
}

/// Results that follow one another are one message of the user's: many templates want turns.
fn with_results_said(messages: Vec<ChatMessage>) -> Vec<ChatMessage> {
    let mut said: Vec<ChatMessage> = Vec::with_capacity(messages.len());
    let mut follows = false;
    for message in messages {
        if message.role != "tool" {
            // What the user adds to results is of the same turn.
            match said.last_mut().filter(|_| follows && message.role == "user") {
                Some(turn) => add(turn, &message.content),
                None => said.push(message),
            }
            follows = false;
            continue;
        }
        let text = format!("Result of {}: {}", message.name.as_deref().unwrap_or("the call"), message.content);
        match said.last_mut().filter(|_| follows) {
            Some(turn) => add(turn, &text),
            None => said.push(ChatMessage::new("user", &text)),
        }
        follows = true;
    }
    said
}

fn add(turn: &mut ChatMessage, text: &str) {
    turn.content.push('\n');
    turn.content.push_str(text);
}

/// Puts `text` into the system message or, of templates without one, before the first message.
fn put_first(messages: &mut Vec<ChatMessage>, text: String, system: bool) {
    match messages.iter_mut().find(|message| message.role == "system" || !system) {
        Some(message) if message.role == "system" => {
            message.content = if message.content.is_empty() { text } else { format!("{}\n\n{text}", message.content) };
        }
        Some(message) => message.content = format!("{text}\n\n{}", message.content),
        None => messages.insert(0, ChatMessage::new("system", &text)),
    }
}

/// What a model without a form of its own is told.
fn instructions(tools: &[ChatTool]) -> String {
    let mut text = "You can call functions. To call one, answer with a JSON object and nothing else:\n\
                    {\"name\": \"name of the function\", \"arguments\": {\"name of an argument\": \"its value\"}}\n\
                    To call several, write one such object on each line. If no function helps, answer in words.\n\
                    These are the functions, with JSON Schemas of their arguments:"
        .to_owned();
    for tool in tools {
        text.push('\n');
        text.push_str(&tool.function().to_string());
    }
    text
}
