//! Forms of templates, and conversations for templates that know less.

use slm_convert::chat::{ChatMessage, ChatTemplate, ChatToolCall, Conversation};

use super::*;

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new("t", source.to_owned(), None, None).unwrap()
}

const TURNS: &str = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}";

#[test]
fn the_form_is_found_in_the_template() {
    for (sign, form) in [
        ("<tool_call>", Form::Hermes),
        ("<tool_call><arg_key>", Form::Json),
        ("<tool_call>\n<function=", Form::Xml),
        ("[TOOL_CALLS]", Form::MistralList),
        ("[TOOL_CALLS]x[ARGS]", Form::MistralArgs),
        ("<|tool|>", Form::Phi),
        ("<|tool_call|>", Form::Granite),
        ("<start_function_call>", Form::FunctionGemma),
        ("<|tool_call>", Form::Gemma),
        ("<|python_tag|>", Form::Llama),
        ("{\"name\": function name, \"parameters\": dictionary of argument name and its value}", Form::Llama),
        ("something else", Form::Json),
    ] {
        let source =
            format!("{{% if tools %}}{{{{ tools | tojson }}}}{{% raw %}}{sign}{{% endraw %}}{{% endif %}}{TURNS}");
        assert_eq!(Form::of(&template(&source), false), form, "{sign}");
    }
    assert_eq!(Form::of(&template(&format!("{TURNS}<tool_call>")), false), Form::Json, "it shows no tools");
    let code = template(&format!("{{% if python_tools %}}<code>{{% endif %}}{TURNS}"));
    assert_eq!((Form::of(&code, true), Form::of(&code, false)), (Form::Code, Form::Json));
}

fn conversation() -> Conversation {
    let call = ChatToolCall { id: "abcdefghi".into(), name: "add".into(), arguments: json!({"a": 1, "b": [true]}) };
    let result = |content: &str| ChatMessage {
        name: Some("add".into()),
        tool_call_id: Some("abcdefghi".into()),
        ..ChatMessage::new("tool", content)
    };
    Conversation {
        messages: vec![
            ChatMessage::new("user", "1+1?"),
            ChatMessage { tool_calls: vec![call], ..ChatMessage::new("assistant", "So.") },
            result("2"),
            result("3"),
            ChatMessage::new("user", "Well?"),
        ],
        tools: set(Choice::Auto, true).tools.into_iter().skip(1).map(|tool| tool.shown).collect(),
        ..Conversation::default()
    }
}

fn rendered(source: &str) -> String {
    let template = template(source);
    let form = Form::of(&template, false);
    template.prompt(&adapted(conversation(), &template, form)).unwrap()
}

#[test]
fn a_template_without_tools_gets_them_in_words() {
    let text = rendered(TURNS);
    assert!(text.starts_with("[system]You can call functions."), "{text}");
    assert!(
        text.contains("\n{\"name\":\"add\",\"description\":\"It does.\",\"parameters\":{\"type\":\"object\""),
        "{text}"
    );
    let call = r#"{"name": "add", "arguments": {"a": 1, "b": [true]}}"#;
    let turns = text.split_once("[user]").unwrap().1;
    assert_eq!(turns, format!("1+1?[assistant]So.\n{call}[tool]2[tool]3[user]Well?"));
    let alternating = "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns') }}{% endif %}\
                       [{{ m.role }}]{{ m.content }}{% endfor %}";
    let text = rendered(alternating);
    assert!(text.starts_with("[user]You can call functions."), "{text}");
    assert!(text.ends_with("}[user]Result of add: 2\nResult of add: 3\nWell?"), "{text}");
}

#[test]
fn a_template_with_tools_gets_them_as_transformers_passes_them() {
    let source = "{% for t in tools %}{{ t | tojson }}{% endfor %}{% for m in messages %}[{{ m.role }}]{{ m.content }}\
                  {% for c in m.tool_calls %}<tool_call>{{ c.function.name }} {{ c.function.arguments | tojson }} {{ c.type }} {{ c.id }}{% endfor %}\
                  {% if m.role == 'tool' %}{{ m.name }} {{ m.tool_call_id }}{% endif %}{% endfor %}";
    let tool = r#"{"type": "function", "function": {"name": "add", "description": "It does.", "parameters": {"type": "object", "properties": {"#;
    let text = rendered(source);
    assert!(text.starts_with(tool), "{text}");
    let turns = text.split_once("[user]").unwrap().1;
    assert_eq!(
        turns,
        "1+1?[assistant]So.<tool_call>add {\"a\": 1, \"b\": [true]} function abcdefghi[tool]2add abcdefghi[tool]3add abcdefghi[user]Well?"
    );
    assert_eq!(Form::of(&template(source), false), Form::Hermes);
}

#[test]
fn calls_that_a_template_leaves_out_are_said_in_its_form() {
    let phi = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% if m.tools %}<|tool|>{{ m.tools }}<|/tool|>{% endif %}{% endfor %}";
    let text = rendered(phi);
    assert!(text.starts_with(r#"[system]<|tool|>[{"name":"add","#), "{text}");
    assert!(
        text.contains(
            r#"So.
<|tool_call|>[{"name": "add", "arguments": {"a": 1, "b": [true]}}]<|/tool_call|>[tool]2"#
        ),
        "{text}"
    );
}

#[test]
fn without_tools_nothing_changes() {
    let plain = Conversation::new(vec![ChatMessage::new("user", "hi")]);
    assert_eq!(adapted(plain.clone(), &template(TURNS), Form::Json), plain);
}

#[test]
fn variables_reach_the_template_and_hide_nothing() {
    let source = "{{ enable_thinking }} {{ messages | length }} {{ documents }}{{ tools }}";
    let variables = json!({"enable_thinking": false, "messages": [1, 2, 3]}).as_object().unwrap().clone();
    let conversation = Conversation { variables, ..Conversation::new(vec![ChatMessage::new("user", "hi")]) };
    assert_eq!(template(source).prompt(&conversation).unwrap(), "False 1 NoneNone");
}
