//! Chat templates: what transformers' Jinja2 does, and what stops a bad template.
#![allow(clippy::unwrap_used)] // helpers of tests say what they expect, as tests do

mod support;

use slm_convert::chat::{ChatMessage, ChatTemplate};
use support::assert_says;

fn messages(turns: &[(&str, &str)]) -> Vec<ChatMessage> {
    let message = |(role, content): &(&str, &str)| ChatMessage::new(role, content);
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
fn what_python_and_jinja_have_is_there() {
    // Every line as Jinja2 3.1 prints it.
    let cases = [
        ("{{ 'a.b.c'.rsplit('.', 1) | join('|') }}", "a.b|c"),
        ("{{ ' a  b c '.rsplit(none, 1) | join('|') }}", " a  b|c"),
        ("{{ ' a  b '.rsplit() | join('|') }}", "a|b"),
        ("{{ 'abcb'.index('b') }}{{ 'abcb'.rindex('b') }}{{ [3, 4].index(4) }}", "131"),
        ("{{ 'a=b=c'.partition('=') | join('|') }} {{ 'a=b=c'.rpartition('=') | join('|') }}", "a|=|b=c a=b|=|c"),
        ("{{ 'abc'.removeprefix('a').removesuffix('c') }}", "b"),
        ("{{ ' a '.rstrip() }}|{{ ' a '.lstrip() }}|{{ 'xax'.strip('x') }}", " a|a |a"),
        ("{{ '7'.zfill(3) }} {{ '-7'.zfill(4) }} {{ 'a'.ljust(3, '.') }} {{ 'a'.rjust(3) }}", "007 -007 a..   a"),
        ("[{{ 'ab' | center(5) }}] [{{ 'ab'.center(5, '*') }}] [{{ 'a' | center(4) }}]", "[  ab ] [**ab*] [ a  ]"),
        ("{{ 'One two, three_4' | wordcount }}", "3"),
        ("{{ 'Hello brave World' | truncate(11, leeway=0) }}", "Hello..."),
        (
            "{{ 'Hello brave World' | truncate(11, true, '!', leeway=0) }} {{ 'Hello brave' | truncate(9) }}",
            "Hello brav! Hello brave",
        ),
        ("{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}", "aba"),
        ("{% set j = joiner(', ') %}{% for x in [1, 2] %}{{ j() }}{{ x }}{% endfor %}", "1, 2"),
        ("{{ [7, 7] | random }}", "7"),
        ("{{ '%s-%02d' % ('a', 3) }} {{ '%s' | format('b') }} {{ '{}'.format('c') }}", "a-03 b c"),
        ("{% set n = namespace(x=0) %}{% for i in range(3) %}{% set n.x = n.x + i %}{% endfor %}{{ n.x }}", "3"),
        (
            "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i > 2 %}{% break %}{% endif %}{{ i }}{% endfor %}",
            "02",
        ),
        ("{{ 'aB'.swapcase() }} {{ 'ß A'.casefold() }}", "Ab ss a"),
    ];
    for (source, expected) in cases {
        assert_eq!(template(source).render(&[], true).unwrap(), expected, "{source}");
    }
}

#[test]
fn texts_are_formatted_as_python_does() {
    // Every line as Python 3.11 prints it.
    let cases = [
        ("'%s' % ['a']", "['a']"),
        ("'%s' % [1, 2]", "[1, 2]"),
        ("'%s|%s' % ([1, 2], 'x')", "[1, 2]|x"),
        ("'%s' % (['a'],)", "['a']"),
        ("'%s' % none", "None"),
        ("'%s %s' % (true, 1.0)", "True 1.0"),
        ("'%s' % {'a': 1}", "{'a': 1}"),
        ("'%r %r %r' % ('it', 1, [\"a\"])", "'it' 1 ['a']"),
        ("'%a' % 'é'", "'\\xe9'"),
        ("'%d %i %u %d %d' % (3.7, 3, 8, true, -3.7)", "3 3 8 1 -3"),
        ("'%*d|%-*d|' % (5, 3, 4, 2)", "    3|2   |"),
        ("'%05d|%-5d|%+d|% d|%#x|%X|%o' % (-42, 7, 4, 4, 255, 255, 8)", "-0042|7    |+4| 4|0xff|FF|10"),
        ("'%.3s|%5.1f|%-8s|%%' % ('abcdef', 12.345, 'ab')", "abc| 12.3|ab      |%"),
        ("'%e %g %g %G %f' % (12345.678, 0.00001, 1000000, 1e-10, 2)", "1.234568e+04 1e-05 1e+06 1E-10 2.000000"),
        ("'%g %g %.3g %#.3g' % (0.1, 100000, 1234.5, 1)", "0.1 100000 1.23e+03 1.00"),
        ("'%c%c' % ('z', 65)", "zA"),
        ("'%(x)s-%(y)03d' % {'x': 'a', 'y': 2}", "a-002"),
        ("'%s %s' | format('a', 2)", "a 2"),
        ("'%(a)s' | format(a='b')", "b"),
        ("'{!r} {}'.format('a', 'b')", "'a' b"),
        ("'{0!r}|{1!s:>3}|{b[k]!r:>4}'.format('a', 'b', b={'k': 1})", "'a'|  b|   1"),
        ("'{:.1%} {:7.0%} {{}} {:>3}'.format(0.256, 0.5, 'x')", "25.6%     50% {}   x"),
        ("1e20", "1e+20"),
        ("1e-7", "1e-07"),
        ("1e20 | string ~ '|' ~ (0.1 + 0.2) ~ '|' ~ 1e15", "1e+20|0.30000000000000004|1000000000000000.0"),
    ];
    for (source, expected) in cases {
        assert_eq!(template(&format!("{{{{ {source} }}}}")).render(&[], true).unwrap(), expected, "{source}");
    }
    for (source, word) in [
        ("'%s' % ()", "not enough"),
        ("'a' % ('b',)", "not all"),
        ("'%d' % 'a'", "number"),
        ("'%y' % 1", "'y'"),
        ("'%' % 1", "within"),
        ("'%999999999d' % 1", "limit"),
        ("'%(a)s' % {'b': 1}", "\"a\""),
    ] {
        assert_says(&failure(&format!("{{{{ {source} }}}}"), &[]), &[word]);
    }
}

#[test]
fn methods_and_filters_take_the_arguments_that_python_gives_them() {
    let cases = [
        ("'a.b.c'.rsplit(sep='.')", "['a', 'b', 'c']"),
        ("'a.b.c'.split('.', maxsplit=1)", "['a', 'b.c']"),
        ("'a.b'.split(sep='.')", "['a', 'b']"),
        ("' a  b '.split()", "['a', 'b']"),
        ("' a  b '.split(none, 1)", "['a', 'b ']"),
        ("'a b c'.rsplit(maxsplit=1)", "['a b', 'c']"),
        ("''.split(',')", "['']"),
        ("''.split()", "[]"),
        ("'hello'.index('l', 3)", "3"),
        ("'hello'.find('l', 3)", "3"),
        ("'hello'.find('l', 0, 2)", "-1"),
        ("'héllo'.rfind('l')", "3"),
        ("'aaa'.count('a', 1)", "2"),
        ("'hello'.startswith('l', 2)", "True"),
        ("'hello'.endswith(('a', 'o'))", "True"),
        ("[1, 2, 1].index(1, 1)", "2"),
        ("[1].copy()", "[1]"),
        ("'1'.isdecimal() ~ '²'.isdecimal() ~ '٣'.isdecimal()", "TrueFalseTrue"),
        ("'a_1'.isidentifier() ~ '1a'.isidentifier()", "TrueFalse"),
        ("'a\tb'.expandtabs(4)", "a   b"),
        ("\"it's ok\".title()", "It'S Ok"),
        ("'a=b'.partition('=')", "('a', '=', 'b')"),
        ("'ab' | center(width=5)", "  ab "),
        ("5 | wordcount", "1"),
        ("range(1) | random", "0"),
        ("'foo bar baz qux' | truncate(11, False, '...', 0)", "foo bar..."),
        ("'foo bar baz qux' | truncate(11, leeway=0, end='>')", "foo bar>"),
        ("{'b': 1, 'a': 'é'} | tojson(true)", r#"{"b": 1, "a": "\u00e9"}"#),
        ("[1] | tojson(false, 2)", "[\n  1\n]"),
        ("'a b/é&' | urlencode", "a%20b/%C3%A9%26"),
        ("{'q': 'a b', 'n': 1} | urlencode", "q=a+b&n=1"),
        ("'hello big world' | wordwrap(8)", "hello\nbig\nworld"),
        ("'abcdefgh ij' | wordwrap(3)", "abc\ndef\ngh\nij"),
        ("{'a': 'b\"', 'c': none} | xmlattr", " a=\"b&#34;\""),
        ("'<&>\\'' | e", "&lt;&amp;&gt;&#39;"),
        ("('<' | e) | e ~ ('<' | e | forceescape)", "&lt;&amp;lt;"),
        ("'a\nb\n\nc\n' | indent(2)", "a\n  b\n\n  c\n"),
        ("'a\nb' | indent('> ', true)", "> a\n> b"),
        ("{'a': ['b']} | pprint", "{'a': ['b']}"),
        ("raise_exception is callable", "True"),
        ("'a' is callable", "False"),
    ];
    for (source, expected) in cases {
        assert_eq!(template(&format!("{{{{ {source} }}}}")).render(&[], true).unwrap(), expected, "{source}");
    }
    let cycler = "{% set c = cycler('a', 'b') %}{{ c.current }}{{ c.next() }}{{ c.current }}{{ c.next() }}{{ c.next() }}\
                  {% set _ = c.reset() %}{{ c.current }}";
    assert_eq!(template(cycler).render(&[], true).unwrap(), "aabbaa");
    let joiner = "{% set j = joiner(sep=' / ') %}{% for x in [1, 2] %}{{ j() }}{{ x }}{% endfor %}";
    assert_eq!(template(joiner).render(&[], true).unwrap(), "1 / 2");
}

#[test]
fn a_name_is_there_for_templates_that_ask_for_it() {
    let source = "{% for m in messages %}{{ m.name if m.name is defined else m.role }};{% endfor %}";
    let named = ChatMessage { name: Some("bob".into()), ..ChatMessage::new("user", "a") };
    assert_eq!(template(source).render(&[named, ChatMessage::new("user", "b")], true).unwrap(), "bob;user;");
}

#[test]
fn tojson_prints_as_python_does() {
    let one = messages(&[("user", "<é & 'x'>")]);
    assert_eq!(
        template("{{ messages | tojson }}").render(&one, true).unwrap(),
        r#"[{"role": "user", "content": "<é & 'x'>"}]"#
    );
    assert_eq!(template("{{ [1] | tojson(indent=2) }}").render(&one, true).unwrap(), "[\n  1\n]");
    let nested = "{{ {'b': [1, {}], 'a': []} | tojson(indent=1, sort_keys=true) }}";
    assert_eq!(template(nested).render(&one, true).unwrap(), "{\n \"a\": [],\n \"b\": [\n  1,\n  {}\n ]\n}");
    let dense = "{{ {'a': ['é😀', 2]} | tojson(separators=(',', ':'), ensure_ascii=true) }}";
    assert_eq!(template(dense).render(&one, true).unwrap(), "{\"a\":[\"\\u00e9\\ud83d\\ude00\",2]}");
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
