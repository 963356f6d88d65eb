//! What a template does, found out by rendering sample conversations.

use serde_json::json;

use super::{ChatError, ChatMessage, ChatTemplate, ChatTool, ChatToolCall, Conversation, ToolsPlace, percent};

/// Content of the sample messages: text that no template contains.
const SAID: &str = "qzvxkj";
/// Roles of the sample conversations. Templates refuse some of them.
const CONVERSATIONS: [&[&str]; 6] = [
    &["user"],
    &["system", "user"],
    &["user", "assistant", "user"],
    &["system", "user", "assistant", "user"],
    &["user", "assistant", "tool", "assistant", "user"],
    &["user", "assistant"],
];

/// An id that every template accepts: some want nine letters or digits.
const CALL_ID: &str = "qzvxkj123";
/// Where templates look for tools, the usual place first.
const PLACES: [ToolsPlace; 3] = [ToolsPlace::Variable("tools"), ToolsPlace::Variable("xml_tools"), ToolsPlace::System];

/// What a template renders besides messages of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// Where it looks for tools; `None` if it shows none.
    pub tools: Option<ToolsPlace>,
    /// Whether it renders the calls of an assistant's message.
    pub calls: bool,
    /// Whether it renders messages with the role `tool`.
    pub results: bool,
    /// Whether it renders a system message.
    pub system: bool,
}

impl ChatTemplate {
    /// What it renders, found out by sample conversations. Rendered once.
    #[must_use]
    pub fn abilities(&self) -> Abilities {
        *self.abilities.get_or_init(|| {
            let shows = |messages: Vec<ChatMessage>, tools: Vec<ChatTool>, place| {
                let conversation = Conversation { messages, tools, ..Conversation::default() };
                self.rendered(&conversation, place, true).is_ok_and(|text| text.contains(SAID))
            };
            let said = |role: &str| ChatMessage::new(role, "a");
            let named = sample_tool();
            let shows_tools = |place: &ToolsPlace| {
                let messages = match place {
                    ToolsPlace::System => vec![said("system"), said("user")],
                    ToolsPlace::Variable(_) => vec![said("user")],
                };
                shows(messages, vec![named.clone()], Some(*place))
            };
            let tools = PLACES.into_iter().find(shows_tools);
            let called = |name: &str| ChatMessage {
                tool_calls: vec![ChatToolCall { id: CALL_ID.to_owned(), name: name.to_owned(), arguments: json!({}) }],
                ..ChatMessage::new("assistant", "")
            };
            let result = |content: &str| ChatMessage {
                name: Some("f".to_owned()),
                tool_call_id: Some(CALL_ID.to_owned()),
                ..ChatMessage::new("tool", content)
            };
            Abilities {
                tools,
                calls: shows(vec![said("user"), called(SAID), result("a")], Vec::new(), None)
                    || shows(vec![said("user"), called(SAID)], Vec::new(), None),
                results: shows(vec![said("user"), called("f"), result(SAID)], Vec::new(), None),
                system: shows(vec![ChatMessage::new("system", SAID), said("user")], Vec::new(), None),
            }
        })
    }

    /// What the template writes around the messages of sample conversations, around tools, calls and results too. Rendered once.
    #[must_use]
    pub fn written(&self) -> &str {
        self.written.get_or_init(|| {
            let rendered = CONVERSATIONS.iter().filter_map(|roles| self.sample(roles).ok());
            rendered.chain(self.sample_with_tools()).collect::<Vec<_>>().join("\n")
        })
    }

    /// Strings that stand in the template's expressions, which may compare, split or replace parts of a message, and
    /// the texts of its special tokens.
    #[must_use]
    pub fn literals(&self) -> &[String] {
        self.literals.get_or_init(|| {
            let tokens = [&self.bos_token, &self.eos_token].into_iter().flatten().cloned();
            let others = self.special_tokens.values().filter_map(|value| value.as_str().map(str::to_owned));
            let mut literals: Vec<String> =
                percent::literals(&self.template).into_iter().chain(tokens).chain(others).collect();
            literals.retain(|literal| !literal.trim().is_empty());
            literals.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
            literals.dedup();
            literals
        })
    }

