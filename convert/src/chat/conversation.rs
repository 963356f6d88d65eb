//! What a template renders: messages, tools, and variables of the caller's.

use minijinja::Value;
use minijinja::value::Serde;
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};

use super::CallForm;

/// Marks the end of the last message's text; characters for private use.
const TAG: &str = "\u{10fffd}\u{10fffc}\u{10fffd} ";

/// One message of a conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant`, `tool`, or another role that the template knows.
    pub role: String,
    /// Text of the message.
    pub content: String,
    /// Name of the participant, for templates that distinguish participants of one role; of a tool's message, the tool's.
    #[serde(default)]
    pub name: Option<String>,
    /// Calls that an assistant's message made.
    #[serde(default)]
    pub tool_calls: Vec<ChatToolCall>,
    /// Of a tool's message: the call whose result it is.
    #[serde(default)]
    pub tool_call_id: Option<String>,
    /// What an assistant thought before.
    #[serde(default)]
    pub reasoning: Option<String>,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatToolCall {
    /// Id, which its result refers to.
    pub id: String,
    /// Name of the tool.
    pub name: String,
    /// An object.
    pub arguments: serde_json::Value,
}

/// A function that an answer may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatTool {
    /// Its name.
    pub name: String,
    /// What it does. Templates expect a text, if only an empty one.
    pub description: String,
    /// A JSON Schema of its arguments.
    pub parameters: serde_json::Value,
}

/// Everything that a prompt is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conversation {
    /// The messages.
    pub messages: Vec<ChatMessage>,
    /// Tools that the template shows to the model.
    pub tools: Vec<ChatTool>,
    /// How calls are written into the text of messages, for a template that writes none.
    pub calls: Option<CallForm>,
    /// Variables of the caller's, such as `enable_thinking`.
    pub variables: Map<String, serde_json::Value>,
    /// How the prompt ends.
    pub end: PromptEnd,
}

/// How a prompt ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PromptEnd {
    /// With the begin of an answer (`add_generation_prompt`).
    #[default]
    Answer,
    /// With the last message.
    Message,
    /// In the last message, behind its text (`continue_final_message`).
    Open,
}

/// Where a template looks for tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolsPlace {
    /// In this variable.
    Variable(&'static str),
    /// In `tools` of the system message, as JSON.
    System,
}

impl ChatMessage {
    /// A message of text.
    #[must_use]
    pub fn new(role: &str, content: &str) -> Self {
        Self { role: role.to_owned(), content: content.to_owned(), ..Self::default() }
    }

    /// As transformers passes it: what a message does not have is not there.
    fn to_value(&self, tools: Option<&str>, form: Option<&CallForm>) -> Value {
        let text =
            |name: &'static str, value: &Option<String>| value.as_deref().map(|value| (name, Value::from(value)));
        let calls = Some(&self.tool_calls).filter(|calls| !calls.is_empty());
        let written = calls.zip(form).map(|(calls, form)| {
            let between = if self.content.is_empty() { "" } else { "\n" };
            [&self.content, between, &form.write(calls)].concat()
        });
        let calls = calls.filter(|_| written.is_none());
        let calls = calls.map(|calls| ("tool_calls", calls.iter().map(ChatToolCall::to_value).collect::<Value>()));
        let content = written.as_deref().unwrap_or(&self.content);
        let named = [("role", Value::from(self.role.as_str())), ("content", Value::from(content))];
        let more = [
            text("name", &self.name),
            calls,
            text("tool_call_id", &self.tool_call_id),
            text("reasoning_content", &self.reasoning),
            tools.map(|tools| ("tools", Value::from(tools))),
        ];
        Value::from_pairs(named.into_iter().chain(more.into_iter().flatten()))
    }
}

impl ChatToolCall {
    fn to_value(&self) -> Value {
        let function = json!({ "name": self.name, "arguments": self.arguments });
        Value::from(Serde(json!({ "id": self.id, "type": "function", "function": function })))
    }
}

impl ChatTool {
    /// The function, as OpenAI writes it.
    #[must_use]
    pub fn function(&self) -> serde_json::Value {
        let mut function = Map::new();
        function.insert("name".to_owned(), self.name.as_str().into());
        function.insert("description".to_owned(), self.description.as_str().into());
        function.insert("parameters".to_owned(), self.parameters.clone());
        function.into()
    }
}

impl Conversation {
    /// A conversation of these messages alone.
    #[must_use]
    pub fn new(messages: Vec<ChatMessage>) -> Self {
        Self { messages, ..Self::default() }
    }

    /// The same with a tag behind the text of the last message; `None` where there is no text.
    pub(super) fn tagged(&self) -> Option<Self> {
        let mut tagged = self.clone();
        let last = tagged.messages.last_mut().filter(|last| !last.content.trim().is_empty())?;
        last.content.push_str(TAG);
        Some(tagged)
    }

    /// Variables for a template that looks for tools at `place`. Names that a template has from elsewhere keep that meaning.
    pub(super) fn variables(&self, place: Option<ToolsPlace>) -> Vec<(String, Value)> {
        let mut all: Vec<(String, Value)> = Vec::with_capacity(self.variables.len() + 3);
        all.push(("documents".to_owned(), Value::from(())));
        all.extend(self.variables.iter().map(|(name, value)| (name.clone(), Value::from(Serde(value.clone())))));
        let mut tools = Value::from(());
        let mut in_system = None;
        match place.filter(|_| !self.tools.is_empty()) {
            Some(ToolsPlace::Variable(name)) => {
                let list = self.tools.iter().map(|tool| json!({ "type": "function", "function": tool.function() }));
                let list = Value::from(Serde(list.collect::<serde_json::Value>()));
                match name {
                    "tools" => tools = list,
                    name => all.push((name.to_owned(), list)),
                }
            }
            Some(ToolsPlace::System) => {
                let list: serde_json::Value = self.tools.iter().map(ChatTool::function).collect();
                in_system = Some(list.to_string());
            }
            None => {}
        }
        all.push(("tools".to_owned(), tools));
        let first = self.messages.iter().position(|message| message.role == "system");
        let of = |index: usize| in_system.as_deref().filter(|_| first == Some(index));
        let messages =
            self.messages.iter().enumerate().map(|(index, message)| message.to_value(of(index), self.calls.as_ref()));
        all.push(("messages".to_owned(), messages.collect::<Value>()));
        all
    }
}

/// What is before the tag of [`Conversation::tagged`] in a prompt. A template that has taken away the white space behind the tag would
/// have done the same to that before it.
pub(super) fn before_tag(prompt: &str) -> Option<&str> {
    let at = prompt.rfind(TAG.trim_end())?;
    let text = &prompt[..at];
    Some(if prompt[at..].starts_with(TAG) { text } else { text.trim_end() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_ends_behind_the_text_of_the_last_message() {
        let end = |content: &str, write: fn(&str) -> String| {
            let tagged = Conversation::new(vec![ChatMessage::new("assistant", content)]).tagged()?;
            before_tag(&write(&tagged.messages[0].content)).map(str::to_owned)
        };
        assert_eq!(end("a, ", |text| format!("<a>{text}</a>")).as_deref(), Some("<a>a, "));
        assert_eq!(end(" a ", |text| format!("<a>{}</a>", text.trim())).as_deref(), Some("<a>a"));
        assert_eq!(end("a", |_| "<a>a</a>".to_owned()), None, "the template writes something else");
        assert_eq!(end(" ", |text| format!("<a>{text}</a>")), None, "nothing to continue");
    }
}
