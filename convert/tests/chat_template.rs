//! Chat templates: what transformers' Jinja2 does, and what stops a bad template.
#![allow(clippy::unwrap_used)] // helpers of tests say what they expect, as tests do

mod support;

use slm_convert::chat::{ChatMessage, ChatTemplate};
use support::assert_says;

fn messages(turns: &[(&str, &str)]) -> Vec<ChatMessage> {
    let message = |(role, content): &(&str, &str)| ChatMessage { role: (*role).into(), content: (*content).into() };
    turns.iter().map(message).collect()
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new("model", source.to_owned(), Some("<s>".into()), Some("</s>".into())).unwrap()
}

fn failure(source: &str, turns: &[(&str, &str)]) -> String {
    template(source).render(&messages(turns), true).unwrap_err().to_string()
}

#[test]
fn blocks_are_trimmed_and_pythons_methods_are_there() {
    let source = "{{ bos_token }}\n{% for m in messages %}\n    {% if m['role'].upper() == 'USER' %}\n{{ m.content.strip() }}\n\
                  {%- elif loop.last %}\n    {% break %}\n    {% endif %}\n{% endfor %}\n{{ eos_token }}";
    assert_eq!(template(source).render(&messages(&[("user", " a "), ("user", "b")]), false).unwrap(), "<s>\nab</s>");
}

#[test]
fn what_transformers_passes_is_there() {
    let source =
        "{% if tools is none and not documents and not xml_tools %}{{ 'go' if add_generation_prompt }}{% endif %}";
    assert_eq!(template(source).render(&[], true).unwrap(), "go");
    assert_eq!(template("{% generation %}a{%- endgeneration -%} b").render(&[], true).unwrap(), "ab");
    assert_eq!(template("{{ strftime_now('%Y') | length }}").render(&[], true).unwrap(), "4");
}

#[test]
fn tojson_prints_as_python_does() {
    let one = messages(&[("user", "<é & 'x'>")]);
    assert_eq!(
        template("{{ messages | tojson }}").render(&one, true).unwrap(),
        r#"[{"role": "user", "content": "<é & 'x'>"}]"#
    );
    assert_eq!(template("{{ [1] | tojson(indent=2) }}").render(&one, true).unwrap(), "[\n  1\n]");
}

#[test]
fn errors_name_the_line_and_refusals_speak_for_the_model() {
    let syntax = ChatTemplate::new("model/tokenizer_config.json", "a\n{% if %}".into(), None, None).unwrap_err();
    assert_says(&syntax.to_string(), &["model/tokenizer_config.json", "line 2"]);
    assert_says(&failure("\n\n{{ messages[0].content.nothing() }}", &[("user", "a")]), &["model", "line 3", "nothing"]);
    let refused = failure("{{ raise_exception('roles must alternate') }}", &[]);
    assert_eq!(refused, "the model's chat template refuses these messages: roles must alternate");
    let within = "{% macro f() %}{{ raise_exception('no system') }}{% endmacro %}{{ f() }}";
    assert_says(&failure(within, &[]), &["refuses", "no system"]);
}

#[test]
fn a_template_that_never_ends_or_prints_without_end_is_stopped() {
    let long = "{% for a in range(9999) %}{% for b in range(9999) %}{% set c = a + b %}{% endfor %}{% endfor %}";
    assert_says(&failure(long, &[]), &["ran for more than"]);
    let loud = "{% set x = 'a' * 99999 %}{% for a in range(9999) %}{{ x }}{% endfor %}";
    assert_says(&failure(loud, &[]), &["chat template", "shorten"]);
    let large = ChatTemplate::new("model", "a".repeat(2 << 20), None, None).unwrap_err().to_string();
    assert_says(&large, &["2097152 bytes", "limit"]);
}