    /// Why the template renders no conversation at all, such as a filter that does not exist. A template that refuses
    /// the sample conversations by itself has no problem.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let mut problem = None;
        for roles in CONVERSATIONS {
            match self.sample(roles) {
                Ok(_) | Err(ChatError::Refused { .. }) => return None,
                Err(error) => problem = problem.or(Some(error)),
            }
        }
        problem.map(|error| format!("{error}; requests with messages will be refused: repair the template"))
    }

    /// A conversation with a tool, a call and its result.
    fn sample_with_tools(&self) -> Option<String> {
        let arguments = json!({ SAID: SAID });
        let call = ChatToolCall { id: CALL_ID.to_owned(), name: SAID.to_owned(), arguments };
        let tool = sample_tool();
        let result = ChatMessage {
            name: Some(SAID.to_owned()),
            tool_call_id: Some(CALL_ID.to_owned()),
            ..ChatMessage::new("tool", SAID)
        };
        let messages = vec![
            ChatMessage::new("user", SAID),
            ChatMessage { tool_calls: vec![call], ..ChatMessage::new("assistant", "") },
            result,
        ];
        self.prompt(&Conversation { messages, tools: vec![tool], ..Conversation::default() }).ok()
    }

    fn sample(&self, roles: &[&str]) -> Result<String, ChatError> {
        let messages: Vec<ChatMessage> = roles.iter().map(|role| ChatMessage::new(role, SAID)).collect();
        self.render(&messages, true)
    }
}

/// With everything that templates expect of a tool.
fn sample_tool() -> ChatTool {
    let text = json!({"type": "string", "description": "a"});
    let parameters = json!({"type": "object", "properties": {"a": text}, "required": ["a"]});
    ChatTool { name: SAID.to_owned(), description: "a".to_owned(), parameters }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate::new("t", source.to_owned(), None, Some("</s>".into())).unwrap()
    }

    #[test]
    fn what_a_template_writes_and_compares_is_found() {
        let source = "{% for m in messages %}<{{ m.role }}>{{ m.content.split('</th\\'ink>')[-1] }}{% endfor %}'text'";
        let template = template(source);
        assert!(template.written().contains("<system>") && template.written().contains("<tool>"));
        assert_eq!(template.literals(), ["</th'ink>", "</s>"]);
    }

    #[test]
    fn what_a_template_writes_around_calls_is_found() {
        let source = "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}<call>{{ c.function.name }}{% endfor %}\
                      {% if m.role == 'tool' %}<result>{{ m.content }}{% endif %}{% endfor %}{% if tools %}<tools>{% endif %}";
        let template = template(source);
        assert!(["<call>", "<result>"].iter().all(|mark| template.written().contains(mark)), "{}", template.written());
    }

    #[test]
    fn what_a_template_knows_of_tools_is_found() {
        let loops = |body: &str| format!("{{% for m in messages %}}{body}{{% endfor %}}");
        let text = "{{ m.role }}: {{ m.content }}";
        let of = |tools, calls, results, system| Abilities { tools, calls, results, system };
        for (source, expected) in [
            (loops(text), of(None, false, true, true)),
            (
                loops("{% if m.role in ['user', 'assistant'] %}{{ m.content }}{% else %}{{ raise_exception('no') }}{% endif %}"),
                of(None, false, false, false),
            ),
            (
                "{% if tools %}{{ tools | tojson }}{% endif %}".to_owned() + &loops(text),
                of(Some(ToolsPlace::Variable("tools")), false, true, true),
            ),
            (
                "{% for t in tools or [] %}{{ t.function.name + ': ' + t.function.description + t.function.parameters.properties.a.type }}{% endfor %}"
                    .to_owned()
                    + &loops(text),
                of(Some(ToolsPlace::Variable("tools")), false, true, true),
            ),
            (
                "{% if xml_tools %}{{ xml_tools | tojson }}{% endif %}".to_owned() + &loops(text),
                of(Some(ToolsPlace::Variable("xml_tools")), false, true, true),
            ),
            (
                loops("{{ m.content }}{% if 'tools' in m %}{{ '<|tool|>' + m.tools }}{% endif %}{% for c in m.tool_calls %}{{ c.function.name }}{% endfor %}"),
                of(Some(ToolsPlace::System), true, true, true),
            ),
        ] {
            assert_eq!(template(&source).abilities(), expected, "{source}");
        }
    }

    #[test]
    fn only_a_template_that_renders_nothing_has_a_problem() {
        for good in
            ["", "{{ messages[0].content }}", "{{ raise_exception('no') }}", "{{ messages[1].content.strip() }}"]
        {
            assert_eq!(template(good).problem(), None, "{good}");
        }
        for (bad, word) in [("{{ messages[0].content | nosuch }}", "nosuch"), ("{{ a.b.c }}", "undefined")] {
            let problem = template(bad).problem().unwrap();
            assert!(problem.contains(word), "{problem}");
        }
    }
}
